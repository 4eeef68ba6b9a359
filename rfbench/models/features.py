"""The feature maps of a network that is run without its head: kept as it runs, by hooks."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from rfbench.models.pyramid import Part


def keep(network: nn.Module, parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """A dict that the next run of `network` fills with the outputs of `parts`, by their names."""
    maps: dict[str, Tensor] = {}
    for name, part in parts.items():
        module = network.get_submodule(part.path)
        module.register_forward_hook(functools.partial(_note, maps, name))
    return maps


def cut(network: nn.Module, chain: Sequence[Part], last: Part) -> None:
    """Replace what runs after `last`, the head of a classifier, by nothing."""
    for part in chain[chain.index(last) + 1 :]:
        put(network, part.path, nn.Identity())


def put(network: nn.Module, path: str, new: nn.Module) -> None:
    """Replace the module at `path`."""
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, new)


def _note(maps: dict[str, Tensor], name: str, _module: Any, _inputs: Any, output: Tensor) -> None:
    maps[name] = output
