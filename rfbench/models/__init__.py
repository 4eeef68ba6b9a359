"""Networks: built from a name, changed as a variant, loaded with weights."""
