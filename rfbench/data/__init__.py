"""Pictures for classification: data sets, decoding, augmentation, order, batches.

`load` opens a data set by name, `Loader` makes batches of one of its splits for tasks that
`TrainTasks` and `evaluation_tasks` hand out, `Normalize` turns them into a network's input.
"""

from rfbench.data.augment import AUGMENTATIONS, Normalize, Transform, evaluation
from rfbench.data.dataset import Dataset, Split
from rfbench.data.decode import BadPicture
from rfbench.data.loader import Batch, Loader
from rfbench.data.order import Task, TrainTasks, epoch_order, evaluation_tasks, updates_per_epoch
from rfbench.data.sources import SOURCES, load

__all__ = [
    "AUGMENTATIONS",
    "SOURCES",
    "BadPicture",
    "Batch",
    "Dataset",
    "Loader",
    "Normalize",
    "Split",
    "Task",
    "TrainTasks",
    "Transform",
    "epoch_order",
    "evaluation",
    "evaluation_tasks",
    "load",
    "updates_per_epoch",
]
