"""Signal handling shared by `run` and `train_together`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, which cluster managers send to stop a job, as Ctrl-C inside the block.

    The previous handler is restored on exit. Outside the main thread this does nothing, because Python allows only
    the main thread to install signal handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
