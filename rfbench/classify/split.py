"""How a batch is shared out: over processes, and over forward passes where it is too large."""

import itertools
from dataclasses import dataclass

from rfbench.errors import UsageError, counted


@dataclass(frozen=True)
class Split:
    """Each of `world` processes makes `accumulation` passes of `micro` images an update.

    micro is also what every BatchNorm sees. Which images those are, `data.order` says.
    """

    world: int
    accumulation: int
    micro: int

    @property
    def batch(self) -> int:
        """Images an update."""
        return self.world * self.accumulation * self.micro


def split(batch: int, world: int, largest: int) -> Split:
    """Share `batch` over `world` processes, in passes of at most `largest` images.

    Raises UsageError where it does not come out even, naming the nearest that does.
    """
    found = _even(batch, world, largest)
    if found:
        return found
    sizes = (batch + sign * d for d in itertools.count(1) for sign in (-1, 1))
    nearest = next(b for b in sizes if b > 0 and _even(b, world, largest))
    advice = f"-o batch_size={nearest}"
    if batch % world == 0:
        fewer = next(s for m in range(largest, 0, -1) if (s := _even(batch, world, m)))
        advice = f"-o max_batch_per_gpu={fewer.micro} or {advice}"
    raise UsageError(
        f"batch_size {batch} does not split evenly over "
        f"{counted(world, 'process', 'es')} with max_batch_per_gpu {largest}. "
        f"The nearest that does: {advice}."
    )


def _even(batch: int, world: int, largest: int) -> Split | None:
    accumulation = -(-batch // (world * largest))
    micro, rest = divmod(batch, world * accumulation)
    return Split(world, accumulation, micro) if micro and not rest else None
