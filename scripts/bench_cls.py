"""`rfbench train-cls` side by side with timm's and torchvision's training scripts.

python scripts/bench_cls.py --timm CHECKOUT --vision CHECKOUT [--only loaders --rounds 5]

The checkouts are of pytorch-image-models and of pytorch/vision; without them rfbench is timed
alone. All take turns, and results are ratios: of CPU seconds of one thread or, on a GPU (--device
cuda --workers 12), of wall-clock seconds. Quoted in README and docs/measurements.md.
"""

import argparse
import functools
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import peers_cls as peers
import torch
from photos import write_tree
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

from rfbench.classify import network, run, setup, train
from rfbench.classify.images import Images
from rfbench.config import load
from rfbench.data import augment, decode
from rfbench.data.loader import Batch
from rfbench.models import backbones, variants
from rfbench.runs import processes, signals
from rfbench.runs.state import Start
from rfbench.schemas.cls import ClsConfig
from rfbench.training import epochs

Calls = dict[str, Callable[[], object]]
OURS, TIMM, VISION = "rfbench", "timm", "torchvision"


# --- timing --------------------------------------------------------------------------------------


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """CPU seconds of this process and its ended children, or seconds until the GPU is done."""
    if device.type == "cpu":
        begun = sum(os.times()[:4])
        call()
        return sum(os.times()[:4]) - begun
    torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def report(title: str, calls: Calls, given: argparse.Namespace, images: int, base: str) -> None:
    """Call everything in turns, once unmeasured; print medians, and ratios of speed to `base`."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(given.rounds + 1):
        for name, call in calls.items():
            measured = seconds(call, given.device)
            if number:
                times[name].append(1000 * measured / images)
    print(f"\n{title}")
    unit = "CPU ms" if given.device.type == "cpu" else "ms"
    for name, values in times.items():
        ratios = [b / v for b, v in zip(times[base], values, strict=True)]
        low, middle, high = np.quantile(ratios, [0, 0.5, 1])
        print(
            f"  {name:12} {np.median(values):8.2f} {unit} an image   {middle:.3f} times as fast "
            f"as {base} ({low:.3f} to {high:.3f})"
        )


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


class Given:
    """Replaces the images of a run by batches in memory."""

    def __init__(self, data: Any, batches: list[Batch]) -> None:
        self.set, self.on_device, self.batches = data.set, data.on_device, batches

    def train(self, *_: object) -> Iterator[Batch]:
        """The same batches, every epoch."""
        return iter(self.batches)


def peer_network(made: run.Run) -> nn.Module:
    """The same network with other weights, for a peer."""
    classes = len(made.data.set.classes)
    return network.build(made.config, classes).module


# --- what is measured ----------------------------------------------------------------------------


def loaders(root: Path, given: argparse.Namespace) -> None:
    """Random resized crop to 224, flip, collation, normalization; with start and end of workers."""
    batch, workers = 50, max(1, given.workers)
    made = prepared(root, "torchvision:shufflenet_v2_x0_5", 224, batch, given)
    made.data.close()

    def ours(normalised: bool) -> None:
        data = Images(made.config, made.group)
        data.workers = workers
        for loaded in data.train(0, made.per_epoch, made.split):
            images = data.on_device(loaded)[0] if normalised else loaded.images
            images.to(given.device)
        data.close()

    def torchvisions() -> None:
        for images, _ in peers.torchvision_loader(given.vision, root / "train", 224, 50, workers):
            images.to(given.device)

    def timms() -> None:
        loader = peers.timm_loader(root / "train", 224, 50, workers, given.device)
        for images, _ in loader:
            images.to(given.device)
        peers.timm_close(loader)

    calls: Calls = {"bytes": functools.partial(ours, False), OURS: functools.partial(ours, True)}
    calls |= {VISION: torchvisions} if given.vision else {}
    calls |= {TIMM: timms} if given.timm else {}
    number = sum(path.stat().st_size for path in (root / "train").rglob("*.JPEG"))
    kilobytes = number / 1000 / given.pictures
    title = (
        f"Loading JPEGs of 500x375 px, {kilobytes:.0f} KB, {workers} processes (bytes: rfbench's"
    )
    title += " batches before they are normalised, which on a GPU the GPU does)"
    base = VISION if given.vision else OURS
    report(title, calls, given, made.per_epoch * batch, base)
    print(f"  mean difference to PIL's validation images: {pixel_difference(root):.4f} of 255")


def pixel_difference(root: Path) -> float:
    """Mean absolute difference to torchvision's PIL path: resize to 256, centre crop of 224."""
    reference = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    ours, differences = augment.evaluation(224, 0.875), []
    for path in sorted((root / "train").rglob("*.JPEG"))[:50]:
        pixels = np.asarray(reference(Image.open(path).convert("RGB"))).astype(np.int16)
        mine = ours(decode.decode(path.read_bytes(), str(path)), random.Random(0))
        differences.append(np.abs(mine.numpy().astype(np.int16) - pixels).mean())
    return float(np.mean(differences))


