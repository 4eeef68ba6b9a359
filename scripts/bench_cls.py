"""`rfbench train-cls` side by side with timm's and torchvision's training scripts.

python scripts/bench_cls.py --timm CHECKOUT --vision CHECKOUT [--only loaders --rounds 5]
python scripts/bench_cls.py --device cuda --timm CHECKOUT --vision CHECKOUT --markdown FILE

The checkouts are of pytorch-image-models and of pytorch/vision; without them rfbench is timed
alone. All take turns, and results are ratios: of CPU seconds of one thread or, on a GPU, of seconds
between two events of its stream. There a call is of 30 updates of 256 images each, that differ
between updates and are the same for all, and end to end of 20,000 JPEGs; a part takes a few
minutes. Quoted in README and docs/measurements.md.
"""

import argparse
import functools
import itertools
import os
import random
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import peers_cls as peers
import timing
import torch
from photos import write_tree
from PIL import Image
from timing import Section, in_turns
from torch import Tensor, nn
from torchvision import transforms

from rfbench import machine
from rfbench.classify import network, run, setup, train
from rfbench.classify.images import Images
from rfbench.config import load
from rfbench.data import augment, decode
from rfbench.data.loader import Batch
from rfbench.models import backbones
from rfbench.models.variant import PAPER
from rfbench.runs import processes, signals
from rfbench.runs.state import Start
from rfbench.schemas.cls import ClsConfig
from rfbench.training import device, epochs

Calls = dict[str, Callable[[], object]]
OURS, TIMM, VISION = "rfbench", "timm", "torchvision"
DIFFERENT = 8  # batches in memory, which the updates of a call go through in turn

# what is left to the device: images, updates a call, batch sizes of the step and end to end
CPU = {"images": 1000, "updates": 2, "batch": 8, "end_batch": 20, "workers": 0, "rounds": 7}
GPU = {"images": 20_000, "updates": 30, "batch": 256, "end_batch": 256, "rounds": 5}
SMALL_MODEL = "torchvision:shufflenet_v2_x0_5"  # where the loader matters even on a CPU


# --- rfbench's run -------------------------------------------------------------------------------


def prepared(root: Path, model: str, size: int, batch: int, given: argparse.Namespace) -> run.Run:
    """A run of the recipe on the images of `root`, before its first step."""
    overrides = [
        f"data.root={root}",
        f"model={model}",
        f"data.image_size={size}",
        f"data.workers={given.workers}",
        f"batch_size={batch}",
        f"max_batch_per_gpu={batch}",
        f"device={given.device.type}",
        "schedule.warmup_epochs=0",
        "optim.lr=0.01",
        "checkpoint.every=0",
        "log_every=10",
    ]
    config = load(ClsConfig, None, overrides)
    group = processes.Processes(given.device)
    made = setup.setup(config, Start(root, group, signals.Signals(), None, None))
    made.bar.close()
    made.bar.disable = True
    return made


def our_epoch(made: run.Run) -> None:
    """One epoch of training, without checkpoint and validation."""
    made.epoch = made.step // made.per_epoch
    epochs.train_epoch(made, train.KIND)


class InTurn:
    """`count` batches in memory, each `DIFFERENT` steps the same."""

    def __init__(self, batches: list[Any], count: int) -> None:
        self.batches, self.count = batches, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(itertools.cycle(self.batches), self.count)


class Given:
    """Replaces the images of a run by batches in memory."""

    def __init__(self, data: Any, batches: list[Batch]) -> None:
        self.set, self.on_device, self.batches = data.set, data.on_device, batches

    def train(self, first: int, last: int, *_: object) -> Iterator[Batch]:
        """The batches in turn, one a step."""
        return iter(InTurn(self.batches, last - first))


def peer_network(made: run.Run) -> nn.Module:
    """The same network with other weights, for a peer."""
    classes = len(made.data.set.classes)
    return network.build(made.config, classes).module


# --- what is measured ----------------------------------------------------------------------------


