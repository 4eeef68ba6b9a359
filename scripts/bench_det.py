"""Step time of `rfbench train-det`: Detectron2's own ResNet-50 beside rfbench's, one trainer.

python scripts/bench_det.py [--detector NAME] [--size 256] [--batch 2] [--rounds 15]
python scripts/bench_det.py --device cuda --size 800 --batch 16 [--amp] --markdown FILE

All networks are built once and take turns on the same images; compare the ratios. On a GPU use the
1x settings, as above.
"""

import argparse
import functools
import os
import shlex
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from timing import Section, in_turns

import rfbench.detect  # noqa: F401 (registers the backbones)
from rfbench.detect import config
from rfbench.models.variants import PAPER
from rfbench.schemas.det import DetConfig

DETECTORS = {
    "retinanet": "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
    "mask_rcnn": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
}
OWN = "Detectron2's own R-50"


def noise(size: int, batch: int, masks: bool) -> list[dict[str, Any]]:
    """Noise images with seven objects each, the average of COCO."""
    rng = np.random.default_rng(0)
    images = []
    height, width = size, size * 4 // 3 // 32 * 32
    for _ in range(batch):
        corners = rng.uniform(0, 0.7, (7, 2)) * (width, height)
        sides = rng.uniform(0.05, 0.3, (7, 2)) * (width, height)
        boxes = torch.tensor(np.concatenate([corners, corners + sides], 1), dtype=torch.float32)
        objects = Instances((height, width))
        objects.gt_boxes = Boxes(boxes)
        objects.gt_classes = torch.tensor(rng.integers(0, 80, 7))
        if masks:
            objects.gt_masks = BitMasks(torch.ones(7, height, width, dtype=torch.bool))
        image = torch.tensor(rng.integers(0, 256, (3, height, width)), dtype=torch.uint8)
        images.append({"image": image, "instances": objects})
    return images


def trainer(detector: str, variant: str, given: argparse.Namespace, data: Any) -> Any:
    """Detectron2's trainer of a network with its own backbone or rfbench's."""
    if variant == OWN:
        cfg = config.stock(detector)
        cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = given.device, False
    else:
        settings = DetConfig(detector=detector, variant=variant, weights=None)
        cfg = config.resolve(settings, 80, Path("."), given.device)
    cfg.defrost()
    cfg.SOLVER.BASE_LR = 1e-6  # random weights must stay finite
    torch.manual_seed(0)
    model = build_model(cfg)
    kind = AMPTrainer if given.amp else SimpleTrainer
    return kind(model, iter(lambda: data, None), build_optimizer(cfg, model))


def step(one: Any) -> None:
    """One step of training."""
    with EventStorage(0):
        one.run_step()


def peak(one: Any) -> float:
    """The GiB that a step takes on a GPU beside what was there before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(one)
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--detector", choices=DETECTORS, default="retinanet")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=["cpu", "cuda"], default=default)
    parser.add_argument("--size", type=int, default=256, help="shorter side in px")
    parser.add_argument("--batch", type=int, default=2, help="images per step")
    parser.add_argument("--rounds", type=int, default=15, help="measured rounds")
    parser.add_argument("--amp", action="store_true", help="fp16, on a GPU")
    parser.add_argument("--variants", nargs="*", default=list(PAPER), help="rfbench's")
    parser.add_argument("--markdown", type=Path, help="a file that the section is appended to")
    given = parser.parse_args()
    if given.device == "cpu":
        torch.set_num_threads(1)
    device = torch.device(given.device)
    command = shlex.join(["python", "scripts/bench_det.py", *sys.argv[1:]])
    section = Section("Training a detector, side by side with Detectron2", command, device)
    data = noise(given.size, given.batch, given.detector == "mask_rcnn")
    names = [OWN, *given.variants]
    trainers = {name: trainer(DETECTORS[given.detector], name, given, data) for name in names}
    calls = {name: functools.partial(step, one) for name, one in trainers.items()}
    height, width = data[0]["image"].shape[1:]
    kind = "fp16" if given.amp else "fp32 (in convolutions TF32, where the GPU has it)"
    section.add(f"{given.detector}, {height}x{width} px, batches of {given.batch}, {kind}.")
    section.table(in_turns(calls, device, given.rounds, 2), given.batch, OWN, "training step")
    if given.device == "cuda":
        rows = [f"| {name} | {peak(one):.2f} |" for name, one in trainers.items()]
        section.add("| network | GiB that a step takes |", "|---|---|", *rows)
    section.write(given.markdown)


if __name__ == "__main__":
    main()
