"""Where the service's log goes."""

from __future__ import annotations

import logging
import sys

__all__ = ["log_to_stderr"]


def log_to_stderr(who: str = "") -> None:
    """Send the log to standard error, where systemd and containers look for it.

    :param who: named in each line, where there are several.
    """
    handler = _Stderr()
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # What it says below that is about requests that are none, a line for each, with the address they came from.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Looks standard error up for each line: while there is a progress bar, that stands below the lines."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)
