"""Errors in Python say how what they advise is written there."""

import inspect
import sys

import pytest
from click.testing import CliRunner
from torch import nn

from rfbench import rf
from rfbench.cli import main
from rfbench.errors import RfbenchError
from rfbench.rf import in_python

NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_an_error_names_the_argument_for_each_option() -> None:
    with pytest.raises(RfbenchError, match="unknown layer '2'") as raised:
        rf.theory(NET, "2")
    assert raised.value.__notes__ == ["In Python: list(rf.record(model).layers) for --list-layers."]
    found = CliRunner().invoke(main, ["rf", "theory", "torchvision:alexnet", "--to", "nothing"])
    assert found.exit_code == 2 and "In Python" not in found.stderr


def test_what_an_error_says_of_python_itself_is_enough() -> None:
    assert in_python.note("choose one with --from (input.0, input.1); in Python: source=") == ""
    assert in_python.note("choose --to, --to or --log") == "In Python: layer= for --to."


def test_what_notes_name_is_there() -> None:
    assert list(rf.record(NET).layers) == ["0", "1"]
    given = {p for name in rf.__all__ for p in inspect.signature(getattr(rf, name)).parameters}
    named = [word.rstrip("=") for word in in_python.SAME.values() if word.endswith("=")]
    assert len(named) > 5 and not set(named) - given
