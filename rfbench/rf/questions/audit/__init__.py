"""Faults, the layers that cause them, and what fixes them: `rfbench rf audit`."""
