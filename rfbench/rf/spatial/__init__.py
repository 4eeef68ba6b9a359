"""A network as a graph of windows over positions: recorded once, then only read."""
