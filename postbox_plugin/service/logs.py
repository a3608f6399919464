"""Where the service's log goes."""

from __future__ import annotations

import logging

__all__ = ["log_to_stderr"]


def log_to_stderr(who: str = "") -> None:
    """Send the log to standard error, where systemd and containers look for it.

    :param who: named in each line, where there are several.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {who}%(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # What it says below that is about requests that are none, a line for each, with the address they came from.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)
