"""Images, decoding, augmentation, order, loading; COCO; embedded scenes. Data sets: `sources`."""
