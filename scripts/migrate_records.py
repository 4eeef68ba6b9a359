"""Writes cost, receptive field and its map into records of older versions, which do not tell them.

    python scripts/migrate_records.py docs/runs

Networks are imported and built as the records name them, so do this to your own records only. A map
is added only where the network as it is built today has the figures that the record tells: what
pruning left of one is in its checkpoint alone.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from rfbench import files, json_text
from rfbench.models import backbones
from rfbench.rf.core import recorded
from rfbench.runs import records


def migrate(path: Path, known: dict[tuple, dict]) -> bool:
    """Add "network", or its "map", to a training's record; False if there is nothing to add."""
    record = records.read_record(path)
    if not isinstance(record, records.TrainingRecord):
        return False
    content = json.loads(path.read_text("utf-8"))
    told = content.get("network")
    if told and told.get("map"):
        return False
    side = record.input.get("size") if record.kind == "cls" else None
    key = (record.model, record.variant, side)
    if key not in known:
        print(f"importing and measuring {record.model} / {record.variant}")
        backbone = backbones.build(record.model, record.variant, meta=True)
        found = recorded.look(backbone, (side, side) if side else None)
        known[key] = json.loads(json_text.dumps(found))
    network = known[key]
    if told:
        if not is_of(network["figures"], told["figures"]):
            print(f"{path}: no map is added: today's network has other figures")
            return False
        network = {**told, "map": network["map"]}
    text = json.dumps({**content, "network": network}, indent=2) + "\n"
    files.write_text(path, text)
    return True


def is_of(now: dict, told: dict) -> bool:
    """Whether two networks have the same figures, but for rounding; figures of one alone count."""
    return now.keys() == told.keys() and all(
        np.allclose(np.array(now[name], float), np.array(told[name], float), atol=1e-9)
        for name in now
    )


def main() -> None:
    """Migrate every record below the folders."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    known: dict[tuple, dict] = {}
    paths = [p for f in parser.parse_args().folders for p in sorted(f.rglob(records.RECORD))]
    done = sum(migrate(path, known) for path in paths)
    print(f"{done} of {len(paths)} records migrated")


if __name__ == "__main__":
    main()
