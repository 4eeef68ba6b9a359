"""Names to networks, own code, networks without memory, and weights."""

import argparse
import gzip
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.layers import BlurPool2d
from torch import nn

from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones, variants, weight_files

OWN = """
from torch import nn
import torch
from neighbour import WIDTH

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, WIDTH, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(3, WIDTH, 1, stride=2)
        self.register_buffer("kernel", torch.full((WIDTH, 1, 3, 3), 1 / 9))
        self.register_buffer("copied", torch.empty(WIDTH, 1, 3, 3).copy_(self.kernel))
        self.register_buffer("offset", torch.zeros(1, WIDTH, 1, 1))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = (self.conv(x) + self.shortcut(x) + self.offset) * self.scale
        return nn.functional.conv2d(x, self.kernel, groups=len(self.kernel))

def network():
    return Net().train()

def broken():
    raise ValueError("no such\\n  width")

def leaves():
    raise SystemExit(3)

def number():
    return 3

not_a_function = nn.Identity
CONSTANT = 5
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("models", "neighbour", "package", "package.inner"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "neighbour.py").write_text("WIDTH = 4\n")
    (tmp_path / "models.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- names --------------------------------------------------------------------------------------


def test_names() -> None:
    classifiers = backbones.names("torchvision")
    assert len(classifiers) == 80 and "resnet50" in classifiers
    assert not any("fcn" in n or "rcnn" in n or "quantized" in n for n in classifiers)
    assert "tf_efficientnet_b0" in backbones.names("timm")
    with pytest.raises(UsageError, match="unknown library 'tim'. Did you mean: timm"):
        backbones.names("tim")


@pytest.mark.parametrize(
    ("name", "canonical", "size"),
    [
        ("resnet18", "torchvision:resnet18", 224),
        ("timm:resnet18", "timm:resnet18", 224),
        ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k", 224),
        ("resnet10t", "timm:resnet10t", 176),
        ("torchvision:inception_v3", "torchvision:inception_v3", 299),
        ("efficientnet_b1", "torchvision:efficientnet_b1", 240),
        ("vit_b_16", "torchvision:vit_b_16", 224),  # 384 is of weights fine-tuned at 384
        ("regnet_y_400mf", "torchvision:regnet_y_400mf", 224),
    ],
)
def test_bare_names_are_torchvisions_first(name: str, canonical: str, size: int) -> None:
    backbone = backbones.build(name, meta=True)
    assert (backbone.name, backbone.input_size) == (canonical, (size, size))
    assert (backbone.variant, backbone.replaced) == ("baseline", [])
    library = canonical.partition(":")[0]
    assert type(backbone.module).__module__.startswith(f"{library}.models")
    assert not backbone.module.training
    with torch.no_grad():
        backbone.module(torch.empty(1, 3, size, size, device="meta"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("restnet50", "unknown model 'restnet50'. Did you mean: resnet50, resnet50t, resnet50s?"),
        ("torchvision:restnet50", "unknown model 'torchvision:restnet50'. Did you mean: resnet50,"),
        ("torchvision:resnet10t", "unknown model 'torchvision:resnet10t'. Did you mean: resnet101"),
        ("timm:convnext_tinny", "Did you mean: convnext_tiny"),
        ("zzzzzzzz", "unknown model 'zzzzzzzz'."),
        ("", "unknown model ''."),
        (
            "resnet18.a1_in1",
            "timm's resnet18 has no weights 'a1_in1'. Did you mean: resnet18.a1_in1k",
        ),
        ("tim:resnet50", "no module 'tim'. A model is NAME, FILE.py:function, package.module:func"),
        ("models.py", "which function of models.py builds the model? Write models.py:FUNCTION."),
        ("models.py", "models.py:FUNCTION. It has: Net, network, broken, leaves, number."),
        ("nowhere.py", "no such file: nowhere.py"),
        ("nowhere/models.py:network", "no such file: nowhere/models.py"),
        ("models.py:netwrk", "models.py has no function 'netwrk'. Did you mean: network"),
        ("models.py:CONSTANT", "models.py has no function 'CONSTANT'."),
        ("models.py:number", "models.py:number() returns int, not a torch.nn.Module."),
        ("models:number", "models:number() returns int"),
        ("torch.nowhere:f", "no module 'torch.nowhere'."),
    ],
)
def test_names_that_are_none(own: Path, name: str, message: str) -> None:
    for meta in (True, False):
        with pytest.raises(UsageError) as error:
            backbones.build(name, meta=meta)
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_the_variant_is_applied_under_the_bare_name() -> None:
    backbone = backbones.build("resnet50", {"kernels": [1]}, meta=True)
    assert backbone.variant == "1x1"
    assert backbone.replaced == [f"layer{i}.0.downsample.0" for i in (2, 3, 4)]
    with pytest.raises(UsageError, match="replaces no convolution in densenet121 "):
        backbones.build("densenet121", "1x1+3x3", meta=True)
    with pytest.raises(UsageError, match="unknown variant '2x'"):
        backbones.build("restnet50", "2x")


def test_levels_are_found_at_the_models_own_size() -> None:
    backbone = backbones.build("timm:levit_128s", "alt:3x3", meta=True)
    assert [backbone.module.get_submodule(n).rf_pool.level for n in backbone.replaced] == [
        0,
        1,
        2,
        3,
    ]


def test_real_weights_are_initialised() -> None:
    backbone = backbones.build("timm:resnet18", "blur:1x1+3x3")
    assert not backbone.module.training
    assert backbone.module(torch.randn(1, 3, 64, 64)).isfinite().all()


# --- own code -----------------------------------------------------------------------------------


@pytest.mark.parametrize("meta", [False, True])
def test_lazy_layers_are_named(meta: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shapes of their weights are those of an input that nobody has named."""
    monkeypatch.chdir(tmp_path)
    Path("lazy.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def norm(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyBatchNorm2d())\n"
        "def layer(): return nn.LazyConv2d(4, 3)\n"
        "def ran():\n"
        "    net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())\n"
        "    net(torch.zeros(1, 3, 8, 8))\n"
        "    return net\n"
    )
    for name, told in (
        (
            "norm",
            r"norm\(\) returns a network whose 1 is lazy .* use BatchNorm2d in place of",
        ),
        (
            "layer",
            "network whose only layer is lazy and has no weights yet. In layer, run",
        ),
    ):
        with pytest.raises(UsageError, match=told):
            backbones.build(f"lazy.py:{name}", meta=meta)
    first = backbones.build("lazy.py:ran", meta=meta).module[0]  # type: ignore[index]
    assert first.weight.shape == (4, 3, 3, 3) and first.weight.is_meta == meta


