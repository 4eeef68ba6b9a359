"""Whether something fits into this machine's memory, told before it is tried."""

import os
from pathlib import Path

from rfbench.errors import RfbenchError

# the limits of a container, of cgroups 2 and 1
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available_bytes() -> float:
    """Bytes of memory that this process may have; infinity where the system does not say."""
    limits = [float("inf")]
    if hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in map(Path, LIMITS):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):  # not here, or 'max'
            continue
    return min(limits)


def check(needed: float, what: str, remedy: str) -> None:
    """Raise RfbenchError, with both figures, where `needed` bytes are more than there are."""
    if needed > (held := available_bytes()):
        both = f"at least {_text(needed)} of memory, and there are {_text(held)}"
        raise RfbenchError(f"{what} needs {both}. {remedy}")


def _text(size: float) -> str:
    return f"{size / 2**30:,.1f} GiB"
