"""What a training asks of its device without waiting for it: streams and events, behind functions.

On a GPU a step is queued long before it is computed. Whatever reads a result waits for all that was
queued before, and the GPU then waits for the next step to be queued. Here a copy to the host is
queued behind the step and read one step later, and a copy to the GPU runs beside the step before.
On a CPU, where nothing is queued, the same functions copy at once.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def later(values: Tensor) -> Callable[[], list[float]]:
    """A function that returns `values` as they are now; it waits for this copy alone."""
    if values.device.type != "cuda":
        return values.clone().tolist
    held = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    held.copy_(values, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def read() -> list[float]:
        copied.synchronize()
        return held.tolist()

    return read


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """`tensor`, in pinned memory, on the device; the copy runs beside what is queued there."""
    if device.type != "cuda":
        return tensor.to(device)
    now = torch.cuda.current_stream(device)
    with torch.cuda.stream(_beside(device)):
        copy = tensor.to(device, non_blocking=True)
    now.wait_stream(_beside(device))
    copy.record_stream(now)  # its memory is not given away while `now` needs it
    return copy


@functools.cache
def _beside(device: torch.device) -> torch.cuda.Stream:
    """The stream for copies to a GPU, one for each device."""
    return torch.cuda.Stream(device)