@pytest.mark.parametrize("name", ["models.py:network", "models:network", "models.py:Net"])
@pytest.mark.parametrize("meta", [True, False])
def test_own_networks(own: Path, name: str, meta: bool) -> None:
    backbone = backbones.build(name, "1x1+3x3", meta=meta)
    assert (backbone.name, backbone.input_size) == (name, (224, 224))
    assert backbone.replaced == ["conv", "shortcut"] and not backbone.module.training
    x = torch.randn(1, 3, 9, 8, device="meta" if meta else "cpu")
    runs = variants.meta_copy(backbone.module) if meta else backbone.module
    assert runs(x).shape == (1, 4, 3, 2)
    for kernel in (backbone.module.kernel, backbone.module.copied):  # fixed kernels stay real
        torch.testing.assert_close(kernel, torch.full((4, 1, 3, 3), 1 / 9))
    assert not backbone.module.offset.any()  # and so does what may be a mask
    assert all(p.is_meta is meta for p in backbone.module.parameters())


def test_a_package_of_ones_own(own: Path) -> None:
    (own / "package").mkdir()
    (own / "package" / "inner.py").write_text("from torchvision.models import resnet18 as net\n")
    assert len(backbones.build("package.inner:net", "1x1", meta=True).replaced) == 3
    with pytest.raises(UsageError, match=r"no module 'package\.other'"):
        backbones.build("package.other:net")
    (own / "package" / "inner2.py").write_text("import package_that_is_missing\n")
    with pytest.raises(RfbenchError, match="No module named 'package_that_is_missing'") as error:
        backbones.build("package.inner2:net")
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("broken", OWN, "models.py, line 24: ValueError: no such width"),
        ("leaves", OWN, "models.py, line 27: SystemExit: 3"),
        ("network", "import nothing_there\n", "models.py, line 1: ModuleNotFoundError: No module"),
        ("network", "x = 1\ndef network(:\n", "models.py, line 2: SyntaxError: "),
        ("network", "def network(width): pass\n", "models.py: TypeError: network() missing 1 req"),
        ("network", "\n1 / 0\n", "models.py, line 2: ZeroDivisionError: division by zero"),
    ],
)
def test_errors_in_own_code_are_one_line(own: Path, name: str, text: str, message: str) -> None:
    (own / "models.py").write_text(text)
    for meta in (True, False):
        with pytest.raises(RfbenchError) as error:
            backbones.build(f"models.py:{name}", meta=meta)
        assert str(error.value).startswith(message) and "\n" not in str(error.value)
        assert error.value.exit_code == 1


