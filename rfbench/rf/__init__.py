"""Receptive fields: record a network once, ask many questions of its spatial graph."""
