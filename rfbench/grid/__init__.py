"""A grid: many variants, seeds and tasks as ordinary runs. See `rfbench grid --help`."""
