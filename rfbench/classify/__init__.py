"""Training a classifier: schedule, checkpoints, and the engine that runs them."""
