"""What a record says of images that cannot be read."""

from pathlib import Path

from rfbench.runs import records
from rfbench.training import epochs
from tests.report.records import record


def test_a_record_of_a_set_in_ruins_can_be_read_again(tmp_path: Path) -> None:
    """70,000 paths of 150 letters are more than a record may hold."""
    bad = {f"/data/{i:06d}{'x' * 140}.jpg": "the file is empty" for i in range(70_000)}
    told = epochs.told_of(bad)
    assert list(told["bad_images"]) == sorted(bad)[:1000]
    assert told["bad_images_more"] == 69_000
    content = {**record(), **told}
    content = {key: value for key, value in content.items() if key not in ("format", "kind")}
    records.write_record(tmp_path, "cls", content)
    assert records.read_training(tmp_path / records.RECORD).bad_images_more == 69_000  # type: ignore[attr-defined]
    few = dict(list(bad.items())[:3])
    assert epochs.told_of(few) == {"bad_images": few}
