"""Names in files of weights: what wrappers add is left out where the rest fits exactly."""

import collections
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rfbench.errors import RfbenchError
from rfbench.models import backbones, classifier_weights, pruned, weight_files

NET = """
import torch
from torch import nn
def make():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 4, 3)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
def wrapped():
    return nn.DataParallel(make())
def compiled():
    net = make()
    net[3] = torch.compile(net[3])
    return net
class Versioned(nn.Module):
    _version = 3
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 5)
    def forward(self, x):
        return self.fc(x.mean((2, 3)))
    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *args):
        if local_metadata.get("version") != 3:
            raise ValueError(f"version {local_metadata.get('version')} is not read")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
def versioned():
    return Versioned()
"""
State = dict[str, Tensor]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The network of `net.py:make`, with random weights, in the folder that a test runs in."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    scope: dict[str, Any] = {}
    exec(NET, scope)
    net = scope["make"]()
    for value in net.state_dict().values():
        value.copy_(torch.rand_like(value) if value.is_floating_point() else value)
    return net.eval()


def prefixed(*prefixes: str) -> Callable[[State], State]:
    return lambda state: {f"{''.join(prefixes)}{key}": value for key, value in state.items()}


WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "DDP": prefixed("module."),
    "twice": prefixed("module.", "module."),
    "compiled": prefixed("_orig_mod."),
    "compiled in DDP": prefixed("module.", "_orig_mod."),
    "FSDP": prefixed("_fsdp_wrapped_module."),
    "compiled within": lambda s: {k.replace("3.0.", "3._orig_mod.0."): v for k, v in s.items()},
    "checkpointed within": lambda s: {
        k.replace("3.", "3._checkpoint_wrapped_module."): v for k, v in s.items()
    },
    "averaged": lambda s: {**prefixed("module.")(s), "n_averaged": torch.tensor(3)},
    "Lightning": lambda s: {"state_dict": prefixed("model.")(s), "callbacks": {}},
    "Lightning of a compiled network": lambda s: {"state_dict": prefixed("net._orig_mod.")(s)},
    "like a name of its own": prefixed("0."),
    "a tutorial of torch": lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}}},
    "one other key": lambda s: {"net": prefixed("module.")(s), "acc": 93.1, "epoch": 7},
    "old, without counts": lambda s: {k: v for k, v in s.items() if "tracked" not in k},
    "old and wrapped": lambda s: prefixed("net.")(
        {k: v for k, v in s.items() if "tracked" not in k}
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("network", ["make", "compiled"])
def test_wrapped_names_are_the_networks(made: nn.Module, name: str, network: str) -> None:
    torch.save(WRAPPED[name](made.state_dict()), "w.pth")
    module = backbones.build(f"net.py:{network}", weights="w.pth").module
    images = torch.rand(2, 3, 9, 9)
    assert torch.equal(module[:3](images), made[:3](images))
    held = [value for key, value in module.state_dict().items() if "tracked" not in key]
    own = [value for key, value in made.state_dict().items() if "tracked" not in key]
    assert all(torch.equal(a, b) for a, b in zip(held, own, strict=True))


def test_a_network_that_is_wrapped_itself_takes_its_own_file(made: nn.Module) -> None:
    torch.save(nn.DataParallel(made).state_dict(), "w.pth")
    module = backbones.build("net.py:wrapped", weights="w.pth").module
    assert torch.equal(module.state_dict()["module.0.weight"], made.state_dict()["0.weight"])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Lightning", "the prefix 'model.' of its names is left out"),
        ("one other key", "the weights 'net' in it are taken"),
        ("compiled in DDP", ""),
    ],
)
def test_what_is_left_out_is_said(
    made: nn.Module, name: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(WRAPPED[name](made.state_dict()), "w.pth")
    with caplog.at_level(logging.INFO, logger="rfbench"):
        backbones.build("net.py:make", weights="w.pth", meta=True)
    assert said in caplog.text if said else not caplog.text


MISFITS: dict[str, tuple[Callable[[State], Any], str]] = {
    "a name more": (lambda s: {**prefixed("net.")(s), "loss.weight": s["6.bias"]}, "unexpected"),
    "a name less": (
        lambda s: {k: v for k, v in prefixed("net.")(s).items() if "6.bias" not in k},
        "10 missing .0.weight, ",
    ),
    "a name less in DDP": (
        lambda s: {k: v for k, v in prefixed("module.")(s).items() if "6.bias" not in k},
        "1 missing .6.bias.",
    ),
    "some with a prefix": (
        lambda s: {("net." if "6." in k else "") + k: v for k, v in s.items()},
        "2 missing .6.weight, 6.bias., 2 unexpected",
    ),
    "no dot": (lambda s: {f"net_{k}": v for k, v in s.items()}, "unexpected"),
    "two networks": (lambda s: {**prefixed("a.")(s), **prefixed("b.")(s)}, "unexpected"),
    "two sets": (lambda s: {"state_dict": s, "model": s}, "several sets of weights"),
    "two others": (lambda s: {"student": s, "teacher": s}, "several sets of weights .student, t"),
    "keys without weights": (lambda s: {"state": {"model": s}}, "its keys: state"),
    "another shape": (
        lambda s: prefixed("net.")({**s, "6.bias": s["6.bias"][:3]}),
        "1 of another shape .6.bias: .3. for .5.",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_what_fits_in_no_way_is_refused(made: nn.Module, name: str) -> None:
    change, message = MISFITS[name]
    torch.save(change(made.state_dict()), "w.pth")
    with pytest.raises(RfbenchError, match=message):
        backbones.build("net.py:make", weights="w.pth")


def test_weights_beside_a_configuration_are_taken(made: nn.Module) -> None:
    torch.save({"model": {"name": "x", "depth": 3}, "state_dict": made.state_dict()}, "w.pth")
    module = backbones.build("net.py:make", weights="w.pth").module
    assert torch.equal(module.state_dict()["6.bias"], made.state_dict()["6.bias"])


# --- versions of modules ------------------------------------------------------------------------


def test_the_versions_of_modules_reach_them(made: nn.Module) -> None:
    fc = {"fc.weight": torch.ones(5, 3), "fc.bias": torch.ones(5)}
    told = collections.OrderedDict(fc)
    told._metadata = {"": {"version": 3}}  # type: ignore[attr-defined]
    torch.save(told, "w.pth")
    assert backbones.build("net.py:versioned", weights="w.pth").module.fc.bias.sum() == 5
    wrapped = collections.OrderedDict(prefixed("module.")(fc))
    wrapped._metadata = {"": {"version": 1}, "module": {"version": 3}}  # type: ignore[attr-defined]
    torch.save(wrapped, "w.pth")
    assert backbones.build("net.py:versioned", weights="w.pth").module.fc.bias.sum() == 5
    torch.save(fc, "w.pth")
    with pytest.raises(RfbenchError, match="w.pth does not fit .*: version None is not read"):
        backbones.build("net.py:versioned", weights="w.pth")


@pytest.mark.parametrize(
    "told", [5, {"1": 3}, {"1": {"version": "x"}}, {"1": {"version": 10**30}}, {3: {}}, {"1": [2]}]
)
def test_versions_that_are_none_do_no_harm(made: nn.Module, told: Any) -> None:
    state = collections.OrderedDict(made.state_dict())
    state._metadata = told  # type: ignore[attr-defined]
    torch.save(state, "w.pth")
    module = backbones.build("net.py:make", weights="w.pth").module
    assert torch.equal(module.state_dict()["6.bias"], made.state_dict()["6.bias"])


def test_a_network_of_torchvision_that_asks_for_its_version() -> None:
    """MNASNet's first version had another stem; it refuses weights that do not tell theirs."""
    from torchvision import models

    first = models.mnasnet0_5(weights=None)
    second = models.mnasnet0_5(weights=None)
    weight_files.load_strictly(second, first.state_dict(), "w.pth", "mnasnet0_5")
    assert all(
        torch.equal(a, b)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    old = first.state_dict()
    old._metadata[""]["version"] = 1
    old["layers.0.weight"] = torch.zeros(32, 3, 3, 3)  # as the first version's stem
    with pytest.raises(RfbenchError, match="of another shape .layers.0.weight: .32, 3, 3, 3. for"):
        weight_files.load_strictly(second, old, "w.pth", "mnasnet0_5")
    assert second.layers[0].out_channels == 16


def test_a_headless_network_gets_versions_too(tmp_path: Path) -> None:
    from torchvision import models

    net = models.mnasnet0_5(weights=None)
    torch.save({"net": prefixed("encoder.")(net.state_dict())}, tmp_path / "plain.pth")
    torch.save(net.state_dict(), tmp_path / "w.pth")
    own = {k: v for k, v in net.state_dict().items() if not k.startswith("classifier.")}
    state = classifier_weights.state_of(own, str(tmp_path / "w.pth"), "mnasnet0_5", "baseline")
    assert state._metadata[""] == {"version": 2}  # type: ignore[attr-defined]
    again = classifier_weights.state_of(own, str(tmp_path / "plain.pth"), "mnasnet0_5", "baseline")
    assert all(torch.equal(again[key], state[key]) for key in state)


# --- who else reads names -----------------------------------------------------------------------


def test_a_pruned_kernel_is_seen_behind_a_prefix(made: nn.Module) -> None:
    """What the map takes for zero must be what is zero in the file, whatever its names are."""
    state = made.state_dict()
    state["0.weight"][:, :, 0] = 0
    torch.save(prefixed("model.")(state), "w.pth")
    own = made.state_dict().keys()
    held = weight_files.state_dict("w.pth", "net.py:make", "baseline", own)
    assert not bool(pruned.kept_taps(made, held)["0"][:, :, 0].any())


def test_weights_that_tell_no_variant_are_warned_of(
    made: nn.Module, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save(made.state_dict(), "w.pth")
    weight_files.read("w.pth", "net.py:make", "baseline")
    assert not caplog.text
    weight_files.read("w.pth", "net.py:make", "1x1")
    assert "w.pth does not record the variant of its weights: taken as 1x1." in caplog.text
