"""The zoo as a CSV, and as a page of Markdown: how many of each kind, the families' extremes."""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from rfbench import files
from rfbench.rf.questions.zoo.zoo import FIX, Row, columns
from rfbench.runs import records
from rfbench.spatial_graph.node import Reach

MEANING = {
    Reach.LOCAL: "the last map sees a bounded, position-independent neighbourhood",
    Reach.CONTEXT: "the same, and a pooled summary of the whole image (squeeze-excitation)",
    Reach.WINDOWED: "attention, but only within windows at this input size",
    Reach.GLOBAL: "every position meets every other: attention, token mixing, recurrence",
    Reach.UNSUPPORTED: "an operation that is not understood; nothing is claimed",
}
SHIFTED, GRIDDED = 1.0, 0.05  # px, and coefficient of variation: from here on it is called so


def counts(rows: Sequence[Row], reach: Reach, libraries: Sequence[str]) -> list[int]:
    """How many networks of each library are of a status."""
    fit = [row["model"].partition(":")[0] for row in rows if row["status"] == str(reach)]
    return [fit.count(library) for library in libraries]


def _versions() -> str:
    held = records.versions()
    return ", ".join(f"{name} {held[name]}" for name in ("torch", "torchvision", "timm"))


def table(rows: Sequence[Row]) -> str:
    """All rows as CSV; pairs along (y, x) as '427x427'."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns(), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        plain = {k: "x".join(map(str, v)) if isinstance(v, list) else v for k, v in row.items()}
        writer.writerow({key: plain.get(key) for key in columns()})
    return out.getvalue()


def save_summary(rows: Sequence[Row], path: Path) -> None:
    """The zoo as a page of Markdown, and its figure beside it, of the same name."""
    from rfbench.plotting import page as pages
    from rfbench.rf.questions.zoo import figure as zoo

    measured = [row for row in rows if row["shift"] is not None]
    families = [family(row["model"]) for row in measured]
    caption = (
        "One dot a network at its own input size, uncut; family: the library's module, and how "
        "many of it have path counts. Gridding: coefficient of variation over pixel phases. "
        f"{_versions()}."
    )
    if measured:
        pages.save(zoo.figure(measured, families, caption), path.with_suffix(""), ["png"])
    files.write_text(path, summary(rows, path.with_suffix(".png").name if measured else ""))


def summary(rows: Sequence[Row], figure: str = "") -> str:
    """The zoo in a page of Markdown: how many of each kind, and which families are how."""
    libraries = sorted({row["model"].partition(":")[0] for row in rows})
    lines = [
        "# The receptive fields of torchvision and timm",
        "",
        f"{len(rows)} architectures at their own input size. {_versions()}. Written by",
        "`rfbench rf zoo --markdown FILE`, which also writes a page to search and compare maps.",
        "",
        *([f"![Shift by family]({figure})", ""] if figure else []),
        f"| status | {' | '.join(libraries)} | what it means |",
        f"|---|{'---|' * len(libraries)}---|",
    ]
    for reach in Reach:
        found = counts(rows, reach, libraries)
        lines.append(f"| {reach} | {' | '.join(map(str, found))} | {MEANING[reach]} |")
    measured = [row for row in rows if row["shift"] is not None]
    lines += ["", *_families(measured)]
    for reach in (Reach.WINDOWED, Reach.UNSUPPORTED):
        fit = [row for row in rows if row["status"] == str(reach)]
        lines += ["", f"## {str(reach).capitalize()}", "", f"{_upper(MEANING[reach])}: {len(fit)}."]
        lines += ["", "| model | why |", "|---|---|"] if fit else []
        lines += [f"| {row['model']} | {row['witness']} |" for row in fit]
    return "\n".join(lines) + "\n"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _families(measured: Sequence[Row]) -> list[str]:
    """Families of networks: shifted, gridded or clean, with their extremes."""
    families: dict[str, list[Row]] = defaultdict(list)
    for row in measured:
        families[family(row["model"])].append(row)
    lines = [
        kinds(measured),
        "",
        f"| family | models | largest shift, px | gridding, largest | misaligned | with {FIX}: "
        "largest shift, px | gridding |",
        "|---|---|---|---|---|---|---|",
    ]
    ordered = sorted(families.items(), key=lambda item: (-_largest(item[1], "shift"), item[0]))
    for name, rows in ordered:
        apart = sum(row["misaligned"] > 0 for row in rows)
        fixed = [row for row in rows if row["fixed_shift"] is not None]
        then = [
            f"{_largest(fixed, k):.2f}" if fixed else "–" for k in ("fixed_shift", "fixed_gridding")
        ]
        shift, grid = _largest(rows, "shift"), _largest(rows, "gridding")
        lines.append(
            f"| {name} | {len(rows)} | {shift:.2f} | {grid:.2f} | {apart} | {' | '.join(then)} |"
        )
    return lines


def kinds(measured: Sequence[Row]) -> str:
    """How many are shifted or gridded, in a sentence."""
    found = Counter(_kind(row) for row in measured)
    return (
        f"Of {len(measured)} with path counts {found['shifted and gridded']} are shifted by more "
        f"than {SHIFTED:g} px and gridded (above {GRIDDED:g}), {found['shifted']} shifted only, "
        f"{found['gridded']} gridded only and {found['clean']} clean."
    )


def _largest(rows: Sequence[Row], key: str) -> float:
    return max(abs(row[key]) for row in rows)


def _kind(row: Row) -> str:
    shifted, gridded = abs(row["shift"]) > SHIFTED, row["gridding"] > GRIDDED
    words = ["shifted"] * shifted + ["gridded"] * gridded
    return " and ".join(words) or "clean"


def family(model: str) -> str:
    """The library's own grouping: the module that a network is written in, such as 'resnet'."""
    library, _, name = model.partition(":")
    if library == "timm":
        import timm

        return timm.model_entrypoint(name).__module__.rpartition(".")[2]
    from torchvision import models

    return models.get_model_builder(name).__module__.rpartition(".")[2]
