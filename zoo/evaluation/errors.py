"""Errors of evaluations."""

from __future__ import annotations

from zoo.errors import ZooError


class EvaluationError(ZooError, ValueError):
    """A protocol, a truth or a result cannot be used; the message says why and what to do."""


class TruthError(EvaluationError):
    """The truth is missing, or is another one than the protocol's; the message has the command that makes it."""
