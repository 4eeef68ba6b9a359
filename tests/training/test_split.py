"""Sharing out a batch: always the whole of it."""

import pytest

from rfbench.errors import UsageError
from rfbench.training.split import Split, split


@pytest.mark.parametrize(
    ("batch", "world", "largest", "expected"),
    [
        (4096, 8, 256, Split(8, 2, 256)),
        (4096, 1, 256, Split(1, 16, 256)),
        (4096, 64, 256, Split(64, 1, 64)),
        (32, 1, 256, Split(1, 1, 32)),
        (30, 3, 5, Split(3, 2, 5)),
    ],
)
def test_split(batch: int, world: int, largest: int, expected: Split) -> None:
    assert split(batch, world, largest) == expected
    assert expected.batch == batch


@pytest.mark.parametrize(
    ("batch", "world", "largest", "advice"),
    [
        (4096, 3, 256, "-o batch_size=4104"),
        (4096, 8, 200, "-o max_batch_per_gpu=128 or -o batch_size=4104"),
        (4096, 5000, 256, "-o batch_size=5000"),
        (10, 4, 1, "-o batch_size=8"),
    ],
)
def test_uneven_is_refused_with_the_nearest(
    batch: int, world: int, largest: int, advice: str
) -> None:
    with pytest.raises(UsageError, match="does not split evenly") as error:
        split(batch, world, largest)
    assert advice in str(error.value)
    key, _, value = advice.partition(" or ")[0].removeprefix("-o ").partition("=")
    given = {"batch_size": batch, "max_batch_per_gpu": largest, key: int(value)}
    assert split(given["batch_size"], world, given["max_batch_per_gpu"])


@pytest.mark.parametrize(
    ("batch", "world", "largest", "advised"),
    [(4096, 8, 256, 128), (75, 1, 25, 15), (30, 3, 5, 2), (8, 8, 1, None)],
)
def test_what_is_advised_where_memory_is_short_can_be_taken(
    batch: int, world: int, largest: int, advised: int | None
) -> None:
    advice = split(batch, world, largest).memory_advice
    if advised is None:
        assert "smaller images" in advice
        return
    assert f"-o max_batch_per_gpu={advised};" in advice
    assert split(batch, world, advised).micro == advised < split(batch, world, largest).micro
