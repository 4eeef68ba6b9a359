"""Figures and pages; what they show was measured elsewhere."""
