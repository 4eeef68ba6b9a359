"""Messages of the logger "rfbench" on stderr, as plain lines above a progress bar."""

import logging
import os
import sys

from tqdm import tqdm

from rfbench.errors import printable


class Stderr(logging.Handler):
    """Writes to the current sys.stderr, above any progress bars.

    A message is one line, whatever names it holds, unless it says `extra={"lines": True}`. One
    that says `extra={"once": True}` is written once a command.
    """

    def __init__(self) -> None:
        super().__init__()
        self.said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        if getattr(record, "once", False):
            if record.getMessage() in self.said:
                return
            self.said.add(record.getMessage())
        try:
            with tqdm.external_write_mode():
                lines = getattr(record, "lines", False)
                print(printable(self.format(record), lines), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def to_stderr(level: int = logging.INFO) -> None:
    """Print the package's messages; with several processes only the first (by RANK) prints."""
    logger = logging.getLogger("rfbench")
    logger.setLevel(level)
    # without a handler, logging would print warnings itself
    first = os.environ.get("RANK", "0") == "0"
    own: logging.Handler = Stderr() if first else logging.NullHandler()
    others = [h for h in logger.handlers if not isinstance(h, Stderr | logging.NullHandler)]
    logger.handlers = [*others, own]
