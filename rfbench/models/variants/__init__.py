"""The paper's variants and alternatives: which strided convolutions change, and how.

A variant changes behaviour, never parameter names: a layer keeps its path, weights and state-dict
keys, and gets a class that also samples with a pool of `pools.POOLS`. Any checkpoint thus loads
strictly into any variant. `fix(model)` changes any network.
"""

from rfbench.models.meta import meta_copy
from rfbench.models.pools import POOLS
from rfbench.models.variant import PAPER, Variant, get, listed
from rfbench.models.variants.apply import apply, changeable, fix
from rfbench.models.variants.choose import is_uneven
from rfbench.models.variants.sampled import MAX_POOLS, Pooled, PooledAfter, _blank

VARIANTS = listed()

__all__ = [
    "MAX_POOLS",
    "PAPER",
    "POOLS",
    "VARIANTS",
    "Pooled",
    "PooledAfter",
    "Variant",
    "_blank",  # by this name pickled networks find it
    "apply",
    "changeable",
    "fix",
    "get",
    "is_uneven",
    "meta_copy",
]
