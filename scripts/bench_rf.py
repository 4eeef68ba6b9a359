"""Time one receptive-field map: rfbench, its autograd engine, and other tools side by side.

    python scripts/bench_rf.py                                    # some minutes
    python3 -m venv .peers && .peers/bin/pip install openerf==0.6.1
    python scripts/bench_rf.py --peers .peers/bin/python --big    # with openerf, and a large map

Every measurement is a fresh process with one thread. It imports everything, builds the network with
real (random) weights, and then measures CPU seconds and peak memory from the model object to the
finished map of the central unit, rfbench's trace of the network included. The tools take
turns, so that drift of the machine affects all equally; a cell is the median of the turns.

openerf runs in its own environment as its documentation says: `compute_erf` of a timm network with
`forward_features` and timm's preprocessing, here of one image that already has the input size.
"plain gradient" is the ten lines that many write themselves: |d unit / d input|, one random input.
Both depend on the weights, so their maps differ from the path counts of the first two.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import click
from tqdm import tqdm

from rfbench import files
from rfbench.errors import RfbenchError, UsageError
from rfbench.models import backbones

TOOL = str(Path(__file__).with_name("bench_rf_tool.py"))
TOOLS = ("rfbench", "autograd", "openerf", "plain")
TIMM = ("resnet50", "vgg16", "mobilenetv2_100", "efficientnet_b0", "densenet121", "inception_v3")
BIG, BIG_SIZE, BIG_FIELD = "timm:inception_resnet_v2", 3200, 3039
PEERS = "python3 -m venv .peers && .peers/bin/pip install openerf==0.6.1"
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
ONE_THREAD["OMP_WAIT_POLICY"] = "PASSIVE"


Result = dict[str, Any]
Case = tuple[str, int]  # model, size
Row = dict[str, list[Result]]  # the measurements of one network at one size, by tool
HEADS = ["network", "px", "rfbench", "autograd engine", "openerf, one image", "plain gradient"]


def one(tool: str, model: str, size: int, python: str, where: Result, note: bool) -> Result:
    """One measurement in a new process; {'failed': reason} if another tool fails."""
    at = [where["layer"], *map(str, where["unit"])] if where else []
    command = [python, TOOL, tool, model, str(size), *at]
    if note:
        shown = [*(f"{k}={v}" for k, v in ONE_THREAD.items()), shlex.join(command)]
        tqdm.write(" ".join(shown), sys.stderr)
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    reason = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
    if tool == "rfbench":
        raise RfbenchError(f"{model} at {size} px fails: {reason}")
    return {"failed": reason}


def turns(model: str, size: int, pythons: dict[str, str], repeats: int, bar: tqdm) -> Row:
    """All measurements of a network at a size, the tools in turn."""
    row: Row = {tool: [] for tool in pythons}
    where: Result = {}
    for turn in range(repeats):
        for tool, python in pythons.items():
            bar.set_postfix_str(f"{model} {size} px {tool}")
            got = one(tool, model, size, python, where, turn == 0)
            where = where or got  # rfbench is the first and says which layer and unit
            row[tool].append(got)
            bar.update()
        agree(model, size, row)
    return row


def agree(model: str, size: int, row: Row) -> None:
    """Raise RfbenchError unless both engines give the same field and centroid."""
    ours, theirs = row["rfbench"][-1], row.get("autograd", [{"failed": ""}])[-1]
    if "failed" in theirs:
        return
    pairs = zip(ours["centroid"], theirs["centroid"], strict=True)
    off = max(abs(a / ours["mass"] - b / theirs["mass"]) for a, b in pairs)
    if ours["field"] != theirs["field"] or not off <= 1e-6:
        raise RfbenchError(
            f"{model} at {size} px: the engines disagree: fields {ours['field']} and "
            f"{theirs['field']} px, centroids {off:.2g} px apart"
        )


def timing(measured: list[Result]) -> str:
    """'median (min to max) s'."""
    seconds = [m["seconds"] for m in measured]
    return f"{median(seconds):.3g} ({min(seconds):.3g} to {max(seconds):.3g}) s"


def cell(measured: list[Result] | None, ours: list[Result]) -> str:
    """CPU time, memory, and the ratio of the medians to rfbench's."""
    if not measured:
        return "not run"
    failed = next((m["failed"] for m in measured if "failed" in m), None)
    if failed:
        return f"fails: {failed}".replace("|", "/")
    text = f"{timing(measured)}, {median(m['above_model'] for m in measured):.0f} MB"
    ratio = median(m["seconds"] for m in measured) / median(m["seconds"] for m in ours)
    return text if measured is ours else f"{text}, **{ratio:.1f}×**"


