"""Classification: network, training step, evaluation and record."""
