"""A network as a graph of windows over positions: traced once, then only read. See README.md."""
