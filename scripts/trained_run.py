"""A finished train-cls run, with validation images to measure it on: for textures and near_zero."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor

from rfbench.classify.evaluate import evaluate
from rfbench.classify.images import Images
from rfbench.classify.network import scores_of
from rfbench.classify.trained import classifier
from rfbench.data import augment
from rfbench.data.loader import Batch
from rfbench.data.moved import SEED
from rfbench.data.order import Task, epoch_order
from rfbench.runs.processes import Processes
from rfbench.schemas.cls import ClsConfig

BATCH = 50


class TrainedRun:
    """The network of a run's folder, on the CPU, and `count` images, chosen as for consistency.

    images: (N, H, W, 3) uint8, cut out as in the evaluation. model: may be changed.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.record: dict[str, Any] = json.loads((folder / "result.json").read_text())
        config = ClsConfig.model_validate(self.record["config"], strict=False)
        self.config = config.model_copy(update={"device": "cpu"})
        self.group = Processes(torch.device("cpu"))
        self.model = classifier(str(folder), "last.pth")
        self.data = Images(self.config, self.group, eval_only=True)
        held = torch.load(folder / "last.pth", map_location="cpu", weights_only=True)
        self.data.follow(held["classes"])  # the network's own order of classes
        crop = augment.evaluation(self.data.image_size, self.data.crop_ratio)
        split = self.data.set.val
        chosen = epoch_order(len(split), SEED, 0)[:count]
        self.images = torch.stack([crop.window(split.read(int(i))) for i in chosen])
        self.labels = torch.from_numpy(split.labels[chosen])

    @property
    def name(self) -> str:
        """'resnet14 1x1+3x3 seed 0', its model without the module that it is from."""
        model = str(self.record["model"]).rpartition(":")[2]
        return f"{model} {self.record['variant']} seed {self.record['seed']}"

    def top1(self, change: Callable[[Tensor], Tensor] = lambda images: images) -> float:
        """Top-1 in percent of the images, each batch (B, H, W, 3) of them changed."""
        parts = torch.arange(len(self.labels)).split(BATCH)
        batches = (
            Batch(change(self.images[at]), self.labels[at], at, [], Task(0, 0, len(at)))
            for at in parts
        )
        pairs, scores = map(self.data.on_device, batches), scores_of(self.model, self.config)
        return evaluate(self.model, pairs, len(parts), self.group, scores)["top1"]
