"""Notices about waiting, so that a command that waits for another process is not silent.

They are log records of the logger "cluster" at level WARNING: by default Python prints them on stderr, and a command
may show them in its own way.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

FIRST_S = 10.0
EVERY_S = 20.0

logger = logging.getLogger("cluster")


@contextmanager
def waiting_notices(awaited: str, detail: str = "") -> Iterator[None]:
    """Log what is being waited for while the block runs: after `FIRST_S` seconds, then every `EVERY_S` seconds.

    Args:
        awaited: completes "waiting for …".
        detail: appended in parentheses, beside the time waited so far.
    """
    start, stop = time.monotonic(), threading.Event()

    def notify() -> None:
        pause = FIRST_S
        while not stop.wait(pause):
            facts = ", ".join(filter(None, [detail, f"{time.monotonic() - start:.0f} s so far"]))
            logger.warning("waiting for %s (%s)", awaited, facts)
            pause = EVERY_S

    thread = threading.Thread(target=notify, name="waiting-notices", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
