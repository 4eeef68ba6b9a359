"""Path counts, theory and metrics on a spatial graph: what every question is answered from."""
