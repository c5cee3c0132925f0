"""Failures of the Hugging Face hub and of its cache on this machine, each as a sentence with the next step."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from zoo.errors import HubError, UnknownModelError, ZooError

_REASON_LENGTH = 300  # characters of a client's message that are kept
_FULL = (errno.ENOSPC, errno.EDQUOT)
_AGAIN = "run the same command again"
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def explain(
    error: BaseException, name: str, *, kind: str = "model", writing: bool = False, advise: bool = True
) -> ZooError:
    """The error of the zoo for an exception of the hub's client, of its HTTP library or of the file system.

    Args:
        error: raised while a repository was read or written.
        name: of the repository, "org/name".
        kind: "model" or "dataset".
        writing: whether it was being published.
        advise: add what to do.

    Returns:
        `UnknownModelError` if there is no such repository or revision, `HubError` if the hub failed or refused,
        `ZooError` if a file on this machine could not be written or read.
    """
    from huggingface_hub import constants, errors

    causes = tuple(_causes(error))
    if any(isinstance(cause, errors.RevisionNotFoundError) for cause in causes):
        return UnknownModelError(f"the hub has {name}, but not in that revision")
    status = status_of(error)
    if status == 404 or (status == 401 and not _has_token()):
        if not writing and any(type(cause) is errors.RepositoryNotFoundError for cause in causes):
            return UnknownModelError(f"not on the hub {constants.ENDPOINT}, or private: {LOGIN}")
    if (local := disk_error(error)) is not None:
        problem, advice = _disk(local, name, constants.HF_HUB_CACHE, writing)
        return ZooError(f"{problem}: {advice}" if advise else problem)
    page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{name}"
    hub = f"{name}: the hub {constants.ENDPOINT}"
    if any(isinstance(cause, errors.GatedRepoError) for cause in causes):
        hub, problem = name, f"is gated on the hub {constants.ENDPOINT}, its authors give access on request"
        advice = _request_access(page)
    elif status is not None:
        problem, advice = _refused(status, error, name.partition("/")[0], page, writing)
    else:
        problem, advice = _failed(error)
    sentence = f"{hub} {problem}" + (f": {advice}" if advise else "")
    return HubError(sentence, status=status, reached=not is_unreachable(error))


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
    names = _class_names(error)
    return is_offline(error) or (
        status_of(error) is None and bool(names & {"ConnectError", "ConnectTimeout"})
    )


def is_of_client(error: BaseException) -> bool:
    """Whether an exception is of the hub's client, its HTTP library or its JSON, and not of the file system."""
    names = {cls.__module__.partition(".")[0] for cause in _causes(error) for cls in type(cause).__mro__}
    return bool(names & {"huggingface_hub", "httpx", "httpx2", "httpcore", "json", "requests"})


def disk_error(error: BaseException) -> OSError | None:
    """The failure of a file system that an exception is due to; those of a network name no file."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and getattr(cause, "response", None) is None and cause.errno:
            if cause.errno in _FULL or cause.filename:
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


def _disk(error: OSError, name: str, cache: str, writing: bool) -> tuple[str, str]:
    reason = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    if writing:
        return (
            f"{name} was not published ({reason})",
            "repair the disk, and publish again, which continues",
        )
    advice = "free some space there" if error.errno in _FULL else "make it writable"
    problem = f"{name} cannot be stored in the cache of the hub's client, {cache} ({reason})"
    return problem, f"{advice}, or choose another folder with HF_HOME"


def _request_access(page: str) -> str:
    if _has_token():
        return f"ask for it on {page} with the account of your token, and run the same command again"
    return f"ask for it on {page}, then {LOGIN}"


def _refused(
    status: int, error: BaseException, organisation: str, page: str, writing: bool
) -> tuple[str, str]:
    """What an HTTP status means, and what to do."""
    token = "a token with write access" if writing else "a valid token"
    answer = f"(HTTP {status})"
    if status == 401 and not _has_token():
        return f"requires an account {answer}", f"{LOGIN} to {token}"
    if status == 401:
        return (
            f"did not accept the token, which is expired, revoked or mistyped {answer}",
            f"{LOGIN} to {token}",
        )
    if status in (403, 404) and writing:
        return (
            f"does not let this account publish there {answer}",
            f"{LOGIN} to {token}, of an account that may write to {organisation!r}",
        )
    if status in (403, 404):
        return (
            f"does not give access {answer}",
            f"ask its owner on {page}, or use an account that has it (`hf auth login`, HF_TOKEN)",
        )
    if status in (409, 412) and writing:
        return f"was changed by another process at the same time {answer}", "publish again"
    if status == 429:
        more = "" if _has_token() else f"; with an account the limit is higher: {LOGIN}"
        return f"limits the number of requests {answer}", f"wait {_wait(error)}, and {_AGAIN}{more}"
    if status >= 500:
        return f"has a failure of its own {answer}", f"{_AGAIN} later; nothing is lost"
    if status == 416:
        return f"does not have a part of a file, which was changed meanwhile {answer}", _AGAIN
    message = next((m for cause in _causes(error) if (m := getattr(cause, "server_message", None))), "")
    return f"failed{message and f' with {message!r}'} {answer}", f"{_AGAIN}; nothing is lost"


def _wait(error: BaseException) -> str:
    seconds = _response(error).headers.get("Retry-After", "")
    return f"{seconds} s" if seconds.isdigit() else "some minutes"


def _failed(error: BaseException) -> tuple[str, str]:
    """A failure without an HTTP status: of the connection, or of what was received."""
    reason, names = _reason(error), _class_names(error)
    if is_offline(error):
        return "is not asked, since HF_HUB_OFFLINE=1 is set", f"unset it, and {_AGAIN}"
    if is_unreachable(error):
        return f"cannot be reached ({reason})", f"check the connection and the proxy, and {_AGAIN}"
    if "TimeoutException" in names:
        return f"did not answer in time ({reason})", f"check the connection, and {_AGAIN}; nothing is lost"
    if "JSONDecodeError" in names:
        return f"sent an answer that cannot be read ({reason})", f"{_AGAIN}; nothing is lost"
    if "Consistency check failed" in reason:
        return "sent a file of another size than it announced", f"{_AGAIN}; nothing is lost"
    if names & {"RemoteProtocolError", "ReadError", "WriteError", "IncompleteRead"}:
        return f"cut the connection ({reason})", f"{_AGAIN}; nothing is lost"
    return f"failed ({reason})", f"check the connection, and {_AGAIN}; nothing is lost"


def _class_names(error: BaseException) -> set[str]:
    return {cls.__name__ for cause in _causes(error) for cls in type(cause).__mro__}


def _reason(error: BaseException) -> str:
    """The message of the first cause that is specific: the client wraps some errors in advice of its own."""
    causes = [cause for cause in _causes(error) if type(cause).__name__ != "LocalEntryNotFoundError"]
    text = str((causes or [error])[0])
    return " ".join(text.split())[:_REASON_LENGTH].rstrip(".:") or type(error).__name__