def steps(root: Path, given: argparse.Namespace) -> None:
    """ResNet-50 on batches that are in memory: forward, backward, optimizer, meters."""
    batch, count = given.batch, 2
    made = prepared(root, "torchvision:resnet50", 224, batch, given)
    batches = list(made.data.train(0, count, made.split))
    made.data.close()
    made.data = Given(made.data, batches)  # type: ignore[assignment]
    made.per_epoch = count
    calls: Calls = {OURS: functools.partial(our_epoch, made)}
    theirs = [made.data.on_device(each) for each in batches]
    calls |= peer_epochs(made, given, lambda _: theirs)
    report(
        f"ResNet-50, 224 px, batch {batch}: the training step", calls, given, count * batch, OURS
    )


def end_to_end(root: Path, given: argparse.Namespace) -> None:
    """From JPEGs to steps of a small network, where the loader matters."""
    batch = 20
    made = prepared(root, "torchvision:shufflenet_v2_x0_5", 224, batch, given)
    loading: dict[str, Callable[[], Iterable]] = {
        VISION: lambda: peers.torchvision_loader(
            given.vision, root / "train", 224, batch, given.workers
        ),
        TIMM: lambda: peers.timm_loader(root / "train", 224, batch, given.workers, given.device),
    }
    calls: Calls = {OURS: functools.partial(our_epoch, made)}
    calls |= peer_epochs(made, given, lambda name: loading[name]())
    images = made.per_epoch * batch
    report(f"ShuffleNet-V2 x0.5 on JPEGs, 224 px, batch {batch}", calls, given, images, OURS)
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


def costs(root: Path, given: argparse.Namespace) -> None:
    """Forward and backward of ResNet-50's variants, and what they keep for the backward pass."""
    images = torch.randn(given.batch, 3, 224, 224, device=given.device)
    images = images.to(memory_format=torch.channels_last)
    calls: Calls = {}
    kept: dict[str, float] = {}
    for variant in variants.PAPER:
        net = backbones.build("resnet50", variant).module.train().to(given.device)
        net = net.to(memory_format=torch.channels_last)
        calls[variant] = functools.partial(forward_backward, net, images)
        kept[variant] = saved_bytes(net, images)
    report(f"ResNet-50's variants, batch {given.batch}", calls, given, given.batch, "baseline")
    for variant, size in kept.items():
        megabytes, ratio = size / given.batch / 2**20, size / kept["baseline"]
        print(f"  {variant:12} {megabytes:6.1f} MiB an image kept for backward ({ratio:.3f})")


def forward_backward(net: nn.Module, images: Tensor) -> None:
    """One pass, bf16 on a GPU."""
    bf16 = images.device.type == "cuda"
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
        scores = net(images)
    scores.float().sum().backward()


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
        net(images).sum().backward()
    return sum(sizes.values())


# values of --only
PARTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "loaders": loaders,
    "steps": steps,
    "end-to-end": end_to_end,
    "costs": costs,
}


def main() -> None:
    """Run the benchmarks that --only names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timm", type=Path, help="checkout of pytorch-image-models")
    parser.add_argument("--vision", type=Path, help="checkout of pytorch/vision")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--pictures", type=int, default=1000, help="JPEGs to load")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds")
    parser.add_argument("--batch", type=int, default=8, help="batch size of ResNet-50")
    parser.add_argument("--workers", type=int, default=0, help="DataLoader workers")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    given = parser.parse_args()
    if given.device.type == "cpu":
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        write_tree(Path(name), given.pictures)
        for part in given.only:
            PARTS[part](Path(name), given)


if __name__ == "__main__":
    main()
