"""What a mirrored image moves, as lines of text."""

from typing import Any

from rfbench.plotting.columns import columns
from rfbench.rf.core import randomness
from rfbench.rf.core.metric import unit_of


def text(record: dict[str, Any]) -> str:
    """A record of `mirror` in a few lines."""
    at, units = _by(record["input_size"]), _by(record["map_size"])
    name = f"{record['model']} / {record['variant']} to {record['to']}"
    unit = unit_of(len(record["input_size"]))
    lines = [f"{name}, {units} units at {at} {unit}: a mirrored image's map, mirrored back"]
    shown = record["run_at"] is not None
    head = ("axis", "shift", "is off by", "in units")
    more = ("move it by", "apart", "moved", "on the image moved so") if shown else ()
    table: list[tuple[str, ...]] = [(*head, *more)]
    for name, row in record["axes"].items():
        figures = (
            f"{row['shift']:+.2f} {unit}",
            f"{row['off']:+.2f} {unit}",
            f"{row['units']:+.3f}",
        )
        table.append((name, *figures, *(_run(row) if shown else ())))
    lines += columns(table, "  ")
    if said := randomness.sources(record):
        return "\n".join([*lines, f"  not run: it draws at random while it runs, by {said}"])
    if not shown:
        return "\n".join([*lines, "  not run: the network is another one on larger images"])
    lines.append(
        f"  run at {_by(record['run_at'])} {unit} in float64 with random symmetric kernels; apart: "
        "root of the mean square difference / the channels' deviation"
    )
    return "\n".join([*lines, *_advice(record)])


def _run(row: dict[str, Any]) -> tuple[str, ...]:
    """What the run says of an axis."""
    last = {None: "-", True: "equal"}.get(row["confirmed"], f"{row['moved_image'] or 0:.3f}")
    move = f"{row['move']:+d}" if row["move"] else "0"
    return move, f"{row['apart']:.3f}", f"{row['apart_moved']:.3f}", last


def _advice(record: dict[str, Any]) -> list[str]:
    """What a flip test should do."""
    words: dict[str, list[str]] = {}
    for name, row in record["axes"].items():
        words.setdefault(_words(row), []).append(name)
    return [f"  along {', '.join(names)}: {said}" for said, names in words.items()]


def _words(row: dict[str, Any]) -> str:
    move, left = row["move"], row["units"] - row["move"]
    moved = f"move the mirrored-back map by {move:+d} before averaging"
    if row["confirmed"] is None:
        most = moved if move else "move nothing"
        return f"branches look at different places, and no move makes them equal; nearest: {most}"
    if not row["confirmed"] and row["swapped"]:
        return (
            "units take turns, and in the mirror each has another's turn: no move makes them equal"
        )
    if not row["confirmed"]:
        return (
            "the run does not confirm it: something in the network has no mirror image (channels "
            "that become positions, masks, coordinates)"
        )
    if abs(left) > 0.5 + 1e-6:
        why = "units take turns, so that" if row["turns"] else "no move brings both close:"
        return f"{why} the run is nearest at a move of {move:+d}"
    if move:
        return f"{moved}; {left:+.3f} units remain"
    return f"{left:+.3f} units remain, and no move helps" if abs(left) > 1e-6 else "nothing to move"


def _by(size: Any) -> str:
    return "x".join(map(str, size))
