"""timm's and torchvision's training scripts as functions of (network, batches), for bench_cls.

Both run from their own checkouts, unchanged; nothing of them is part of rfbench. Each is set up as
its documentation and its defaults say, with the recipe's optimizer and the recipe's augmentation.
"""

import contextlib
import functools
import importlib.util
import io
import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

Epoch = Callable[[Iterable], Any]
SGD: dict[str, Any] = {"momentum": 0.9, "weight_decay": 1e-4}


def module(path: Path) -> ModuleType:
    """A script as a module; the modules beside it can be imported by it."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(f"peer_{path.parent.name}", path)
        if spec is None or spec.loader is None or not path.exists():
            sys.exit(f"Error: there is no {path}")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded
    finally:
        sys.path.remove(str(path.parent))


def torchvision_epoch(checkout: Path, model: nn.Module, device: torch.device) -> Epoch:
    """The loop of references/classification/train.py over the batches it is given."""
    script = module(checkout / "references" / "classification" / "train.py")
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, nesterov=True, **SGD)
    scaler = torch.amp.GradScaler("cuda") if device.type == "cuda" else None  # its --amp
    given = Namespace(print_freq=10, clip_grad_norm=None, model_ema_steps=32, lr_warmup_epochs=0)

    def epoch(batches: Iterable) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            script.train_one_epoch(
                model, nn.CrossEntropyLoss(), optimizer, batches, device, 0, given, scaler=scaler
            )

    return epoch


def torchvision_loader(
    checkout: Path, folder: Path, size: int, batch: int, workers: int
) -> Iterable:
    """The training loader of references/classification: PIL, float."""
    from torchvision.datasets import ImageFolder

    presets = module(checkout / "references" / "classification" / "presets.py")
    data = ImageFolder(str(folder), presets.ClassificationPresetTrain(crop_size=size))
    sampler = torch.utils.data.RandomSampler(data)
    return torch.utils.data.DataLoader(
        data, batch, sampler=sampler, num_workers=workers, pin_memory=torch.cuda.is_available()
    )


def timm_epoch(checkout: Path, model: nn.Module, device: torch.device) -> Epoch:
    """The loop of train.py over the batches it is given (normalised, on the device)."""
    from timm.optim import create_optimizer_v2
    from timm.task import ClassificationTask

    script = module(checkout / "train.py")
    logging.disable(logging.INFO)
    given = _defaults(script)
    given.channels_last, given.prefetcher, given.distributed = True, True, False
    given.rank, given.world_size = 0, 1
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, "sgd", lr=0.01, filter_bias_and_bn=False, **SGD)
    task = ClassificationTask(model, nn.CrossEntropyLoss(), device=device)
    cast: Any = contextlib.nullcontext
    if device.type == "cuda":
        cast = functools.partial(torch.autocast, "cuda", torch.bfloat16)

    def epoch(batches: Iterable) -> None:
        script.train_one_epoch(0, model, batches, optimizer, given, task, device, amp_autocast=cast)

    return epoch


def _defaults(script: ModuleType) -> Namespace:
    """The arguments of timm's script when none is given."""
    argv, sys.argv = sys.argv, ["train.py"]
    try:
        return script._parse_args()[0]
    finally:
        sys.argv = argv


def timm_loader(
    folder: Path, size: int, batch: int, workers: int, device: torch.device
) -> Iterable:
    """timm's loader with its prefetcher, random resized crop and flip only, as in the recipe."""
    from timm.data import create_dataset, create_loader

    return create_loader(
        create_dataset("", root=str(folder), split="."),
        input_size=(3, size, size),
        batch_size=batch,
        is_training=True,
        interpolation="bilinear",
        color_jitter=None,  # the recipe has none
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        device=device,
    )


def timm_close(loader: Any) -> None:
    """End the processes of timm's loader, which it keeps for the next epoch."""
    loader.loader._iterator._shutdown_workers()
