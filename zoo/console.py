"""Errors at the command line: one sentence on standard error, and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from renderers.files import is_disk_full
from zoo.errors import UnsupportedError, ZooError
from zoo.interrupts import INTERRUPTED, as_exceptions
from zoo.terminal import printable

FAILED, NOT_AVAILABLE, BROKEN_PIPE = 1, 2, 141


def run_command(program: str, command: Callable[[], None]) -> int:
    """Run a command and report its errors.

    Args:
        program: printed before the error message.
        command: does the work and prints results to standard output.

    Returns:
        The exit code: 0 on success, 1 on failure, 2 for names, arguments and operations that are not available, 130
        when interrupted, 141 if the reader of standard output has ended. Errors of other types are bugs and propagate
        with their traceback.
    """
    try:
        with as_exceptions():
            command()
            sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"\n{program}: stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        return close_broken_pipe()
    except (ZooError, LookupError, ValueError, RuntimeError, OSError, ImportError, MemoryError) as error:
        if isinstance(error, KeyError | IndexError):
            raise
        print(f"{program}: {describe(error)}", file=sys.stderr)
        not_available = isinstance(error, UnsupportedError | LookupError)
        return getattr(error, "exit_code", NOT_AVAILABLE if not_available else FAILED)
    return 0


def describe(error: BaseException) -> str:
    """The message of an error on one line; for errors of the operating system, the file and the reason."""
    if isinstance(error, OSError) and is_disk_full(error):
        # Of a copy, filename is the source and filename2 the file that has no room.
        path = error.filename2 or error.filename
        text = f"{os.strerror(error.errno or 0)}: free some space, then run the same command again"
        return printable(f"{path}: {text}" if path else text)
    if isinstance(error, OSError) and error.strerror:
        return printable(f"{error.filename}: {error.strerror}" if error.filename else error.strerror)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"the package {error.name.partition('.')[0]} is not installed: install it with pip, or all of them "
            'with pip install "menagerie4d[all]"'
        )
    if isinstance(error, MemoryError):
        return f"not enough memory ({error})" if str(error) else "not enough memory"
    return printable(" ".join(str(error).split())) or type(error).__name__


def close_broken_pipe() -> int:
    """Discard the output that nobody reads any more, so that Python does not complain when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return BROKEN_PIPE
