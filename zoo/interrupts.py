"""Ctrl-C in the commands of `zoo` and `factory`: one line on stderr and exit code 130, never a traceback.

`zoo/__init__.py` and `factory/__init__.py` import this module before anything else. If the process is one of the
commands, Ctrl-C then ends it at once while its modules are imported, its arguments are parsed and the interpreter
shuts down, when there is nothing to clean up. In between, while `as_exceptions` is active, Ctrl-C raises
KeyboardInterrupt as usual. In every other process, importing this module changes nothing.
"""

import os
import signal
import sys

INTERRUPTED = 130  # 128 + SIGINT
PACKAGES = ("factory", "zoo")
CONSOLE_SCRIPT = "menagerie"
RETRY_S = 0.1


def command_name() -> str | None:
    """The command that this process was started as, such as "factory.render"; None for any other program.

    While `python -m` imports the parent package of its module, `sys.argv[0]` is "-m".
    """
    if sys.argv[:1] == ["-m"]:
        module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
        return module if module.partition(".")[0] in PACKAGES else None
    return CONSOLE_SCRIPT if sys.argv and os.path.basename(sys.argv[0]) == CONSOLE_SCRIPT else None


class _ExitHandler:
    """A handler of SIGINT that prints one line and ends the process, without unwinding the stack."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.silent = False  # after the command has reported its own end
        self.pid = os.getpid()

    def __call__(self, number: int, frame: object) -> None:
        if not self.silent and os.getpid() == self.pid:  # a forked process leaves the report to its parent
            try:
                os.write(2, f"\n{self.name}: stopped\n".encode())
            except OSError:
                pass  # stderr is closed
        os._exit(INTERRUPTED)


class as_exceptions:
    """Context manager in which Ctrl-C raises KeyboardInterrupt. It has no effect where `_install` had none.

    After it, Ctrl-C ends the process at once, and without a line of its own if the block was interrupted: the command
    reports that.
    """

    def __enter__(self) -> None:
        self.handler = signal.getsignal(signal.SIGINT)
        if isinstance(self.handler, _ExitHandler):
            sys.unraisablehook = _raise_again
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if isinstance(self.handler, _ExitHandler):
            self.handler.silent = kind is not None and issubclass(kind, KeyboardInterrupt)
            signal.signal(signal.SIGINT, self.handler)


def _raise_again(unraisable: "sys.UnraisableHookArgs") -> None:
    """Repeat a Ctrl-C that was raised where Python discards exceptions, such as in a destructor."""
    if not issubclass(unraisable.exc_type, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)
        return
    import threading

    threading.Timer(RETRY_S, signal.raise_signal, [signal.SIGINT]).start()


def _install() -> None:
    """Handle Ctrl-C if this process is a command, and unless its parent has had SIGINT ignored, as nohup does."""
    name = command_name()
    if name is not None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _ExitHandler(name))


_install()