def test_a_file_runs_once_and_again_when_it_changes(own: Path) -> None:
    path = own / "models.py"
    first = type(backbones.build(f"{path}:network", meta=True).module)
    assert type(backbones.build("models.py:network", "1x1", meta=True).module) is first
    path.write_text(OWN.replace("Net", "Other"))
    assert type(backbones.build("models.py:network", meta=True).module).__name__ == "Other"


def test_a_file_may_have_the_name_of_a_library(own: Path) -> None:
    (own / "torch.py").write_text("from torchvision.models import resnet18\n")
    assert len(backbones.build("torch.py:resnet18", "1x1", meta=True).replaced) == 3
    assert sys.modules["torch"] is torch


# --- without memory -----------------------------------------------------------------------------

SAMPLE = (
    "densenetblur121d efficientnet_b2_pruned vit_small_r26_s32_224 swin_tiny_patch4_window7_224 "
    "convnext_atto resnetblur18 mobilenetv4_conv_aa_large nf_resnet26 csatv2 ghostnet_050"
).split()


@pytest.mark.parametrize("name", SAMPLE)
def test_timm_networks_without_memory(name: str) -> None:
    module = backbones.build(f"timm:{name}", meta=True).module
    assert all(p.is_meta for p in module.parameters())
    assert {k for k, b in module.named_buffers() if not b.is_meta} == {
        f"{path}.filt" for path, m in module.named_modules() if isinstance(m, BlurPool2d)
    }
    # not every version of timm can build all of them on meta
    assert list(module.state_dict()) == list(timm.create_model(name).state_dict())


def test_blur_kernels_of_timm_keep_their_values() -> None:
    row = torch.tensor([1.0, 2.0, 1.0]) / 4
    module = backbones.build("timm:resnetblur18", meta=True).module
    pools = [m for m in module.modules() if isinstance(m, BlurPool2d)]
    assert len(pools) == 4
    for pool in pools:
        torch.testing.assert_close(pool.filt, torch.outer(row, row).expand_as(pool.filt))
    with torch.no_grad():
        assert module(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize(
    "name", ["regnet_y_400mf", "vgg16", "googlenet", "swin_t", "maxvit_t", "vit_h_14"]
)
def test_torchvision_networks_without_memory(name: str) -> None:
    module = backbones.build(f"torchvision:{name}", meta=True).module
    assert all(t.is_meta for t in [*module.parameters(), *module.buffers()])


def test_the_baseline_builds_what_the_library_builds() -> None:
    torch.manual_seed(0)
    ours = backbones.build("torchvision:resnet18").module.state_dict()
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs) and list(ours) == list(theirs)


# --- weights ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return backbones.build("torchvision:resnet18").module.state_dict()


def saved(path: Path, content: object) -> str:
    torch.save(content, path / "last.pth")
    return str(path / "last.pth")


def checkpoint(state: dict, model: str, variant: str, **more: object) -> dict:
    return {
        "format": weight_files.FORMAT,
        "classes": ["a"],
        "model": model,
        "variant": variant,
        "state_dict": state,
        **more,
    }


