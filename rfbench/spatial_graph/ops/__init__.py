"""What each operation does to the positions of a map."""
