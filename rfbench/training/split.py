"""How a batch is split over processes, and over several passes if it is too large for one."""

import itertools
from dataclasses import dataclass

from rfbench.errors import UsageError, counted


@dataclass(frozen=True)
class Split:
    """Each of `world` processes makes `accumulation` passes of `micro` images per step.

    micro is also the batch size of every BatchNorm. `data.order` says which images these are.
    """

    world: int
    accumulation: int
    micro: int

    @property
    def batch(self) -> int:
        """Images per step."""
        return self.world * self.accumulation * self.micro

    @property
    def memory_advice(self) -> str:
        """What to do where a pass takes too much memory."""
        fewer = (_even(self.batch, self.world, most) for most in range(self.micro - 1, 0, -1))
        if (smaller := next(filter(None, fewer), None)) is None:
            return "Choose smaller images, or a smaller network."
        return f"Try -o max_batch_per_gpu={smaller.micro}; --resume continues with it."


def split(batch: int, world: int, largest: int) -> Split:
    """Share `batch` over `world` processes, in passes of at most `largest` images.

    Raises UsageError if it does not split evenly, naming the nearest size that does.
    """
    even = _even(batch, world, largest)
    if even:
        return even
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
