"""Which figure of a network or a training goes with accuracy, over the variants of a grid.

python scripts/predictors.py RUNS [--json]

RUNS: a folder of records of one task, such as docs/further_runs/stages/stages. A row a variant:
means over its seeds, without their sign, of top-1 or box AP and of what could predict it: shift
and gridding of the path counts, consistency of classifiers (percent; Zhang, 2019), jitter and the
error of box centres of detectors along both axes (px). Last, Spearman's rank correlation of each
column with the first. Variants are few, and chosen: rho describes, and has no p.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from rfbench.plotting.columns import columns

Record = dict[str, Any]
RF: dict[str, Callable[[Record], float]] = {
    "shift, px": lambda r: r["network"]["figures"]["shift"][0],  # the same along both axes
    "gridding": lambda r: r["network"]["figures"]["gridding"],
}
FIGURES: dict[str, dict[str, Callable[[Record], float]]] = {
    "cls": {
        "top-1": lambda r: r["metrics"]["top1"],
        **RF,
        "consistency": lambda r: r["metrics"]["consistency"],
    },
    "det": {
        "box AP": lambda r: r["metrics"]["bbox"]["AP"],
        **RF,
        "jitter": lambda r: r["metrics"]["jitter"]["jitter"],
        "box error y": lambda r: r["metrics"]["registration"]["dy"],
        "box error x": lambda r: r["metrics"]["registration"]["dx"],
    },
}


def read(folder: Path) -> tuple[str, dict[str, list[Record]]]:
    """The kind of the records in a folder, and the records by variant, baseline first."""
    found: dict[str, list[Record]] = defaultdict(list)
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]
    kinds = {record["kind"] for record in records}
    if len(kinds) != 1:
        raise SystemExit(f"{folder}: expected records of one kind, found {sorted(kinds) or 'none'}")
    for record in sorted(records, key=lambda record: record["variant"] != "baseline"):
        found[record["variant"]].append(record)
    return kinds.pop(), found


def measure(folder: Path) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """By variant the means of all figures; and by figure Spearman's rho with the first."""
    kind, variants = read(folder)
    rows = {
        name: {n: abs(statistics.mean(map(of, records))) for n, of in FIGURES[kind].items()}
        for name, records in variants.items()
    }
    accuracy, *others = FIGURES[kind]
    by_figure = {name: [row[name] for row in rows.values()] for name in FIGURES[kind]}
    rho = {n: float(spearmanr(by_figure[n], by_figure[accuracy]).statistic) for n in others}
    return rows, rho


def main() -> None:
    """Print the table of a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows, rho = measure(args.runs)
    if args.json:
        print(json.dumps({"variants": rows, "rho": rho}, indent=2))
        return
    names = list(next(iter(rows.values())))
    lines = [("variant", *names)]
    lines += [(name, *(f"{row[n]:.2f}" for n in names)) for name, row in rows.items()]
    lines.append(("Spearman's rho", "", *(f"{rho[n]:+.2f}" for n in names[1:])))
    print("\n".join(columns(lines)))


if __name__ == "__main__":
    main()
