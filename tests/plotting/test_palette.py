"""One colour a variant, in every figure."""

from rfbench.models.variants import VARIANTS
from rfbench.plotting import palette


def test_a_listed_variant_has_one_colour_wherever_it_stands() -> None:
    whole = palette.colours(VARIANTS)
    assert list(whole.values()) == palette.COLOURS[: len(VARIANTS)]
    assert palette.colours(["3x3", "baseline"]) == {k: whole[k] for k in ("3x3", "baseline")}


def test_own_variants_have_what_is_left() -> None:
    found = palette.colours(["baseline", "1x1+3x3", "1x1+3x3+7x7", "blur:1x1"])
    assert len(set(found.values())) == 4
    assert found["baseline"] == palette.BLACK


def test_more_series_than_colours() -> None:
    found = palette.colours([*VARIANTS, *(f"max:{k}x{k}" for k in range(2, 9))])
    assert [name for name, colour in found.items() if colour == palette.BLACK] == ["baseline"]