def table(rows: dict[Case, Row]) -> str:
    """Markdown: a row for each network and size, a column for each tool."""
    lines = ["| " + " | ".join(HEADS) + " |", "|---" * len(HEADS) + "|"]
    for (model, size), row in rows.items():
        cells = [cell(row.get(tool), row["rfbench"]) for tool in TOOLS]
        lines.append(f"| {model} | {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sentence(ours: list[Result]) -> str:
    """The one large map; RfbenchError if its field is not the known one."""
    if any(m["field"] != [BIG_FIELD, BIG_FIELD] for m in ours):
        raise RfbenchError(f"{BIG}: a field of {ours[0]['field']} px instead of {BIG_FIELD}")
    above = [median(m[key] for m in ours) for key in ("above_model", "above_imports")]
    return (
        f"{BIG} at {BIG_SIZE} px, the whole map of {BIG_FIELD} x {BIG_FIELD} px: {timing(ours)}, "
        f"{above[0]:.0f} MB above the network, {above[1]:.0f} MB above the imports."
    )


def footer(rows: dict[Case, Row], repeats: int) -> str:
    """What the numbers are; machine and versions in words."""
    measured = [m for row in rows.values() for results in row.values() for m in results]
    versions = {m[key] for key in ("versions", "tool") for m in measured if key in m}
    return (
        f"CPU seconds, median (min to max) of {repeats} fresh processes with one thread; peak "
        "memory above imports and network; × = as many times rfbench's CPU time. "
        f"{os.cpu_count()}-core {platform.machine()} machine, {platform.system()}, "
        f"Python {platform.python_version()}, {', '.join(sorted(versions, reverse=True))}."
    )


def check(peers: str) -> None:
    """UsageError unless the Python of the peers' environment runs and has openerf."""
    with tempfile.TemporaryFile() as nowhere:
        try:
            done = subprocess.run([peers, "-c", "import openerf"], stderr=nowhere)
        except OSError as error:
            raise UsageError(f"--peers {peers}: {error.strerror}. Make it: {PEERS}") from None
    if done.returncode:
        raise UsageError(f"--peers {peers}: it has no openerf. Make it: {PEERS}")


def measure(cases: list[Case], pythons: dict[str, str], repeats: int, large: bool) -> str:
    """All measurements, as markdown."""
    rows: dict[Case, Row] = {}
    parts: list[str] = []
    total = repeats * (len(cases) * len(pythons) + large)
    with tqdm(total=total, unit="process", disable=None) as bar:
        for case in cases:
            rows[case] = turns(*case, pythons, repeats, bar)
        if rows:
            parts.append(table(rows))
        if large:
            rows[BIG, BIG_SIZE] = turns(BIG, BIG_SIZE, {"rfbench": sys.executable}, repeats, bar)
            parts.append(sentence(rows[BIG, BIG_SIZE]["rfbench"]))
    return "\n\n".join([*parts, footer(rows, repeats)])


@click.command(help=(__doc__ or "").split("\n", 1)[0])
@click.option("--models", default=",".join(f"timm:{m}" for m in TIMM), help="With commas.")
@click.option("--sizes", default="512", show_default=True, help="Pixels, with commas.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1), help="Turns.")
@click.option("--peers", metavar="PYTHON", help="Python of the environment with openerf.")
@click.option("--tools", default=",".join(TOOLS), help="Which to run beside rfbench, with commas.")
@click.option("--big", "large", is_flag=True, help=f"Also {BIG} at {BIG_SIZE} px.")
@click.option("--output", type=Path, help="Markdown file to write.")
def main(
    models: str,
    sizes: str,
    repeats: int,
    peers: str | None,
    tools: str,
    large: bool,
    output: Path | None,
) -> None:
    try:
        if not all(s.isdigit() for s in sizes.split(",")):
            raise UsageError(f"--sizes {sizes}: whole pixels with commas, such as 224,512")
        names = [backbones.build(m, meta=True).name for m in models.split(",") if m]
        pythons = dict.fromkeys(TOOLS, sys.executable)
        if peers:
            check(peers)
            pythons["openerf"] = peers
        else:
            del pythons["openerf"]
            click.echo(f"openerf is not run; its environment: {PEERS}", err=True)
        wanted = {"rfbench", *tools.split(",")}
        if unknown := wanted - {*TOOLS}:
            raise UsageError(f"--tools {unknown.pop()}: there are {', '.join(TOOLS)}")
        pythons = {tool: python for tool, python in pythons.items() if tool in wanted}
        cases = [(name, int(size)) for name in names for size in sizes.split(",")]
        text = measure(cases, pythons, repeats, large)
    except RfbenchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(text)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(output, text + "\n")


if __name__ == "__main__":
    main()
