"""From records to tables, tests and plots: what `rfbench compare` shows."""
