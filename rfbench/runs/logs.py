"""Messages of the logger "rfbench" on stderr, as plain lines above a progress bar."""

import logging
import os
import sys

from tqdm import tqdm


class Stderr(logging.Handler):
    """Writes to whatever sys.stderr is at the time, and moves progress bars out of the way."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        try:
            with tqdm.external_write_mode():
                print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


def to_stderr(level: int = logging.INFO) -> None:
    """Print the package's messages; of several processes (RANK) only the first one prints."""
    logger = logging.getLogger("rfbench")
    logger.setLevel(level)
    # without any handler logging itself would print warnings
    first = os.environ.get("RANK", "0") == "0"
    mine: logging.Handler = Stderr() if first else logging.NullHandler()
    others = [h for h in logger.handlers if not isinstance(h, Stderr | logging.NullHandler)]
    logger.handlers = [*others, mine]