def loaders(root: Path, given: argparse.Namespace, section: Section) -> None:
    """Random resized crop, flip, collation, normalization; with start and end of workers."""
    batch, workers, size = 50, max(1, given.workers), given.size
    batch = min(batch, given.images)
    made = prepared(root, SMALL_MODEL, size, batch, given)
    made.data.close()

    def ours(normalised: bool) -> None:
        data = Images(made.config, made.group)
        data.workers = workers
        for loaded in data.train(0, made.per_epoch, made.split):
            images = data.on_device(loaded)[0] if normalised else loaded.images
            images.to(given.device)
        data.close()

    def torchvisions() -> None:
        for images, _ in peers.torchvision_loader(
            given.vision, root / "train", size, batch, workers
        ):
            images.to(given.device)

    def timms() -> None:
        loader = peers.timm_loader(root / "train", size, batch, workers, given.device)
        for images, _ in loader:
            images.to(given.device)
        peers.timm_close(loader)

    calls: Calls = {"bytes": functools.partial(ours, False), OURS: functools.partial(ours, True)}
    calls |= {VISION: torchvisions} if given.vision else {}
    calls |= {TIMM: timms} if given.timm else {}
    number = sum(path.stat().st_size for path in (root / "train").rglob("*.JPEG"))
    kilobytes = number / 1000 / given.images
    section.add(
        f"JPEGs of 500x375 px, {kilobytes:.0f} KB, {workers} processes (bytes: rfbench's batches "
        "before they are normalised, which on a GPU the GPU does)."
    )
    times = in_turns(calls, given.device, given.rounds)
    base = VISION if given.vision else OURS
    section.table(times, made.per_epoch * batch, base, "loading")
    section.add(
        f"Mean difference to PIL's validation images: {pixel_difference(root, size):.4f} of 255."
    )


def pixel_difference(root: Path, size: int) -> float:
    """Mean absolute difference to torchvision's PIL path: resize to 8 / 7 of `size`, its centre."""
    ours, differences = augment.evaluation(size, 0.875), []
    reference = transforms.Compose([transforms.Resize(ours.shorter), transforms.CenterCrop(size)])
    for path in sorted((root / "train").rglob("*.JPEG"))[:50]:
        pixels = np.asarray(reference(Image.open(path).convert("RGB"))).astype(np.int16)
        mine = ours(decode.decode(path.read_bytes(), str(path)), random.Random(0))
        differences.append(np.abs(mine.numpy().astype(np.int16) - pixels).mean())
    return float(np.mean(differences))


def steps(root: Path, given: argparse.Namespace, section: Section) -> None:
    """A network on batches that are in memory: forward, backward, optimizer, meters."""
    batch, count = given.batch, given.updates
    made = prepared(root, given.model, given.size, batch, given)
    batches = list(made.data.train(0, min(DIFFERENT, count), made.split))
    made.data.close()
    made.data = Given(made.data, batches)
    made.per_epoch = count
    theirs = [made.data.on_device(each) for each in batches]
    calls: Calls = {OURS: functools.partial(our_epoch, made)}
    calls |= peer_epochs(made, given, lambda _: InTurn(theirs, count))
    section.add(
        f"{given.model}, {given.size} px, batches of {batch} in memory, {len(batches)} different "
        f"ones, {count} updates a call; rfbench in {device.precision(made.config, given.device)}."
    )
    times = in_turns(calls, given.device, given.rounds)
    section.table(times, count * batch, OURS, "training step")


def end_to_end(root: Path, given: argparse.Namespace, section: Section) -> None:
    """From JPEGs to steps: on a CPU of a small network, where the loader matters."""
    batch = given.end_batch
    model = given.model if given.device.type == "cuda" else SMALL_MODEL
    made = prepared(root, model, given.size, batch, given)
    folder, size, workers = root / "train", given.size, given.workers
    loading: dict[str, Callable[[], Iterable]] = {
        VISION: lambda: peers.torchvision_loader(given.vision, folder, size, batch, workers),
        TIMM: lambda: peers.timm_loader(folder, size, batch, workers, given.device),
    }
    calls: Calls = {OURS: functools.partial(our_epoch, made)}
    calls |= peer_epochs(made, given, lambda name: loading[name]())
    section.add(f"{model} on JPEGs, {size} px, batches of {batch}, {workers} loading processes.")
    times = in_turns(calls, given.device, given.rounds)
    section.table(times, made.per_epoch * batch, OURS, "JPEGs to updates")
    made.data.close()


