"""Downloads, and the cache shared by all processes on a machine.

Below the cache folder (`MENAGERIE_CACHE`, by default `menagerie4d` in the user's cache folder):

    objects/<2 hex>/<sha256>    complete files, by content hash
    names/<2 hex>/<digest>.json mapping from a name (such as a URL) to an object
    trees/<digest>/             complete folders of files that belong together
    partial/                    unfinished downloads; an interrupted download resumes from here
    locks/, hosts/              one lock per name; the earliest time of the next request to each host

Locks use flock, so the kernel releases them when their process ends. The folder can be deleted at any time.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from cluster import atomic_path
from factory.assets.sanitize import parse

if TYPE_CHECKING:
    import requests


CACHE_VARIABLE = "MENAGERIE_CACHE"
MIRROR_VARIABLE = "MENAGERIE_MIRROR"  # if set, https://host/path is requested as <mirror>/host/path
_TRIES = 5  # consecutive attempts without progress
_BACK_OFF_S = 0.25  # doubled after every failed attempt
_LONGEST_WAIT_S = 300.0  # longest Retry-After that is waited for
_TIMEOUT_S = (15.0, 60.0)  # (connect, read) timeouts
_LARGEST_FILE = 4 * 2**30
_LARGEST_ANSWER = 32 * 2**20
_PIECE = 1 << 14  # bytes per read; at most this much is lost when the connection breaks
_INTERVALS_S = {"api.sketchfab.com": 0.25}  # minimum time between two requests from this machine
_INTERVAL_S = 0.05
_LOOPBACK = ("127.0.0.1", "localhost")
Link = str | Callable[[], str]
_T = TypeVar("_T")


class DownloadError(OSError):
    """A download failed. It may succeed if retried later; the message says how."""


class DeadLink(DownloadError):
    """The file does not exist at its URL. `reason` is short and identical for identical causes, e.g. "HTTP 404"."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: dead link ({reason})")
        self.reason = reason


class WrongChecksum(DownloadError):
    """The downloaded file has a different checksum than listed, in two attempts."""


class _InVain(Exception):
    """One attempt failed.

    `held`: the host requested a delay. `fatal`: the error to raise unless the link can be renewed.
    """

    def __init__(self, cause: str, *, held: bool = False, fatal: DownloadError | None = None) -> None:
        super().__init__(cause)
        self.held, self.fatal = held, fatal


