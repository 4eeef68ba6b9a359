"""Messages of the logger "rfbench" on stderr, as plain lines above a progress bar."""

import logging
import os
import sys

from tqdm import tqdm

from rfbench.errors import printable


class Stderr(logging.Handler):
    """Writes to the current sys.stderr, above any progress bars.

    A message is one line, whatever names it holds, unless it says `extra={"lines": True}`.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
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
