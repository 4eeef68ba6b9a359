"""Operations of one's own: the README's example, and what a handler may and may not do."""

import doctest
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rfbench import rf
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones
from rfbench.rf.core.target import Target
from rfbench.rf.core.theory import theory
from rfbench.spatial_graph import (
    Builder,
    Constant,
    Opaque,
    Reach,
    Value,
    Window,
    register_op,
    slide,
    spatial_graph,
    unsupported_ops,
)
from rfbench.spatial_graph.operations import plain_name
from rfbench.spatial_graph.ops import lookup
from rfbench.spatial_graph.ops.registry import OPS
from rfbench.spatial_graph.trace import trace_module
from tests.spatial_graph.cases import Net, conv

README = Path(__file__).parents[2] / "rfbench" / "spatial_graph" / "README.md"
BLOCK = re.compile(r"```(python|pycon)\n(.*?)```", re.DOTALL)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    before = dict(OPS)
    yield
    OPS.clear()
    OPS.update(before)


@pytest.fixture(scope="module")
def library() -> Iterator[torch.library.Library]:
    """Operations without handlers: blur(x, kernel), halves(x) -> two, twice(x), pointwise."""
    made = torch.library.Library("rfbench_test", "DEF")
    made.define("blur(Tensor x, Tensor kernel) -> Tensor")
    made.define("halves(Tensor x) -> (Tensor, Tensor)")
    made.define("twice(Tensor x) -> Tensor", tags=(torch.Tag.pointwise,))
    made.impl("blur", lambda x, kernel: torch.empty_like(x), "Meta")
    made.impl("halves", lambda x: (x.new_empty(x.shape), x.new_empty(1)), "Meta")
    made.impl("twice", lambda x: torch.empty_like(x), "Meta")
    yield made
    made._destroy()


def readme() -> dict[str, Any]:
    """The names that the README's code defines; its examples are run on the way."""
    names: dict[str, Any] = {"__name__": "readme"}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for kind, text in BLOCK.findall(README.read_text()):
        if kind == "python":
            exec(text, names)
        else:
            example = doctest.DocTestParser().get_doctest(text, names, "README", None, 0)
            assert runner.run(example, clear_globs=False).failed == 0
            names |= example.globs
    assert runner.tries >= 5
    return names


def test_the_readme_s_example() -> None:
    """Its 3x3 median is measured like a 3x3 maximum, by theory and by path counts."""
    net = readme()["Net"]()
    own = spatial_graph(net, (32, 36))
    pool = nn.MaxPool2d(3, 2, 1)
    twin = spatial_graph(nn.Sequential(net.first, pool, net.last), (32, 36))
    assert own.status().reach == Reach.LOCAL
    assert theory(own).of(own, own.output) == theory(twin).of(twin, twin.output)
    np.testing.assert_array_equal(Target(own).counts().counts, Target(twin).counts().counts)
    assert Target(own).counts().counts.max() > 0

    del OPS["mylib::median3"]
    assert unsupported_ops(trace_module(net, (32, 36))) == {"mylib.median3.default": 1}
    with pytest.raises(RfbenchError, match=r"mylib\.median3\.default \(this operation is"):
        Target(spatial_graph(net, (32, 36)), "last").counts()
    assert Target(spatial_graph(net, (32, 36)), "first").counts().counts.sum() == 9


def test_a_model_file_brings_its_handlers(tmp_path: Path) -> None:
    """Also when it is edited and imported again."""
    file = tmp_path / "with_an_operation.py"
    code = [text for kind, text in BLOCK.findall(README.read_text()) if kind == "python"]
    for edit in ("", "# edited"):
        file.write_text("\n".join([*code, edit]))
        graph = spatial_graph(backbones.build(f"{file}:Net", meta=True).module, (32, 32))
        assert (Target(graph, "last").counts((3, 3)).counts > 0).sum() == 15 * 15


