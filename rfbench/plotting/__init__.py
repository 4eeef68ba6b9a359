"""How figures and pages look: layout, and one HTML template."""
