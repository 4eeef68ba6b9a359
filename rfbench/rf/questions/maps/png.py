"""The maps of a model's variants as one image, for a page that shows other things as well."""

import functools
import io
from collections.abc import Sequence

from rfbench.rf.core import subjects
from rfbench.rf.questions.maps import figure, maps
from rfbench.schemas.rf import RfConfig


def png(model: str, variants: Sequence[str]) -> bytes:
    """A PNG: a panel for every variant, each on an input that cuts nothing off."""
    drawn = [each for name in variants for each in _drawn(model, name)]
    panels = [
        figure.Panel(d.subject.title, d.counts, d.metrics, d.own, "at its own size") for d in drawn
    ]
    name = drawn[0].subject.backbone.name
    caption = maps.caption(RfConfig(model=name), drawn)
    out = io.BytesIO()
    page = figure.maps_figure(panels, name.rpartition(":")[2], caption)
    page.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


@functools.cache  # the pages of a comparison share networks
def _drawn(model: str, variant: str) -> list[maps.Drawn]:
    config = RfConfig(model=model, variants=[variant])
    return list(maps.draw(config, list(subjects.subjects(config))))
