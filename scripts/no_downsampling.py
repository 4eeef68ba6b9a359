"""The table of docs/no_downsampling.md: parameters, MACs, fields in theory, effective fields.

python scripts/no_downsampling.py           # all; minutes
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rfbench import rf
from rfbench.models import backbones
from rfbench.rf.core.network import Network
from rfbench.rf.questions.effective.effective import measure
from rfbench.rf.questions.effective.sample import Sample
from rfbench.schemas.rf import RfConfig

PAGE = Path(__file__).parents[1] / "docs" / "no_downsampling.md"
TABLE = re.compile(r"(?<=<!-- table: networks -->\n).*?(?=<!-- end -->)", re.DOTALL)
SIZE, WIDER = 65, 129  # px of the images of effective fields; the latter for a field of 127
LARGE = "resnet18"  # too slow at full resolution for a small machine: no effective field
WIDE = "(widths=[64,128,256,512])"
# name -> what it is
NETWORKS = {
    "strided": "3x3, stride 2 in every layer: the control",
    "dilated": "3x3, dilation 1, 2, 4, 8",
    "large_kernels": "3x3, 5x5, 7x7, 9x9",
    "cascade": "ten layers of 3x3",
    "cascade_depthwise": "the same, six of them depthwise",
    "max_pooled": "dilated, with 3x3 max-pooling of stride 1",
    "skips": "dilated, with a head that reads all layers",
    "three_fields": "dilated, forked into three branches",
    "hrnet": "three branches that exchange, no resolutions",
    "dilated_dense": "six layers to dilation 32, scores of every pixel",
    "large_kernels_dense": "large kernels, scores of every pixel",
    "cascade_dense": "cascade, scores of every pixel",
    "dilated" + WIDE: "64-128-256-512",
    "cascade" + WIDE: "64-128-256-512",
    "cascade_depthwise" + WIDE: "64-128-256-512",
    "resnet18_32px": "ResNet-18 with strides",
    "resnet18_dilated": "ResNet-18, dilation in place of stride",
}


def computed(name: str) -> list[str]:
    """The cells of a network that follow from its graph."""
    held = backbones.build(f"rfbench.classify.nets:{name}", meta=True)
    parameters = sum(p.numel() for p in held.module.parameters())
    macs = Network(held.module, (32, 32)).cost((32, 32)).macs
    theory = rf.theory(rf.record(held.module, size=192))["y"]
    text = name.replace(WIDE, ", wide")
    shown = [f"`{text}`" if text == name else f"`{text.partition(',')[0]}`, wide"]
    return [*shown, NETWORKS[name], f"{parameters:,}", f"{macs / 1e6:,.1f} M",
            str(theory["size"]), str(theory["stride"])]  # fmt: skip


def effective(name: str) -> str:
    """The size of the untrained effective field, as `rf effective` measures it."""
    if name.startswith(LARGE) or WIDE in name:
        return "-"
    size = WIDER if name == "dilated_dense" else SIZE
    model = f"rfbench.classify.nets:{name}"
    config = RfConfig.model_validate({"model": model, "variants": ["baseline"], "size": size})
    (found,) = measure(config, Sample(count=4, draws=4))
    return f"{found.metrics['size']:.1f}"


def table(fields: Mapping[str, Any]) -> str:
    """The table as Markdown. fields: effective ones, by name."""
    head = ["network", "what", "parameters", "MACs", "field", "stride", "effective"]
    rows = [head, ["---"] * len(head), *([*computed(n), fields[n]] for n in NETWORKS)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Measure, and write the table into the page."""
    fields = {name: effective(name) for name in NETWORKS}
    text = PAGE.read_text()
    PAGE.write_text(TABLE.sub(lambda _: table(fields), text))


if __name__ == "__main__":
    main()