FORMS = {
    "ours": lambda s: checkpoint(s, "torchvision:resnet18", "1x1", step=3, optimizer={"a": [1]}),
    "plain": lambda s: s,
    "timm": lambda s: {"epoch": 3, "arch": "resnet18", "state_dict": s},
    "torchvision": lambda s: {"model": s, "epoch": 3, "args": {"lr": 0.1}},
    "ddp": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    "old": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("meta", [True, False])
def test_weights_of_every_form(tmp_path: Path, state: dict, form: str, meta: bool) -> None:
    content = dict(FORMS[form](state))  # without state_dict()'s _metadata, as others save it
    backbone = backbones.build("resnet18", "1x1", saved(tmp_path, content), meta)
    loaded = backbone.module.state_dict()
    assert all(loaded[k].is_meta if meta else torch.equal(loaded[k], state[k]) for k in state)


@pytest.mark.parametrize("meta", [True, False])
def test_safetensors(tmp_path: Path, state: dict, meta: bool) -> None:
    path = str(tmp_path / "model.safetensors")
    save_file(state, path)
    backbone = backbones.build("resnet18", "blur:1x1+3x3", path, meta)
    assert meta or torch.equal(backbone.module.fc.weight, state["fc.weight"])


@pytest.mark.parametrize("meta", [True, False])
def test_weights_into_networks_with_fixed_kernels(tmp_path: Path, meta: bool, own: Path) -> None:
    weights = backbones.build("models.py:network").module.state_dict()
    backbone = backbones.build("models.py:network", "1x1", saved(tmp_path, weights), meta)
    torch.testing.assert_close(backbone.module.kernel, weights["kernel"])


@pytest.mark.parametrize(
    ("model", "variant", "held", "run"),
    [
        ("torchvision:resnet18", "baseline", "resnet18 / baseline", "resnet18 / 1x1"),
        ("torchvision:resnet34", "1x1", "resnet34 / 1x1", "resnet18 / 1x1"),
        ("timm:resnet18", "1x1", "timm:resnet18 / 1x1", "torchvision:resnet18 / 1x1"),
        ("models.py:resnet18", "1x1", "models.py:resnet18 / 1x1", "torchvision:resnet18 / 1x1"),
    ],
)
def test_weights_of_something_else(
    tmp_path: Path, state: dict, model: str, variant: str, held: str, run: str
) -> None:
    path = saved(tmp_path, checkpoint(state, model, variant))
    for meta in (True, False):
        with pytest.raises(RfbenchError) as error:
            backbones.build("resnet18", "1x1", path, meta)
        assert error.value.exit_code == 1
        assert str(error.value) == (
            f"{path} holds {held}; this run is {run}. "
            f"The weights would load but mean something else."
        )


def test_a_tag_of_timm_and_the_folder_of_a_file_are_no_difference(own: Path) -> None:
    timms = backbones.build("timm:resnet10t").module.state_dict()
    path = saved(own, checkpoint(timms, "timm:resnet10t.c3_in1k", "baseline"))
    backbones.build("timm:resnet10t", weights=path, meta=True)
    owns = backbones.build("models.py:network").module.state_dict()
    path = saved(own, checkpoint(owns, "elsewhere/models.py:network", "3x3"))
    backbones.build(f"{own}/models.py:network", "3x3", path)
    with pytest.raises(
        RfbenchError, match=r"models\.py:network / 3x3; this run is models\.py:Net "
    ):
        backbones.build("models.py:Net", "3x3", path)


@pytest.mark.parametrize("meta", [True, False])
def test_weights_that_do_not_fit(tmp_path: Path, state: dict, meta: bool) -> None:
    other = dict(state)
    other["fc.weight"] = torch.zeros(10, 512)
    for key in ("bn1.weight", "bn1.bias", "layer1.0.conv1.weight", "layer1.0.conv2.weight"):
        del other[key]
    other["head.weight"] = torch.zeros(1)
    path = saved(tmp_path, other)
    with pytest.raises(RfbenchError) as error:
        backbones.build("resnet18", weights=path, meta=meta)
    assert str(error.value) == (
        f"{path} does not fit torchvision:resnet18: "
        "4 missing (bn1.weight, bn1.bias, layer1.0.conv1.weight, ...), 1 unexpected (head.weight), "
        "1 of another shape (fc.weight: [10, 512] for [1000, 512])."
    )


def test_checkpoints_of_other_scripts(tmp_path: Path) -> None:
    """Those of timm and of torchvision's references keep their command line beside the weights."""
    state = backbones.build("resnet18").module.state_dict()
    args = argparse.Namespace(lr=0.1, model="resnet18", opt_betas=None)
    for content in (
        {"epoch": 3, "arch": "resnet18", "state_dict": state, "args": args, "version": 2},
        {"model": state, "optimizer": {}, "epoch": 3, "args": args},
    ):
        path = str(tmp_path / "checkpoint.pth.tar")
        torch.save(content, path)
        found = backbones.build("resnet18", weights=path).module.state_dict()
        assert all(torch.equal(found[key], value) for key, value in state.items())


def test_files_of_safetensors_by_their_names(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(backbones.build("resnet18").module.state_dict(), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.pth").write_bytes(data)
    (tmp_path / "cut.safetensors").write_bytes(data[:-100])
    (tmp_path / "long.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + data[8:])
    for name, told in (
        ("a.pth", "looks like a file of safetensors: call it NAME.safetensors"),
        # the reason is the library's, by its version
        ("cut.safetensors", "or is damaged .(incomplete metadata|MetadataIncomplete)"),
        ("long.safetensors", "or is damaged .(header too large|HeaderTooLarge)"),
    ):
        with pytest.raises(RfbenchError, match=told):
            backbones.build("resnet18", weights=str(tmp_path / name), meta=True)


def test_programs_are_not_run(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "a.pt")
    with pytest.raises(RfbenchError, match="holds a TorchScript program, which is not run"):
        backbones.build("resnet18", weights=str(tmp_path / "a.pt"), meta=True)


class Bomb:
    """Would leave a file behind if it were unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("exploded"),))


QUANTISED = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS"),
        (b"just text\n", "is not a (checkpoint of torch|file of safetensors), or is damaged"),
        (b"<!DOCTYPE html>", "is a web page, or other text, not a checkpoint"),
        (b'{"weight_map": {}}', "is JSON .of a checkpoint in several files, an index., not a"),
        (gzip.compress(b"x", mtime=0), "is compressed by gzip .unpack it first., not a checkpoint"),
        (b"PK\x03\x04 a torn zip archive", "is damaged: it has no end|safetensors, or is damaged"),
        ({"state_dict": {}, "extra": Bomb()}, "nothing in it was run"),
        ({"fc.weight": QUANTISED}, "holds quantised weights: fc.weight"),
        ({"format": "rfbench-checkpoint/9", "variant": "3x3"}, "is of format rfbench-checkpoint/9"),
        (nn.Linear(2, 2), "it holds torch.nn.modules.linear.Linear .nothing in it was run"),
        (nn.Linear(2, 2), "Save a model's state_dict\\(\\) instead"),
        (torch.zeros(3), "holds no state dict"),
        ([1, 2], "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        ({3: torch.zeros(1)}, "holds no state dict"),
        ({}, "does not fit torchvision:resnet18: 122 missing"),
        ({"format": "rfbench-checkpoint/2"}, "is of format rfbench-checkpoint/2; this version"),
        ({"format": weight_files.FORMAT, "state_dict": {}}, "holds None / None; this run is"),
    ],
)
def test_files_that_are_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(content, bytes):
        Path("last.pth").write_bytes(content)
    else:
        torch.save(content, "last.pth")
    for name in ("last.pth", "last.safetensors") if isinstance(content, bytes) else ("last.pth",):
        Path("last.pth").rename(name)
        with pytest.raises(RfbenchError, match=message) as error:
            backbones.build("resnet18", weights=name, meta=True)
        assert error.value.exit_code == 1 and "\n" not in str(error.value)
        Path(name).rename("last.pth")
    assert not Path("exploded").exists()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file: nowhere/best\.pth"):
        backbones.build("resnet18", weights="nowhere/best.pth", meta=True)
    with pytest.raises(UsageError, match=r" is a folder\. Give a checkpoint in it, such as "):
        backbones.build("resnet18", weights=str(tmp_path), meta=True)


def test_nothing_heavy_is_imported_for_nothing() -> None:
    code = "import sys, rfbench.models.backbones; print({'timm', 'torchvision'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_apply_and_build_agree() -> None:
    built = backbones.build("resnet18", "1x1+3x3", meta=True)
    with torch.device("meta"):
        model = torchvision.models.resnet18(weights=None)
    assert built.replaced == variants.apply(model, "1x1+3x3")


@pytest.mark.parametrize("meta", [True, False])
def test_a_network_that_its_function_keeps_is_left_as_it_is(
    meta: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variant is one of the network itself, not of the variant before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept.py").write_text(
        "from torch import nn\n"
        "net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 1, 2))\n"
        "def build():\n    return net\n"
    )
    for variant, replaced in {"3x3": ["0"], "1x1": ["1"], "baseline": []}.items():
        held = backbones.build("kept.py:build", variant, meta=meta)
        assert held.replaced == replaced
        assert [n for n, m in held.module.named_children() if type(m) is not nn.Conv2d] == replaced
    assert not backbones.build("kept.py:build").module[0].weight.is_meta
