"""Every question about a network that draws values at random while it runs."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rfbench import rf
from rfbench.errors import RfbenchError


class Dropped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(F.dropout(self.a(x), 0.3, training=True))


WHAT = "aten.bernoulli.p"


def test_tiles_are_refused_and_mirror_images_not_run() -> None:
    with pytest.raises(RfbenchError, match=f"draws at random while it runs, by {WHAT}"):
        rf.tiles(Dropped(), size=48)
    found = rf.mirror(Dropped(), size=48)
    assert found["axes"]["y"]["off"] == 1.0 and found["run_at"] is None
    assert f"not run: it draws at random while it runs, by {WHAT}" in repr(found)
    assert rf.tiles(Dropped(), size=48, layer="a")["halo"]  # ahead of it


def test_audits_maps_and_effective_fields_say_so() -> None:
    audit = rf.audit(Dropped(), size=48)
    assert audit["random"] == {"values": [WHAT]} and f"by {WHAT}. Figures are of all" in repr(audit)
    maps = rf.visualize(Dropped(), ["baseline"], size=48)
    assert f"by {WHAT}. Figures are of all draws" in repr(maps)
    words = " ".join(text.get_text() for text in maps.plot().texts)
    assert f"Draws values at random while it runs, by {WHAT}" in " ".join(words.split())
    _, figures = rf.effective(Dropped(), torch.randn(2, 3, 48, 48))
    assert figures["random"]["values"] == [WHAT]
    assert f"by {WHAT}. Every pass has a draw of its own" in repr(figures)


class Scaled(Dropped):
    """By a number that its code reads, drawn where the image is."""

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x)) * torch.rand(1, device=x.device).item()


def test_an_audit_of_sizes_of_a_network_whose_code_reads_numbers() -> None:
    found = rf.audit(Scaled(), size=48, sizes=[33, 40])
    assert "refuses" not in repr(found) and "0.50" in repr(found)
    assert "Its code reads numbers drawn by aten.rand.default" in repr(found)
