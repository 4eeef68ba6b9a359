"""Files given to `train-det --eval-only`: taken for what they hold, or refused; nothing written."""

import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rfbench.detect import config as configs
from rfbench.detect import plan, run, setup
from rfbench.errors import RfbenchError
from rfbench.models import weight_files
from tests.detect import runs

State = dict[str, Tensor]
WEIGHT = "backbone.fpn_lateral3.weight"
SETTINGS = runs.parsed(runs.config())


@pytest.fixture(scope="module")
def detector() -> torch.nn.Module:
    """A detector with random weights."""
    torch.manual_seed(5)
    model = setup.detector(configs.resolve(SETTINGS, 10, Path("nowhere")))
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value))
    return model


def ours(model: torch.nn.Module, **changes: Any) -> dict[str, Any]:
    own = {"format": run.FORMAT, **run.identity_of(SETTINGS, model)}
    return {**own, "model": model.state_dict(), **changes}


TAKEN: dict[str, Callable[[State], Any]] = {
    "a state dict": lambda s: s,
    "Detectron2's": lambda s: {"model": s, "__author__": "x", "matching_heuristics": True},
    "of DDP": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    "of Lightning": lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}},
    "with an average": lambda s: {"model": s, "model_ema": {k: v * 0 for k, v in s.items()}},
}


@pytest.mark.parametrize("name", TAKEN)
def test_weights_of_other_tools_are_taken(
    detector: torch.nn.Module, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "w.pth")
    torch.save(TAKEN[name](detector.state_dict()), path)
    other = setup.detector(configs.resolve(SETTINGS, 10, Path("nowhere")))
    with caplog.at_level(logging.INFO, logger="rfbench"):
        run.load_detector(other, SETTINGS, run.read_detector(path), path)
    own = detector.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in other.state_dict().items())
    assert ("the raw ones are taken" in caplog.text) == (name == "with an average")
    if name == "with an average":
        run.load_detector(other, SETTINGS, run.read_detector(path), path, ema=True)
        assert not other.state_dict()[WEIGHT].any()


REFUSED: dict[str, tuple[Callable[[torch.nn.Module], Any], str]] = {
    "a later format": (lambda m: ours(m, format="rfbench-detection/9"), "of format rfbench-det"),
    "a classifier": (
        lambda m: {"format": weight_files.FORMAT, "state_dict": m.state_dict()},
        "holds no detector: it is of format rfbench-checkpoint/1",
    ),
    "another variant": (lambda m: ours(m, variant="1x1"), "resnet14 / 1x1; this run is"),
    "another kind": (
        lambda m: {"model": {k: v.double() for k, v in m.state_dict().items()}},
        "of another kind",
    ),
    "a name less": (
        lambda m: {"model": {k: v for k, v in m.state_dict().items() if k != WEIGHT}},
        f"1 missing .{WEIGHT}.",
    ),
    "no tensors": (lambda m: {"model": {"a": 3}}, "holds no state dict"),
    "no dict": (lambda m: 5, "holds no state dict"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_no_folder(
    detector: torch.nn.Module, name: str, tmp_path: Path
) -> None:
    change, message = REFUSED[name]
    path = tmp_path / "w.pth"
    torch.save(change(detector), path)
    with pytest.raises(RfbenchError, match=message):
        plan.evaluate_checkpoint(SETTINGS, str(path), tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.pth"]


def test_a_pickle_of_arrays_is_named(detector: torch.nn.Module, tmp_path: Path) -> None:
    """As Detectron2's model zoo has them."""
    arrays = {key: value.numpy() for key, value in detector.state_dict().items()}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays}))
    with pytest.raises(RfbenchError, match="w.pkl is a pickle, which could run anything"):
        run.read_detector(str(tmp_path / "w.pkl"))


def test_the_older_format_of_torch_is_no_mere_pickle(tmp_path: Path) -> None:
    path = str(tmp_path / "w.pth")
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    assert run.read_detector(path)["a"].tolist() == [1, 1, 1]


def test_weights_that_tell_no_variant_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = runs.parsed(runs.config(variant="1x1"))
    model = setup.detector(configs.resolve(settings, 10, Path("nowhere")))
    run.load_detector(model, settings, {"model": model.state_dict()}, "w.pth")
    assert "w.pth does not record the variant of its weights: taken as 1x1" in caplog.text


def test_a_frozen_norm_keeps_variances_of_a_batch_norm(tmp_path: Path) -> None:
    """Detectron2 0.6 takes a BatchNorm's version for an old one of its own, and changes them."""
    from detectron2.layers import FrozenBatchNorm2d

    from rfbench.models import backbones

    torch.manual_seed(7)
    classifier = backbones.build("resnet18").module
    for name, value in classifier.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(torch.rand_like(value))
    torch.save(classifier.state_dict(), tmp_path / "w.pth")
    values = runs.config(model="resnet18", weights=str(tmp_path / "w.pth"))
    values["opts"]["MODEL"]["RESNETS"]["NORM"] = "FrozenBN"
    settings = runs.parsed(json.loads(json.dumps(values)))
    model: Any = setup.detector(configs.resolve(settings, 10, Path("nowhere")))
    seen: list[Any] = []
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.register_load_state_dict_pre_hook(
                lambda _m, _s, _p, told, *rest: seen.append(told.get("version"))
            )
    from rfbench.detect import weights

    weights.load(model, str(tmp_path / "w.pth"), "resnet18", "baseline")
    assert seen and set(seen) == {None}
    net = model.backbone.bottom_up.net
    assert torch.equal(net.bn1.running_var, classifier.bn1.running_var)
