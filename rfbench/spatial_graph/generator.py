"""A network that makes a map of vectors (a GAN's generator, a text's CNN), as one that takes it.

The map is the first tensor with positions that a layer reads; of tokens, that a convolution reads.
The function call that made it is left out from then on, and the map that is given stands in its
place.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from rfbench.errors import RfbenchError, one_line
from rfbench.spatial_graph.hooks import Conditions, with_hook
from rfbench.spatial_graph.size import Shape
from rfbench.spatial_graph.skeleton import skeleton

_VIEWS = {
    "__getitem__", "contiguous", "expand", "flatten", "movedim", "permute", "repeat", "reshape",
    "reshape_as", "squeeze", "transpose", "unflatten", "unsqueeze", "view", "view_as",
}  # fmt: skip
_TOKENS = {"embedding", "one_hot"}  # a vector for each of a sequence
# what leaves every token's vector at a position of its own
_ALONE = {
    "__add__", "__mul__", "add", "contiguous", "dropout", "float", "movedim", "mul", "permute",
    "relu", "squeeze", "swapaxes", "swapdims", "to", "transpose", "type", "unsqueeze",
}  # fmt: skip


def first_map(module: nn.Module, inputs: Sequence[Any]) -> tuple[int, Shape] | None:
    """The number of the call that makes the first map of vectors, and (C, H, W) of that map.

    None where the network makes none, or its code is not seen. Raises RfbenchError where it fails
    ahead of it.
    """
    copied, _ = skeleton(module)
    dtype = next((p.dtype for p in copied.parameters() if p.is_floating_point()), torch.float32)
    given = [
        torch.empty(x.shape, dtype=dtype if x.is_floating_point() else x.dtype, device="meta")
        if isinstance(x, Tensor)
        else x
        for x in inputs
    ]
    finder = _Finder([x for x in given if isinstance(x, Tensor)])
    try:
        with torch.no_grad(), finder:
            copied(*given)
    except _Found:
        return finder.found
    except Exception as error:  # the user's code may raise anything
        raise RfbenchError(f"{type(module).__name__} fails on them: {one_line(error)}") from error
    return None


class _Found(BaseException):
    """The first map is known. No Exception, which networks might catch."""


class _Finder(TorchFunctionMode):
    """Looks for the first function that reads a map made by views of what vectors have become.

    Not of weights. Nor is one value for each channel a map, unless it is convolved: it is a scale.
    """

    def __init__(self, vectors: list[Tensor]) -> None:
        super().__init__()
        self.calls = -1
        # id() of a map -> the number of the call that made it, and its shape (C, H, W)
        self.made: dict[int, tuple[int, Shape]] = {}
        self.tokens: dict[int, tuple[int, Shape]] = {}  # the same of a vector for each token
        self.first = {id(x) for x in vectors}
        self.of_vectors = {id(x): x for x in vectors}  # an id() is unique while its tensor lives
        self.found: tuple[int, Shape] | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        self.calls += 1
        number = self.calls
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        out = func(*args, **(kwargs or {}))
        if func.__name__ == "__get__" or self.of_vectors.keys().isdisjoint(map(id, given)):
            return out
        self.of_vectors |= {id(x): x for x in tree_leaves(out) if isinstance(x, Tensor)}
        whole = number, tuple(out.shape[1:]) if isinstance(out, Tensor) else ()
        if func.__name__ in _TOKENS and id(given[0]) in self.first:
            self.tokens[id(out)] = whole
        elif not self.tokens.keys().isdisjoint(map(id, given)):
            # a convolution says which axis is that of the channels
            if "conv" in func.__name__ and id(given[0]) in self.tokens:
                self.found = self.tokens[id(given[0])]
                raise _Found
            # of tokens alone: beside them may stand what attention has mixed
            alone = self.tokens.keys() >= self.of_vectors.keys() & {id(x) for x in given}
            if func.__name__ in _ALONE and alone:
                self.tokens[id(out)] = whole
        elif func.__name__ not in _VIEWS:
            for x in given:
                wide = max(x.shape[2:], default=1) > 1
                if id(x) in self.made and (wide or "conv" in func.__name__):
                    self.found = self.made[id(x)]
                    raise _Found
        elif out.dim() > 2 and (given[0].dim() <= 2 or id(given[0]) in self.made):
            # a part is one of the map that it was taken of
            part = out.numel() < given[0].numel()
            self.made[id(out)] = self.made.get(id(given[0]), whole) if part else whole
        return out


class _Given(TorchFunctionMode):
    """Returns a map where a call would make it."""

    def __init__(self, number: int, x: Tensor) -> None:
        super().__init__()
        self.number, self.x = number, x
        self.calls = -1

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        self.calls += 1
        return self.x if self.calls == self.number else func(*args, **(kwargs or {}))


_RUNNING: list[_Given] = []  # of networks that are being run, the innermost last


class _Enter(Conditions):
    """A hook before a forward pass that takes the map in place of the network's own arguments."""

    def __init__(self, values: Mapping[int, Any], number: int) -> None:
        super().__init__(values)
        self.number = number

    def __call__(self, module: nn.Module, maps: tuple[Any, ...]) -> tuple[Any, ...]:
        given = super().__call__(module, maps)[:-1]
        _RUNNING.append(_Given(self.number, maps[0]))
        _RUNNING[-1].__enter__()
        return given


class _Leave:
    """A hook behind it, also of one that failed."""

    def __call__(self, _module: nn.Module, _args: Any, _out: Any) -> None:
        _RUNNING.pop().__exit__(None, None, None)


@contextmanager
def left_at_the_end() -> Iterator[None]:
    """A context in which such networks run: nothing of them goes on behind it.

    Hooks behind a forward pass are not called for every exception, such as Ctrl-C; a map would be
    given to whatever runs next.
    """
    held = len(_RUNNING)
    try:
        yield
    finally:
        while len(_RUNNING) > held:
            _RUNNING.pop().__exit__(None, None, None)


def from_map(module: nn.Module, vectors: Mapping[int, Any], number: int) -> nn.Module:
    """The network as one that takes the map which it makes of its vectors in a call."""
    other = with_hook(module, _Enter(vectors, number))
    for name in ("_forward_hooks", "_forward_hooks_always_called"):
        vars(other)[name] = OrderedDict(getattr(module, name))
    other.register_forward_hook(_Leave(), always_call=True)
    return other
