"""How the cost of an answer grows: recording and the audit with depth, a map with its area.

    python scripts/bench_growth.py --output docs/figures

CPU seconds of one thread, the least of some calls in one process, and the exponent of a power law
fitted to the larger half of each curve: 1 is linear, 2 quadratic.
"""

import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn
from torchvision.models import DenseNet
from tqdm import tqdm

from rfbench import rf
from rfbench.plotting import page
from rfbench.plotting.page import SMALL, TEXT, Page
from rfbench.plotting.palette import COLOURS, MARKS
from rfbench.rf.core.network import Network

Curve = dict[int, float]
SIZE = (224, 224)


def least(call: Callable[[], object], calls: int = 3) -> float:
    """CPU seconds of the fastest call."""
    taken = []
    for _ in range(calls):
        begun = time.process_time()
        call()
        taken.append(time.process_time() - begun)
    return min(taken)


def on_meta(make: Callable[[], nn.Module]) -> nn.Module:
    """A network without memory."""
    with torch.device("meta"):
        return make().eval()


def convolutions(module: nn.Module) -> int:
    return sum(isinstance(m, nn.Conv2d) for m in module.modules())


def depths() -> dict[str, list[nn.Module]]:
    """Networks of growing depth, by kind."""
    kinds: dict[str, list[Callable[[], nn.Module]]] = {
        "ResNet, bottlenecks": [
            lambda n=n: ResNet(Bottleneck, [n, n, 2 * n, n]) for n in (2, 4, 8, 16, 32, 66)
        ],
        "plain 3x3s": [
            lambda n=n: nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(n)))
            for n in (16, 64, 256, 1024)
        ],
        "DenseNet": [lambda n=n: DenseNet(8, (n, n, n, n), 16) for n in (4, 8, 16, 32)],
    }
    return {name: [on_meta(make) for make in made] for name, made in kinds.items()}


def recording() -> dict[str, Curve]:
    """Seconds from a module to its graph, by the number of its convolutions."""
    return {
        kind: {convolutions(m): least(lambda m=m: Network(m).graph(SIZE)) for m in tqdm(nets, kind)}
        for kind, nets in depths().items()
    }


def counting() -> dict[str, Curve]:
    """Seconds of a map, without the recording, by the number of its positions."""
    curves: dict[str, Curve] = {"six 3x3s, dilated": {}, "three k x k kernels": {}}
    for d in tqdm((4, 8, 16, 32, 64, 128), "dilated"):
        chain = [nn.Conv2d(3, 3, 3, padding=d, dilation=d) for _ in range(6)]
        add(curves["six 3x3s, dilated"], nn.Sequential(*chain), 12 * d + 1)
    for k in tqdm((15, 31, 63, 127, 255, 511), "kernels"):
        chain = [nn.Conv2d(1, 1, k, padding=k // 2) for _ in range(3)]
        add(curves["three k x k kernels"], nn.Sequential(*chain), 3 * (k - 1) + 1)
    return curves


def add(curve: Curve, module: nn.Module, side: int) -> None:
    """Measure the central unit's map, of which `side` px along each axis are known by hand."""
    module = on_meta(lambda: module.to("meta"))
    network = Network(module, channels=module[0].in_channels)
    graph = network.graph((side, side))

    def count() -> np.ndarray:
        return network.target(graph.size).counts().counts

    reached = np.flatnonzero(count().any(0))
    if np.ptp(reached) + 1 != side:
        raise click.ClickException(f"a field of {np.ptp(reached) + 1} px instead of {side}")
    curve[side**2] = least(count)


def auditing() -> dict[str, Curve]:
    """Seconds of a whole audit, its variants included, by the number of convolutions."""
    curves: dict[str, Curve] = {"one field, 63 px": {}, "ResNet, 195 to 3,795 px": {}}
    for n in tqdm((4, 16, 64, 256), "one field"):
        module = on_meta(lambda n=n: stages(n))
        curves["one field, 63 px"][convolutions(module)] = least(lambda m=module: rf.audit(m, 224))
    for n in tqdm((1, 2, 4, 8, 16), "ResNet"):
        module = on_meta(lambda n=n: ResNet(BasicBlock, [n, n, n, n]))
        curves["ResNet, 195 to 3,795 px"][convolutions(module)] = least(
            lambda m=module: rf.audit(m, 224), 1
        )
    return curves


def stages(pointwise: int) -> nn.Module:
    """Five 3x3s of stride 2, a number of 1x1s behind each: a field of 63 px whatever it is."""
    net = nn.Sequential()
    for _ in range(5):
        net.append(nn.Conv2d(3, 3, 3, 2, 1))
        net.extend(nn.Conv2d(3, 3, 1) for _ in range(pointwise))
    return net


def exponent(curve: Curve) -> float:
    """Of a power law through the larger half of the points."""
    points = sorted(curve.items())[-max(2, (len(curve) + 1) // 2) :]
    logs = np.log([list(p) for p in points])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


PANELS = {
    "Recording a network": (recording, "convolutions"),
    "Counting paths": (counting, "positions of the map"),
    "A whole audit": (auditing, "convolutions"),
}


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.option("--output", type=Path, default=Path("docs/figures"), show_default=True)
def main(output: Path) -> None:
    torch.set_num_threads(1)
    figure = Page(7.0, 2.58)
    for i, (title, (measure, what)) in enumerate(PANELS.items()):
        left = 0.45 + i * 2.26
        figure.lines(left, 0.06, [title], TEXT, weight="bold")
        axes = figure.axes(left, 0.28, 1.78, 1.75)
        for j, (name, curve) in enumerate(measure().items()):
            power = exponent(curve)
            print(
                f"{title}: {name}: exponent {power:.2f}:",
                *(f"{k}: {v:.3g} s" for k, v in curve.items()),
            )
            label = f"{name}: n to the {power:.2f}"
            style = {"color": COLOURS[j], "marker": MARKS[j], "markersize": 2.5, "linewidth": 1}
            axes.loglog([*curve], [*curve.values()], label=label, **style)
        axes.set_xlabel(what, fontsize=TEXT)
        axes.set_ylabel("CPU seconds" if i == 0 else "", fontsize=TEXT)
        low, high = axes.get_ylim()
        axes.set_ylim(low, high * (high / low) ** 0.45)  # room for the legend
        page.literal(axes.legend(fontsize=SMALL - 0.5, frameon=False, loc="upper left"))
    words = (
        "One thread; the least of three calls (audits of ResNets: one call). Exponents are fitted "
        "to the larger half of each curve: 1 is linear."
    )
    figure.lines(0.1, 2.4, page.wrap(words, 6.8, SMALL), SMALL)
    for path in page.save(figure.figure, output / "growth"):
        if path.suffix == ".pdf":
            path.unlink()


if __name__ == "__main__":
    main()
