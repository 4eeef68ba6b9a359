"""Tiled inference that equals the whole image: `rfbench rf tiles`."""
