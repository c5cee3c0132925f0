"""The zoo's exceptions. Each message names the model, what was expected, what was given, and what to do next."""

from __future__ import annotations


class ZooError(RuntimeError):
    """Base class of the zoo's errors."""


class UnknownModelError(ZooError, LookupError):
    """No model, or no revision, has this name; the message suggests similar names."""


class SentenceWarning(UserWarning):
    """Nothing that a model was trained on fits a sentence."""


class UnsupportedError(ZooError, ValueError):
    """The model or its family does not support this operation or file format; the message lists what it does."""


class RepositoryError(ZooError, ValueError):
    """A repository was refused before use: altered, incomplete, written by a newer version, or unsafe to read."""


class HubError(ZooError):
    """The hub cannot be reached, or it refused the request.

    Attributes:
        status: HTTP status of its answer; None if there was none.
        reached: False if no connection to it could be made.
    """

    def __init__(self, message: str, *, status: int | None = None, reached: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.reached = reached


class PlacementError(ZooError, ValueError):
    """A model cannot be moved: the device does not exist, or the type is not a precision that models compute in."""


class OptionError(ZooError, ValueError):
    """An option of a command has a value with which its work would fail; raised before any work.

    Attributes:
        exit_code: of the command.
    """

    exit_code = 2


class ModelError(ZooError, ValueError):
    """A 3D model cannot be used or written: not readable, empty, too large, or of another kind than expected."""
