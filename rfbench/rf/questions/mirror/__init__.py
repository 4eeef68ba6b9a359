"""What a mirrored image moves: the misalignment of flip tests, `rf mirror`."""
