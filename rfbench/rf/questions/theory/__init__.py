"""Size, stride, padding and centre by arithmetic: `rfbench rf theory`."""
