"""CIFAR-10 and CIFAR-100 from the files that torchvision unpacks; nothing is downloaded."""

import os
from dataclasses import replace

from rfbench.data.dataset import ArraySplit, Dataset
from rfbench.data.folder import missing
from rfbench.errors import RfbenchError


def cifar10(root: str, eval_only: bool = False) -> Dataset:
    """CIFAR-10 from ROOT/cifar-10-batches-py/."""
    data = _read("CIFAR10", root, eval_only)
    return replace(data, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


def cifar100(root: str, eval_only: bool = False) -> Dataset:
    """CIFAR-100 from ROOT/cifar-100-python/."""
    data = _read("CIFAR100", root, eval_only)
    return replace(data, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))


def _read(name: str, root: str, eval_only: bool) -> Dataset:
    from torchvision import datasets  # here: slow to import

    reader = getattr(datasets, name)
    base, title = reader.base_folder, name.replace("CIFAR", "CIFAR-")
    try:  # torchvision compares every file's MD5 before it unpickles anything
        val = reader(root, train=False, download=False)
        train = val if eval_only else reader(root, train=True, download=False)
    except RuntimeError:
        if not os.path.isdir(os.path.join(root, base)):
            raise missing(title, root, f"{base}/, as torchvision unpacks it,") from None
        raise RfbenchError(
            f"{root}/{base}: a file of {title} is missing or damaged (its MD5 differs); "
            f"unpack {reader.filename} again"
        ) from None
    except OSError as error:
        raise RfbenchError(f"{error.filename}: cannot be read: {error.strerror}") from None
    images, labels = (train.data[:0], []) if eval_only else (train.data, train.targets)
    return Dataset(
        name.lower(),
        list(val.classes),
        ArraySplit(images, labels, f"{root}/{base}/train"),
        ArraySplit(val.data, val.targets, f"{root}/{base}/test"),
        image_size=32,
        crop_ratio=1.0,
        augment="pad_crop",
    )