def peer_epochs(
    made: run.Run, given: argparse.Namespace, batches: Callable[[str], Iterable]
) -> Calls:
    """An epoch of every peer whose checkout was named, with networks like that of `made`."""
    calls: Calls = {}
    if given.vision:
        model = peer_network(made).to(memory_format=torch.channels_last)
        epoch = peers.torchvision_epoch(given.vision, model, given.device)
        calls[VISION] = functools.partial(epoch, batches(VISION))
    if given.timm:
        epoch = peers.timm_epoch(given.timm, peer_network(made), given.device)
        calls[TIMM] = functools.partial(epoch, batches(TIMM))
    return calls


def costs(root: Path, given: argparse.Namespace, section: Section) -> None:
    """Forward and backward of a network's variants, and what they keep for the backward pass."""
    shape = (given.batch, 3, given.size, given.size)
    inputs = [
        torch.randn(shape, device=given.device).to(memory_format=torch.channels_last)
        for _ in range(min(DIFFERENT, given.updates))
    ]
    calls: Calls = {}
    kept: dict[str, float] = {}
    for variant in given.variants:
        net = backbones.build(given.model, variant).module.train().to(given.device)
        net = net.to(memory_format=torch.channels_last)
        calls[variant] = functools.partial(passes, net, inputs, given.updates)
        kept[variant] = saved_bytes(net, inputs[0]) / given.batch / 2**20
    section.add(f"{given.model}, {given.size} px, batch {given.batch}: forward and backward.")
    times = in_turns(calls, given.device, given.rounds)
    base = given.variants[0]
    section.table(times, given.batch * given.updates, base, "variant")
    rows = [f"| {name} | {size:.1f} | {size / kept[base]:.3f} |" for name, size in kept.items()]
    section.add("| variant | MiB an image kept for backward | ratio |", "|---|---|---|", *rows)


def passes(net: nn.Module, inputs: list[Tensor], count: int) -> None:
    """Forward and backward passes."""
    for images in InTurn(inputs, count):
        scores(net, images).sum().backward()
        net.zero_grad(set_to_none=True)


def scores(net: nn.Module, images: Tensor) -> Tensor:
    """Of a forward pass, in bf16 on a GPU."""
    bf16 = images.device.type == "cuda"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        return net(images).float()


def saved_bytes(net: nn.Module, images: Tensor) -> int:
    """Memory that autograd keeps between forward and backward, without the parameters."""
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    sizes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores(net, images).sum().backward()
    net.zero_grad(set_to_none=True)
    return sum(sizes.values())


# values of --only
PARTS: dict[str, Callable[[Path, argparse.Namespace, Section], None]] = {
    "loaders": loaders,
    "steps": steps,
    "end-to-end": end_to_end,
    "costs": costs,
}


def parsed() -> argparse.Namespace:
    """The options, with the device's defaults for those that are not given."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--timm", type=Path, help="checkout of pytorch-image-models")
    parser.add_argument("--vision", type=Path, help="checkout of pytorch/vision")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--device", type=timing.device, default=torch.device("cpu"))
    parser.add_argument("--model", default="torchvision:resnet50", help="of steps and costs")
    parser.add_argument("--size", type=int, default=224, help="of the images in px")
    parser.add_argument("--variants", nargs="+", default=list(PAPER), help="of costs")
    parser.add_argument("--images", type=int, help="JPEGs to load")
    parser.add_argument("--rounds", type=int, help="measured rounds")
    parser.add_argument("--updates", type=int, help="a call, in memory")
    parser.add_argument("--batch", type=int, help="batch size in memory")
    parser.add_argument("--end-batch", type=int, help="batch size end to end")
    parser.add_argument("--workers", type=int, help="loading processes")
    parser.add_argument("--markdown", type=Path, help="a file that the section is appended to")
    given = parser.parse_args()
    on_gpu = given.device.type == "cuda"
    defaults = {**GPU, "workers": max(1, machine.cores() - 1)} if on_gpu else CPU
    for name, value in defaults.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    return given


def main() -> None:
    """Run the benchmarks that --only names."""
    given = parsed()
    if given.device.type == "cpu":
        torch.set_num_threads(1)
    command = shlex.join(["python", "scripts/bench_cls.py", *sys.argv[1:]])
    title = "Training a classifier, side by side with timm and torchvision"
    with tempfile.TemporaryDirectory() as name:
        write_tree(Path(name), given.images)
        section = Section(title, command, given.device)
        for part in given.only:
            PARTS[part](Path(name), given, section)
        section.write(given.markdown)


if __name__ == "__main__":
    main()
