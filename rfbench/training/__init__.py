"""What trainings share that go through a data set epoch by epoch: classification, segmentation."""
