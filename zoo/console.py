"""Errors at the command line: one sentence on standard error, and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from zoo.errors import UnsupportedError, ZooError
from zoo.terminal import printable

FAILED, NOT_AVAILABLE, INTERRUPTED = 1, 2, 130


def run_command(program: str, command: Callable[[], None]) -> int:
    """Run a command and report its errors.

    Args:
        program: printed before the error message.
        command: does the work and prints results to standard output.

    Returns:
        The exit code: 0 on success, 1 on failure, 2 for names, arguments and operations that are not available, 130
        when interrupted. Errors of other types are bugs and propagate with their traceback.
    """
    try:
        command()
    except KeyboardInterrupt:
        return INTERRUPTED
    except (ZooError, LookupError, ValueError, RuntimeError, OSError) as error:
        if isinstance(error, KeyError | IndexError):
            raise
        print(f"{program}: {describe(error)}", file=sys.stderr)
        return NOT_AVAILABLE if isinstance(error, UnsupportedError | LookupError) else FAILED
    return 0


def describe(error: BaseException) -> str:
    """The message of an error on one line; for errors of the operating system, the file and the reason."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return printable(f"{error.filename}: {error.strerror}")
    return printable(" ".join(str(error).split())) or type(error).__name__
