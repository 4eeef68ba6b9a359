"""Path-count maps: `rfbench visualize-rf`."""