def test_a_handler_sees_the_call(library: torch.library.Library) -> None:
    seen: list[Any] = []

    @rf.register_op("rfbench_test::blur")
    def blur(b: Builder, x: Value, kernel: Constant) -> Value:
        seen.extend([b.op, b.layer, b.out_shape, x.shape, kernel.shape, kernel.values])
        side = kernel.shape[-1]
        window = Window(side, before=side // 2, after=side // 2)
        return slide(b, x, {2: window, 3: window}, "pool")

    def run(net: Net, x: Tensor) -> Tensor:
        return torch.ops.rfbench_test.blur(net.a(x), net.kernel)

    net = Net(run, a=conv())
    net.register_buffer("kernel", torch.ones(5, 5))
    counts = Target(spatial_graph(net, (20, 20))).counts().counts
    assert seen[:5] == ["rfbench_test.blur.default", "", (1, 4, 20, 20), (1, 4, 20, 20), (5, 5)]
    assert torch.equal(seen[5], torch.ones(5, 5))
    assert (counts > 0).sum() == 7 * 7


def test_several_results(library: torch.library.Library) -> None:
    @register_op("rfbench_test.halves")  # as torch prints it
    def halves(b: Builder, x: Value) -> list[Value | None]:
        return [b.same(x), None]

    def run(net: Net, x: Tensor) -> Tensor:
        left, right = torch.ops.rfbench_test.halves(net.a(x))
        return left * right

    assert (Target(spatial_graph(Net(run, a=conv()), (9, 9))).counts().counts > 0).sum() == 9


def test_a_tagged_operation_needs_no_handler(library: torch.library.Library) -> None:
    twice = torch.ops.rfbench_test.twice
    graph = spatial_graph(Net(lambda net, x: twice(net.a(x)), a=conv()), (9, 9))
    assert graph.status().reach == Reach.LOCAL
    assert (Target(graph).counts().counts > 0).sum() == 9
    assert lookup(torch.ops.rfbench_test.halves.default) is None


def narrow(b: Builder, x: Value, kernel: Constant) -> Value:
    return slide(b, x, {2: Window(3), 3: Window(3)}, "pool")


def everywhere(b: Builder, x: Value, kernel: Constant) -> Opaque:
    return b.opaque(Reach.GLOBAL)


def broken(b: Builder, x: Value) -> Value:
    return x


@pytest.mark.parametrize(
    ("handler", "reach", "reason"),
    [
        (narrow, Reach.UNSUPPORTED, r"it gives \(1, 4, 9, 9\), the spatial graph \(1, 4, 7, 7\)"),
        (everywhere, Reach.GLOBAL, "^$"),
        (broken, Reach.UNSUPPORTED, "TypeError: .* 3 were given"),
    ],
)
def test_what_is_not_a_map_is_refused_by_name(
    library: torch.library.Library, handler: Any, reach: Reach, reason: str
) -> None:
    register_op("rfbench_test::blur")(handler)
    net = Net(lambda net, x: torch.ops.rfbench_test.blur(net.a(x), net.a.weight), a=conv())
    witness = spatial_graph(net, (9, 9)).status()
    assert (witness.reach, witness.op) == (reach, "rfbench_test.blur.default")
    assert re.search(reason, witness.reason)


@pytest.mark.parametrize("name", ["median3", "mylib.median3.default", "a::b::c", "mylib::", ""])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UsageError, match="names no operation"):
        register_op(name)(broken)
    assert name not in OPS


def test_one_operation_has_one_handler() -> None:
    with pytest.raises(UsageError, match=r"aten::mean is registered already, by .*reduce\.mean"):
        register_op("aten::mean")(broken)
    assert OPS["aten::mean"] is not broken
    register_op("mine::mean")(broken)
    register_op("mine::mean")(broken)  # a notebook's cell, run twice
    assert OPS["mine::mean"] is broken


def test_every_handler_is_of_an_operation_of_torch() -> None:
    """A name with a typing error would never be asked for."""
    import_module("torch.ao.quantization.fx._decomposed")  # defines some of them
    for name in OPS:
        library, _, operation = name.partition("::")
        assert hasattr(getattr(torch.ops, library), operation), name


def test_an_operation_is_named_without_its_namespace() -> None:
    assert plain_name("mylib.median3.default") == "median3"
    assert plain_name("aten.add_.Tensor") == plain_name("aten.add.Tensor") == "add"
