"""The zoo's exceptions. Each message names the model, what was expected, what was given, and what to do next."""

from __future__ import annotations


class ZooError(RuntimeError):
    """Base class of the zoo's errors."""


class UnknownModelError(ZooError, LookupError):
    """No model, or no revision, has this name; the message suggests similar names."""


class UnsupportedError(ZooError):
    """Models of this family do not support the requested operation or file format; the message lists what they do."""


class RepositoryError(ZooError, ValueError):
    """A repository was refused before use: altered, incomplete, written by a newer version, or unsafe to read."""


class HubError(ZooError):
    """The hub cannot be reached, or it refused the request."""


class OptionError(ZooError, ValueError):
    """An option of a command has a value with which its work would fail; raised before any work.

    Attributes:
        exit_code: of the command.
    """

    exit_code = 2
