"""`weights: FILE.yaml`: the classifier that a detector or a segmenter starts from, trained first if
necessary.

Neither imports classification; the caller passes in its functions.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rfbench import shipped
from rfbench.config import load
from rfbench.runs import checkpoint
from rfbench.runs import folder as folders
from rfbench.schemas.cls import ClsConfig
from rfbench.schemas.det import DetConfig
from rfbench.schemas.seg import SegConfig

Above = TypeVar("Above", DetConfig, SegConfig)


@dataclass(frozen=True)
class Classifier:
    """A training of a classifier: the file that configures it, its configuration, its folder."""

    path: str
    config: ClsConfig
    folder: Path

    def is_trained(self) -> bool:
        """Whether the run has finished; UsageError if the folder holds another configuration's."""
        best = self.folder / checkpoint.BEST
        remedy = f"Use it as it is with -o weights={best}, or move {self.folder} away."
        return folders.finished(self.folder, self.config, remedy) is not None

    def used_by(self, config: Above) -> Above:
        """The configuration of a detector or segmenter with the checkpoint as its weights."""
        return config.model_copy(update={"weights": str(self.folder / checkpoint.BEST)})


def classifier_of(
    above: DetConfig | SegConfig, folder_of: Callable[[ClsConfig], Path]
) -> Classifier | None:
    """The classifier of a configuration's `weights: FILE.yaml`, in its variant and with its seed.

    folder_of: the folder of a classifier's training. None for weights that are a checkpoint.
    """
    source = above.weights or ""
    if not source.endswith((".yaml", ".yml")):
        return None
    variant = json.dumps(above.model_dump(mode="json")["variant"])
    overrides = [f"variant={variant}", f"seed={above.seed}", f"device={above.device}"]
    path = shipped.path_of(source)
    config = load(ClsConfig, path, overrides)
    return Classifier(path, config, folder_of(config))
