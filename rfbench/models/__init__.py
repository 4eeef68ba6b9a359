"""Networks: built by name, changed to a variant, loaded with weights."""
