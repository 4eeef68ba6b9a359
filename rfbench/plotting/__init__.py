"""The look of figures and pages: palette, layout, and one HTML template."""
