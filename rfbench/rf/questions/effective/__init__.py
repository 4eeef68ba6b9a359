"""The effective receptive field by gradients: `rfbench rf effective`."""
