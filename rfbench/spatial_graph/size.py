"""Sizes of maps, one number for each axis, and shapes of inputs."""

Size = tuple[int, ...]  # along every axis: (L,), (H, W) or (D, H, W)
Shape = tuple[int, ...]  # (C, H, W) of an input, without the batch; (C, L); (C, D, H, W)


def by(size: Size) -> str:
    """'256', '224x224', '16x112x112'."""
    return "x".join(map(str, size))
