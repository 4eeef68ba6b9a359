"""Where a detector takes its features to be: `rfbench rf registration`."""
