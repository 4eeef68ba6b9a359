"""Arguments of a network's function: in its name, in configurations, in checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from rfbench import rf
from rfbench.cli import main
from rfbench.config import load
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import arguments, backbones, weight_files
from rfbench.schemas.cls import ClsConfig

OWN = """
from torch import nn

def stack(width=4, stride: int = 2, *, deep: bool = False, name="a:b"):
    layers = [nn.Conv2d(3, width, 3, stride, 1)] * (2 if deep else 1)
    return nn.Sequential(layers[0], *(nn.Conv2d(width, width, 3, 1, 1) for _ in layers[1:]))

def passes_on(**options):
    return stack(**options)

def fails(width=4):
    raise ValueError("no weights at hand")
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("args", "name"),
    [
        ({}, "resnet50"),
        ({"output_stride": 8, "in_chans": 1}, "resnet50(in_chans=1,output_stride=8)"),
        ({"a": [True, None, 0.5]}, "resnet50(a=[True,None,0.5])"),
        ({"a": {"c": -1, "b": "x y"}}, "resnet50(a=dict(b='x y',c=-1))"),
        ({"path": "a:b"}, "resnet50(path='a\\x3ab')"),
    ],
)
def test_names_say_all_and_are_read_back(args: dict, name: str) -> None:
    assert arguments.named("resnet50", args) == name
    assert arguments.split(name) == ("resnet50", args)
    assert arguments.named(name, {}) == name and arguments.bare(f"timm:{name}") == "timm:resnet50"


def test_a_folder_with_brackets_is_no_argument() -> None:
    name = "my nets (old)/net.py:make"
    assert arguments.split(name) == (name, {})
    assert arguments.split(f"{name}(a=1)") == (name, {"a": 1})


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("resnet50(a=)", {}, "arguments are written NAME"),
        ("resnet50(a=open('x'))", {}, "arguments are written NAME"),
        ("resnet50(a=1)", {"a": 2}, "a is given in the model's name already"),
        ("resnet50", {"pretrained": True}, "pretrained cannot be set here"),
        ("resnet50", {"weights": "x"}, "weights cannot be set here"),
        ("resnet50", {"a": nn.ReLU}, "a is no number, text, list or mapping"),
        ("resnet50", {"in chans": 1}, "'in chans' is no name"),
    ],
)
def test_what_is_no_argument(name: str, args: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        arguments.named(name, args)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        (
            "timm:resnet18(output_strid=8)",
            "takes no argument 'output_strid'. Did you mean: out",
        ),
        ("timm:efficientnet_b0(in_chan=1)", "no argument 'in_chan'. Did you mean: in_chans"),
        ("torchvision:resnet18(width_per_grou=64)", "Did you mean: width_per_group"),
        ("net.py:stack(strid=1)", "net.py:stack takes no argument 'strid'. Did you mean: stride"),
        ("net.py:passes_on(strid=1)", "net.py:passes_on takes no argument 'strid'."),
    ],
)
def test_an_argument_that_is_not_taken(name: str, near: str, own: Path) -> None:
    with pytest.raises(UsageError) as error:
        backbones.build(name, meta=True)
    assert near in str(error.value) and "\n" not in str(error.value)


def test_errors_of_the_function_are_its_own(own: Path) -> None:
    with pytest.raises(RfbenchError, match=r"net.py, line 12: ValueError: no weights at hand"):
        backbones.build("net.py:fails(width=3)")


@pytest.mark.parametrize(
    ("name", "args", "shape"),
    [
        ("timm:resnet18", {"in_chans": 1, "output_stride": 8}, (64, 1, 7, 7)),
        ("torchvision:resnet18", {"num_classes": 7, "norm_layer": None}, (64, 3, 7, 7)),
        ("net.py:stack", {"width": 5}, (5, 3, 3, 3)),
    ],
)
def test_they_reach_the_function(name: str, args: dict, shape: tuple, own: Path) -> None:
    held = backbones.build(arguments.named(name, args), meta=True)
    assert next(held.module.parameters()).shape == shape
    assert held.name == arguments.named(name, args)


def test_the_receptive_field_is_of_the_network_with_its_arguments() -> None:
    plain = rf.theory(rf.record("timm:resnet18", 224))
    dense = rf.theory(rf.record("timm:resnet18", 224, model_args={"output_stride": 8}))
    assert plain["y"]["stride"] == 32 and dense["y"]["stride"] == 8
    assert rf.theory(rf.record("timm:resnet18(output_stride=8)", 224)) == dense
    gray = rf.record("timm:resnet18", 224, model_args={"in_chans": 1})
    assert rf.theory(gray) == plain
    with pytest.raises(UsageError, match="a module is what it is"):
        rf.record(nn.Conv2d(3, 3, 3), model_args={"a": 1})


@pytest.mark.parametrize(
    "options",
    [["--model-arg", "output_stride=8"], ["-o", "model_args.output_stride=8"]],
)
def test_on_the_command_line(options: list[str]) -> None:
    done = CliRunner().invoke(main, ["rf", "theory", "timm:resnet18", *options, "--json"])
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)
    assert record["model"] == "timm:resnet18(output_stride=8)" and record["y"]["stride"] == 8


def test_one_line_on_the_command_line() -> None:
    wrong = CliRunner().invoke(main, ["rf", "theory", "resnet18", "--model-arg", "wdth"])
    assert wrong.exit_code == 2 and "expected KEY=VALUE" in wrong.stderr
    args = ["rf", "theory", "resnet18", "--model-arg", "width_per_grop=64"]
    wrong = CliRunner().invoke(main, args)
    assert wrong.exit_code == 2 and "Did you mean: width_per_group" in wrong.stderr


def test_a_configuration_s_network() -> None:
    overrides = ["model=resnet18", "model_args={in_chans: 1, output_stride: 8}"]
    config = load(ClsConfig, None, overrides)
    assert config.network == "resnet18(in_chans=1,output_stride=8)"
    assert load(ClsConfig, None, ["model=resnet18", "model_args.a=x"]).network == "resnet18(a='x')"


def test_a_checkpoint_is_of_its_arguments(tmp_path: Path, own: Path) -> None:
    held = backbones.build("net.py:stack(name='x')")
    content = {
        "format": weight_files.FORMAT,
        "classes": ["a"],
        "model": held.name,
        "variant": "baseline",
        "state_dict": held.module.state_dict(),
    }
    torch.save(content, tmp_path / "a.pth")
    backbones.build("net.py:stack(name='x')", weights=str(tmp_path / "a.pth"))
    for other in ("net.py:stack", "net.py:stack(name='y')"):
        with pytest.raises(RfbenchError, match="would load but mean something else"):
            backbones.build(other, weights=str(tmp_path / "a.pth"))