class Cache:
    """A file cache shared by processes. It stays consistent if a process is killed at any time."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        chosen = root or os.environ.get(CACHE_VARIABLE)
        default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "menagerie4d")
        self.root = Path(chosen or default).absolute()

    # Reading

    def find(self, name: str, sha256: str = "") -> Path | None:
        """Return the cached file with this SHA-256, or with this name if no hash is given; None if it is not cached."""
        if sha256:
            path = self._object(sha256)
            return path if path.is_file() else None
        try:
            entry = json.loads(self._entry(name).read_bytes())
            path = self._object(entry["sha256"])
            return path if path.stat().st_size == entry["size"] else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    # Fetching

    def fetch(
        self,
        link: Link,
        *,
        name: str = "",
        sha256: str = "",
        headers: Mapping[str, str] | None = None,
        largest: int = _LARGEST_FILE,
    ) -> Path:
        """Download a file, or return it from the cache.

        Args:
            link: an http(s) URL, or a function that returns a short-lived one and is called again when it expires.
            name: permanent name of the content in the cache; default: the URL.
            sha256: expected hexadecimal checksum, if known. headers: extra request headers. largest: limit in bytes.

        Raises:
            DeadLink: the file does not exist. WrongChecksum: two downloads had another checksum.
            DownloadError: the download failed; `errno` is ENOSPC if the cache's disk is full.
        """
        if not name:
            if not isinstance(link, str):
                raise ValueError("Cache.fetch: a link given as a function needs a name")
            name = link
        if (found := self.find(name, sha256)) is not None:
            return found
        with self._writing(name), self._lock(name):
            if (found := self.find(name, sha256)) is not None:
                return found  # another process downloaded it meanwhile
            partial = self._partial(name)

            def read(url: str) -> None:
                self._read_file(url, name, dict(headers or {}), largest)

            for last in (False, True):
                _insist(link, name, read, lambda: partial.stat().st_size if partial.exists() else 0)
                actual = file_sha256(partial)
                if not sha256 or actual == sha256:
                    return self._keep(name, partial, actual)
                size = partial.stat().st_size
                self._drop_partial(name)
                if last:
                    raise WrongChecksum(
                        f"{name}: wrong checksum: expected sha256 {sha256}, got {actual} ({size} bytes), twice; "
                        f"it has changed since it was listed"
                    )
        raise AssertionError("unreachable")

    def ask(self, url: str, *, headers: Mapping[str, str] | None = None) -> Any:
        """Request JSON from an API, without caching. Raises the same errors as `fetch`."""

        def read(url: str) -> Any:
            with self._request(url, dict(headers or {})) as response:
                _check(response, url)
                data = b"".join(_pieces(response, _LARGEST_ANSWER, url))
            try:
                return parse(data)
            except (ValueError, RecursionError):
                raise _InVain("the response is not JSON") from None

        with self._writing(url):
            return _insist(url, url, read)

    def _read_file(self, url: str, name: str, headers: dict[str, str], largest: int) -> None:
        """Make one attempt to complete the partial file. Raises `_InVain` if the attempt fails."""
        partial, note = self._partial(name), self._partial(name).with_suffix(".json")
        validator = _read_text(note)
        have = partial.stat().st_size if partial.exists() else 0
        if have and validator:  # without a validator the rest might belong to a newer version
            headers = headers | {"Range": f"bytes={have}-", "If-Range": validator}
        with self._request(url, headers) as response:
            if response.status_code == 416:  # the partial file is complete, or the remote file is now shorter
                if response.headers.get("Content-Range", "").endswith(f"/{have}"):
                    return
                self._drop_partial(name)
                raise _InVain("HTTP 416")
            _check(response, name)
            start = have if response.status_code == 206 and _starts_at(response) == have else 0
            if response.status_code == 206 and start != have:
                self._drop_partial(name)
                raise _InVain("the response has a different range than requested")
            if not start:
                partial.unlink(missing_ok=True)
                etag = response.headers.get("ETag", "")
                weak = not etag or etag.startswith("W/")
                _write_whole(note, (response.headers.get("Last-Modified", "") if weak else etag).encode())
            with partial.open("ab") as file:
                for piece in _pieces(response, largest - start, name):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())

    @contextmanager
    def _request(self, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
        """Open a streaming response, after waiting until the host may be contacted."""
        import requests

        mirror = os.environ.get(MIRROR_VARIABLE)
        if mirror and url.startswith("https://") and "Authorization" not in headers:
            url = f"{mirror.rstrip('/')}/{url.removeprefix('https://')}"
        host = _host(url)
        self._wait_for(host)
        try:
            with requests.get(
                url,
                headers={"Accept-Encoding": "identity", "User-Agent": "menagerie4d", **headers},
                stream=True,
                timeout=_TIMEOUT_S,
            ) as response:
                if response.status_code in (429, 503):
                    self._hold(host, _retry_after(response))
                yield response
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema):
            raise DeadLink(host, "no http(s) address") from None
        except requests.RequestException as error:
            raise _InVain(type(error).__name__) from None  # its message may contain a signed URL

    # Rate limits: one file per host with the earliest time of the next request, in seconds since the epoch

    def _wait_for(self, host: str) -> None:
        interval = 0.0 if host in _LOOPBACK else _INTERVALS_S.get(host, _INTERVAL_S)
        with self._host_file(host) as file:
            now = time.time()
            at = max(now, _number(file.read()))
            wait = at - now
            if wait <= _LONGEST_WAIT_S:
                _rewrite(file, at + interval)
        if wait > _LONGEST_WAIT_S:
            raise DownloadError(
                f"{host}: rate limit ends in {wait:.0f} s, longer than the maximum wait of {_LONGEST_WAIT_S:g} s; "
                f"run the same command later with --retry-quarantined"
            )
        time.sleep(wait)

    def _hold(self, host: str, seconds: float) -> None:
        """Delay requests of all processes on this machine to a host."""
        with self._host_file(host) as file:
            _rewrite(file, max(_number(file.read()), time.time() + seconds))

    @contextmanager
    def _host_file(self, host: str) -> Iterator[IO[str]]:
        path = self.root / "hosts" / _digest(host)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            yield file

    # Storing

    def tree(self, name: str, build: Callable[[Path], None]) -> Path:
        """Return a cached folder, filled by `build` on the first call. An incomplete folder is never visible."""
        target = self.root / "trees" / _digest(name)
        if target.is_dir():
            return target
        with self._writing(name), self._lock(name):
            if target.is_dir():
                return target
            unfinished = self.root / "partial" / f"{_digest(name)}.tree"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            build(unfinished)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(unfinished, target)
        return target

    def make(self, name: str, build: Callable[[Path], None]) -> Path:
        """Return a cached file, written by `build` on the first call."""
        if (found := self.find(name)) is not None:
            return found
        with self._writing(name), self._lock(name):
            if (found := self.find(name)) is not None:
                return found
            self._drop_partial(name)
            build(self._partial(name))
            return self._keep(name, self._partial(name), file_sha256(self._partial(name)))

    def _keep(self, name: str, partial: Path, sha256: str) -> Path:
        target, entry = self._object(sha256), self._entry(name)
        size = partial.stat().st_size
        for path in (target, entry):
            path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(partial, target)
        _write_whole(entry, json.dumps({"name": name, "sha256": sha256, "size": size}).encode())
        self._drop_partial(name)
        return target

    def _drop_partial(self, name: str) -> None:
        for suffix in ("", ".json"):
            self._partial(name).with_suffix(suffix).unlink(missing_ok=True)

    def _object(self, sha256: str) -> Path:
        return self.root / "objects" / sha256[:2] / sha256

    def _entry(self, name: str) -> Path:
        digest = _digest(name)
        return self.root / "names" / digest[:2] / f"{digest}.json"

    def _partial(self, name: str) -> Path:
        return self.root / "partial" / _digest(name)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        path = self.root / "locks" / _digest(name)
        for folder in (path.parent, self.root / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        """Turn "disk full" and "permission denied" into a `DownloadError` that names the cache, keeping `errno`."""
        try:
            yield
        except DownloadError:
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
                raise
            raise DownloadError(
                error.errno,
                f"{name}: cannot be written to the cache {self.root} ({error.strerror}); free space there "
                f"or set {CACHE_VARIABLE}",
            ) from None


def hub_address(repository: str, path: str) -> str:
    """Return the download URL of a file in a dataset repository (`owner/name`) on the hub, or at `HF_ENDPOINT`."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{endpoint}/datasets/{repository}/resolve/main/{path}"


