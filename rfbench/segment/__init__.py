"""Semantic segmentation: network, training step, evaluation and record."""
