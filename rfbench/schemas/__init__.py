"""The configurations: one schema for each kind of run, documented by its fields."""
