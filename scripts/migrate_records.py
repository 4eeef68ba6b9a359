"""Writes cost and receptive field into records of older versions, which do not tell them.

    python scripts/migrate_records.py docs/runs

Networks are imported and built as the records name them, so do this to your own records only.
"""

import argparse
import json
from pathlib import Path

from rfbench import files
from rfbench.models import backbones
from rfbench.rf.core import recorded
from rfbench.runs import records


def migrate(path: Path, known: dict[tuple, dict]) -> bool:
    """Add "network" to the record of a training; False if there is nothing to add."""
    record = records.read_record(path)
    if not isinstance(record, records.TrainingRecord) or record.network:
        return False
    side = record.input.get("size") if record.kind == "cls" else None
    key = (record.model, record.variant, side)
    if key not in known:
        print(f"importing and measuring {record.model} / {record.variant}")
        backbone = backbones.build(record.model, record.variant, meta=True)
        known[key] = recorded.look(backbone, (side, side) if side else None)
    content = json.loads(path.read_text("utf-8"))
    text = json.dumps({**content, "network": known[key]}, indent=2, default=list) + "\n"
    files.write_text(path, text)
    return True


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
