"""Failures of the Hugging Face hub and of its cache on this machine, each as a sentence with the next step."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from zoo.errors import HubError, UnknownModelError, ZooError

_REASON_LENGTH = 300  # characters of a client's message that are kept
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM)
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def explain(error: BaseException, name: str, *, kind: str = "model", writing: bool = False) -> ZooError:
    """The error of the zoo for an exception of the hub's client, of its HTTP library or of the file system.

    Args:
        error: raised while a repository was read or written.
        name: of the repository, "org/name".
        kind: "model" or "dataset".
        writing: whether it was being published.

    Returns:
        `UnknownModelError` if there is no such repository or revision, `HubError` with the HTTP status if the hub
        failed or refused, `ZooError` if a file on this machine could not be written or read.
    """
    from huggingface_hub import constants, errors

    if (local := disk_error(error)) is not None:
        return ZooError(_disk(local, name, constants.HF_HUB_CACHE, writing))
    status, hub = status_of(error), f"{name}: the hub {constants.ENDPOINT}"
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    causes = tuple(_causes(error))
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return UnknownModelError(f"the hub has {name}, but not in that revision")
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        return HubError(_gated(name, page), status=status)
    if status in (401, 404) and not writing and not (status == 401 and _has_token()):
        if any(isinstance(cause, errors.RepositoryNotFoundError) for cause in causes):
            return UnknownModelError(f"not on the hub {constants.ENDPOINT}, or private: {LOGIN}")
    if status is not None:
        sentence = _refused(status, error, name.partition("/")[0], page, writing)
        return HubError(f"{hub} {sentence}", status=status)
    if any(isinstance(cause, errors.OfflineModeIsEnabled) for cause in causes):
        return HubError(
            f"{hub} is not asked: HF_HUB_OFFLINE=1 is set; unset it, and run the same command again"
        )
    return HubError(f"{hub} {_failed(error)}")


def is_outage(error: BaseException) -> bool:
    """Whether the hub could not be asked, or could not answer: what is in its cache can be used meanwhile."""
    if disk_error(error) is not None:
        return True
    if not isinstance(error, OSError) and not is_of_client(error):
        return False
    status = status_of(error)
    return status is None or status in (408, 416, 429) or status >= 500


def is_offline(error: BaseException) -> bool:
    """Whether the client was told not to use the network."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return any(isinstance(cause, OfflineModeIsEnabled) for cause in _causes(error))


def is_unreachable(error: BaseException) -> bool:
    """Whether no connection to the hub could be made, or the client was told not to make one."""
    names = {cls.__name__ for cause in _causes(error) for cls in type(cause).__mro__}
    return is_offline(error) or (status_of(error) is None and "ConnectError" in names)


def is_of_client(error: BaseException) -> bool:
    """Whether an exception is of the hub's client or of its HTTP library, and not of the file system or a parser."""
    names = {cls.__module__.partition(".")[0] for cause in _causes(error) for cls in type(cause).__mro__}
    return bool(names & {"huggingface_hub", "httpx", "httpx2", "httpcore", "requests"})


def disk_error(error: BaseException) -> OSError | None:
    """The full or locked disk that an exception is due to."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and getattr(cause, "response", None) is None:
            if cause.errno in _FULL or (cause.errno in _LOCKED and cause.filename):
                return cause
    return None


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an error of the client, or of an error that it wraps."""
    response = _response(error)
    return None if response is None else int(response.status_code)


def _response(error: BaseException) -> Any:
    return next((r for cause in _causes(error) if (r := getattr(cause, "response", None)) is not None), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def _disk(error: OSError, name: str, cache: str, writing: bool) -> str:
    reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if writing:
        return f"{name} was not published: {reason}. The hub is unchanged; repair the disk, and publish again"
    advice = "free some space there" if error.errno in _FULL else "make it writable"
    return (
        f"{name} cannot be stored in the cache of the hub's client, {cache} ({reason}): {advice}, or choose another "
        f"folder with HF_HOME"
    )


def _gated(name: str, page: str) -> str:
    granted = (
        "with the account of your token, and run the same command again" if _has_token() else f"then {LOGIN}"
    )
    return f"{name} is gated, its authors give access on request: ask for it on {page}, {granted}"


def _refused(status: int, error: BaseException, organisation: str, page: str, writing: bool) -> str:
    """What an HTTP status means, and what to do."""
    token = "a token with write access" if writing else "a valid token"
    if status == 401 and not _has_token():
        return f"requires an account (HTTP 401): {LOGIN} to {token}"
    if status == 401:
        return f"did not accept the token (HTTP 401), it is expired, revoked or mistyped: {LOGIN} to {token}"
    if status in (403, 404) and writing:
        return (
            f"does not let this account publish there (HTTP {status}): {LOGIN} to {token}, of an account that may "
            f"write to {organisation!r}"
        )
    if status in (403, 404):
        return f"does not give access (HTTP {status}): ask its owner on {page}, or {LOGIN} of an account that has it"
    if status in (409, 412):
        return f"was changed by another process at the same time (HTTP {status}); publish again"
    if status == 429:
        more = "" if _has_token() else f"; with an account the limit is higher: {LOGIN}"
        return f"limits the number of requests (HTTP 429): wait {_wait(error)}, and run the same command again{more}"
    if status >= 500:
        return f"has a failure of its own (HTTP {status}): run the same command again later; nothing is lost"
    if status == 416:
        return "does not have a part of a file (HTTP 416), which was changed meanwhile: run the same command again"
    return f"failed (HTTP {status}): {_reason(error)}; run the same command again, nothing is lost"


def _wait(error: BaseException) -> str:
    seconds = _response(error).headers.get("Retry-After", "")
    return f"{seconds} s" if seconds.isdigit() else "some minutes"


def _failed(error: BaseException) -> str:
    """A failure without an HTTP status: of the connection, or what was received."""
    reason = _reason(error)
    names = {cls.__name__ for cause in _causes(error) for cls in type(cause).__mro__}
    again = "run the same command again; nothing is lost"
    if "TimeoutException" in names or "TimeoutError" in names:
        return f"did not answer in time ({reason}): check the connection, and {again}"
    if "ConnectError" in names or "ConnectionError" in names:
        return f"cannot be reached ({reason}): check the connection and the proxy, and {again}"
    if "Consistency check failed" in reason:
        return f"sent a file of another size than announced, the download was cut off or the file damaged: {again}"
    if names & {"RemoteProtocolError", "ReadError", "WriteError", "IncompleteRead"}:
        return f"cut the connection ({reason}): {again}"
    return f"failed: {reason}; check the connection and {again}"


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:_REASON_LENGTH] or type(error).__name__
