"""Speed of `rfbench train-cls`: its loader beside torchvision's reference path, its variants' cost.

python scripts/bench_cls.py [--pictures 200] [--rounds 5]

Everything is timed in turns, in CPU seconds of one thread: trust the ratios.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from rfbench import backbones, variants
from rfbench.data import augment
from rfbench.data.dataset import FileSplit
from rfbench.data.loader import Loader
from rfbench.data.order import TrainTasks

torch.set_num_threads(1)


def photo(rng: np.random.Generator, height: int, width: int) -> Image.Image:
    """A picture with the spectrum of a photo: noise whose amplitude falls as 1 / frequency."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    shape = (3, *fall.shape)
    spectrum = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) * fall
    spectrum[1:] = 0.8 * spectrum[:1] + 0.2 * spectrum[1:]  # channels go together
    values = np.fft.irfft2(spectrum, s=(height, width))
    values = 128 + 50 * values / values.std()
    return Image.fromarray(values.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def write_jpegs(folder: Path, count: int) -> list[str]:
    """JPEGs of ImageNet's usual size, about 100 KB each."""
    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(count)]
    for name in names:
        photo(rng, 375, 500).save(folder / name, quality=92)
    return names


def cpu(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return time.process_time() - begun


def interleaved(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median CPU seconds of each call, taken in turns after one round unmeasured."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            seconds = cpu(call)
            if number:
                found[name].append(seconds)
    return {name: float(np.median(values)) for name, values in found.items()}


def loaders(count: int, rounds: int) -> None:
    """CPU milliseconds a picture: random resized crop to 224, flip, collated, one process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = write_jpegs(folder, count)
        size = sum((folder / n).stat().st_size for n in names) / count
        reference = transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )
        split = FileSplit([name], [0] * count, names, [0] * count)
        loader = Loader(split, augment.ResizedCrop(224), train=True)
        batch = min(50, count)
        epochs = iter(range(1_000_000))

        def ours() -> None:
            epoch, updates = next(epochs), count // batch
            tasks = TrainTasks(count, batch, epoch * updates, (epoch + 1) * updates)
            for _ in loader.batches(tasks):
                pass

        def torchvisions() -> None:
            for start in range(0, count // batch * batch, batch):
                torch.stack(
                    [
                        reference(Image.open(folder / n).convert("RGB"))
                        for n in names[start : start + batch]
                    ]
                )

        found = interleaved({"torchvision, PIL, float": torchvisions, "rfbench": ours}, rounds)
    print(f"loading {count} JPEGs of 500x375 px, {size / 1000:.0f} KB, one thread")
    base = found["torchvision, PIL, float"]
    for what, seconds in found.items():
        each = 1000 * seconds / (count // batch * batch)
        print(f"  {what:26} {each:5.2f} ms a picture  {base / seconds:.2f}x")


def steps(rounds: int, batch: int = 4) -> None:
    """Forward and backward of ResNet-50's variants."""
    images = torch.randn(batch, 3, 224, 224).to(memory_format=torch.channels_last)
    calls = {}
    for variant in variants.PAPER:
        net = backbones.build("resnet50", variant).module.train()
        net = net.to(memory_format=torch.channels_last)
        calls[variant] = lambda net=net: net(images).sum().backward()
    found = interleaved(calls, rounds)
    print(f"ResNet-50, 224 px, batch {batch}, forward and backward, one thread")
    for name, seconds in found.items():
        ratio = seconds / found["baseline"]
        print(f"  {name:10} {1000 * seconds / batch:6.0f} ms a picture  {ratio:.3f} of baseline")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=200, help="JPEGs to load")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    given = parser.parse_args()
    loaders(given.pictures, given.rounds)
    steps(given.rounds)


if __name__ == "__main__":
    main()
