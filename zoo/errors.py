"""What can go wrong with a model: every message says what was asked, what was found, and what to do next."""

from __future__ import annotations


class ZooError(RuntimeError):
    """Base of the zoo's errors."""


class UnknownModelError(ZooError, LookupError):
    """No model, or no revision, of that name; the message names close ones."""


class RepositoryError(ZooError, ValueError):
    """A repository was refused before anything of it was used: altered, incomplete, too new, or not safe to read."""


class HubError(ZooError):
    """The hub cannot be reached, or does not allow it."""
