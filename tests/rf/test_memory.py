"""What does not fit into memory is refused with both figures, before it is tried."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from rfbench.cli import main
from rfbench.errors import RfbenchError
from rfbench.rf.core import memory
from rfbench.rf.core.network import Network


def test_there_is_some_and_less_than_a_container_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = memory.available_bytes()
    assert 2**28 < whole < 2**46
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (str(limit),))
    limit.write_text("max\n")
    assert memory.available_bytes() >= whole
    limit.write_text(f"{2**27}\n")
    assert memory.available_bytes() == 2**27


def test_refusal_gives_both_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 2.0**30)
    memory.check(2**30, "this", "Do not.")
    with pytest.raises(RfbenchError) as told:
        memory.check(2**32, "a test", "Do less.")
    assert str(told.value) == (
        "a test needs at least 4.0 GiB of memory, and there are 1.0 GiB. Do less."
    )


def test_estimate_is_what_autograd_keeps() -> None:
    """Weights, activations of the convolutions, images and their gradient."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    size = (64, 64)
    weights = sum(p.numel() for p in net.parameters())
    expected = 4 * (weights + 5 * (2 * 8 * 64 * 64 + 2 * 3 * 64 * 64))
    assert Network(net, size).memory(size, 5) == expected
    unknown = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(7, 7))  # does not run at this size
    assert Network(unknown, size).memory(size, 5) == 0


@pytest.mark.parametrize(
    "command",
    [
        "visualize-rf resnet18 --size 30000",
        "visualize-rf resnet18 --engine autograd",
        "rf effective resnet18 --size 2000",
        "rf audit resnet18 --size 30000",
    ],
)
def test_commands_say_it_in_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 2.0**27)
    torch.set_num_threads(1)
    result = CliRunner().invoke(main, [*command.split(), "--output", str(tmp_path / "out")])
    assert result.exit_code == 1
    (line,) = [text for text in result.stderr.splitlines() if "memory" in text]
    assert "GiB of memory, and there are 0.1 GiB." in line
    assert not (tmp_path / "out").exists()