def file_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _insist(link: Link, name: str, read: Callable[[str], _T], have: Callable[[], int] = lambda: 0) -> _T:
    """Call `read` with the URL until it succeeds, with exponential back-off between failed attempts.

    `have` returns the number of bytes received so far; progress resets the count of failed attempts.
    """
    in_vain, furthest = 0.0, have()
    while True:
        try:
            return read(link if isinstance(link, str) else link())
        except _InVain as error:
            if error.fatal is not None and isinstance(link, str):
                raise error.fatal from None
            # Throttled attempts count least, as they are frequent with many workers; a link is renewed once or twice.
            in_vain += 0.25 if error.held else 2.0 if error.fatal else 1.0
            if have() > furthest:
                in_vain, furthest = 0.0, have()
            if in_vain >= _TRIES:
                raise error.fatal or DownloadError(
                    f"{name}: download failed after {_TRIES} attempts ({error}); run the same command later, "
                    f"with --retry-quarantined"
                ) from None
            if not error.held:  # jitter keeps workers from retrying simultaneously
                time.sleep(_BACK_OFF_S * 2**in_vain * random.uniform(0.5, 1.0))


def _check(response: requests.Response, name: str) -> None:
    """Raise unless the status is 200 or 206."""
    status = response.status_code
    if status in (200, 206):
        return
    temporary = status in (408, 425, 429) or status >= 500
    raise _InVain(
        f"HTTP {status}",
        held=status in (429, 503),
        fatal=None if temporary else DeadLink(name, f"HTTP {status}"),
    )


def _pieces(response: requests.Response, largest: int, name: str) -> Iterator[bytes]:
    for piece in response.iter_content(_PIECE):
        largest -= len(piece)
        if largest < 0:
            raise DownloadError(
                f"{name}: exceeds the size limit for downloads; inspect the file before raising the limit"
            )
        yield piece


def _starts_at(response: requests.Response) -> int:
    """Return the offset of a partial response; -1 if it has no Content-Range."""
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _retry_after(response: requests.Response) -> float:
    """Return the delay in seconds requested by the host; 1 if it specifies none."""
    text = response.headers.get("Retry-After", "")
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return 1.0


def _write_whole(path: Path, data: bytes) -> None:
    with atomic_path(path) as part:
        part.write_bytes(data)


def _read_text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _rewrite(file: IO[str], number: float) -> None:
    file.seek(0)
    file.truncate()
    file.write(f"{number:.3f}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname:
            return parts.hostname
    except ValueError:
        pass
    raise DeadLink(url[:200], "no http(s) address")


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
