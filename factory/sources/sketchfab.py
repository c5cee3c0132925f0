"""Sketchfab's data API: what there is, what its authors allow today, and the files, with the user's token.

Objaverse's models come from Sketchfab too. Their authors could not forbid AI use when that collection was made (the
NoAI tag is younger), and some have withdrawn their models since, so that `ask` is asked about every one at build time.
"""

from __future__ import annotations

import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from factory.assets.licences import UNKNOWN, to_spdx
from factory.assets.record import AssetRecord
from factory.assets.sanitize import address, mapping, number, tags, text
from factory.sources.downloads import Cache, DeadLink, DownloadError
from factory.sources.source import Source, SourceError

TOKEN_VARIABLE = "SKETCHFAB_API_TOKEN"
URL_VARIABLE = "SKETCHFAB_API_URL"
UID = re.compile(r"[0-9a-f]{32}")

_PAGE = 24  # as many as a search gives at once
_LARGEST_UNZIPPED = 4 * 2**30
_REST_S = 60.0  # after the API could not be reached
_OWN_LICENCES = {  # slugs and labels of what is no open licence
    **dict.fromkeys(("st", "standard"), "LicenseRef-Sketchfab-Standard"),
    **dict.fromkeys(("ed", "editorial"), "LicenseRef-Sketchfab-Editorial"),
    **dict.fromkeys(("free-st", "free-standard", "free standard"), "LicenseRef-Sketchfab-Free-Standard"),
}
_unreachable_until: dict[str, float] = {}  # by the API's address


class SketchfabSource(Source):
    """`sketchfab://UID,UID`, `sketchfab://search?q=dragon` with the parameters of Sketchfab's search, or `sketchfab`.

    What is searched is animated and downloadable unless the parameters say otherwise. Files need the user's token in
    SKETCHFAB_API_TOKEN, on every machine of the cluster.
    """

    is_remote = True

    def __init__(self, uri: str) -> None:
        _, _, rest = uri.partition("://")
        named, _, query = rest.partition("?")
        self.parameters = {"animated": "true", "downloadable": "true"} | dict(parse_qsl(query))
        self.uids = [] if named in ("", "search") else named.split(",")
        for uid in self.uids:
            if not UID.fullmatch(uid):
                raise SourceError(f"source {uri!r}: {uid!r} is no Sketchfab uid (32 hexadecimal digits)")

    def list(self) -> Iterator[AssetRecord]:
        if not os.environ.get(TOKEN_VARIABLE):
            raise SourceError(
                f"source sketchfab: set {TOKEN_VARIABLE} to the API token of your Sketchfab account"
            )
        if self.uids:
            for uid in self.uids:
                try:
                    yield _record(ask(uid), uid)
                except DeadLink as error:
                    yield _record({}, uid, fault=f"dead: {error.reason}")
        else:
            yield from self._search()

    def _search(self) -> Iterator[AssetRecord]:
        query = urlencode({"type": "models", "count": _PAGE, **self.parameters})
        url = f"{_api()}/v3/search?{query}"
        seen: set[str] = set()
        while url and url not in seen:
            seen.add(url)
            page = mapping(Cache().ask(url))
            results = page.get("results")
            for result in results if isinstance(results, list) else ():
                yield _record(mapping(result), unsettled=True)
            following = address(page.get("next"))
            url = following if urlsplit(following).netloc == urlsplit(_api()).netloc else ""

    def check(self, record: AssetRecord) -> AssetRecord:
        return checked(record, _uid(record))

    def fetch(self, record: AssetRecord) -> Path:
        cache, uid = Cache(), _uid(record)
        names = {kind: f"{record.fingerprint} {kind}" for kind in ("glb", "gltf")}
        here = [kind for kind, name in names.items() if cache.find(name)]
        kind = here[0] if here else next((kind for kind in names if kind in _links(uid)), "")
        if not kind:
            raise DeadLink(uid, "no glTF to download")

        def link() -> str:
            return _links(uid).get(kind, "")  # good for some minutes, so asked for when it is needed

        file = cache.fetch(link, name=names[kind])
        if kind == "glb":
            return file
        folder = cache.tree(f"{names[kind]} unzipped", lambda folder: _unzip(file, folder, uid))
        models = sorted(folder.rglob("*.gltf"))
        if not models:
            raise DeadLink(uid, "no glTF in its archive")
        return models[0]


def ask(uid: str) -> dict[str, Any]:
    """What the API says of a model.

    Raises:
        DeadLink: it is gone. DownloadError: the API could not be asked.
    """
    if time.monotonic() < _unreachable_until.get(_api(), 0.0):
        raise DownloadError(f"{uid}: Sketchfab's API at {_api()} could not be reached a moment ago")
    try:
        return mapping(Cache().ask(f"{_api()}/v3/models/{uid}"))
    except DeadLink as error:
        raise DeadLink(uid, f"gone from Sketchfab, {error.reason}") from None
    except DownloadError:
        _unreachable_until[_api()] = time.monotonic() + _REST_S
        raise


def checked(record: AssetRecord, uid: str) -> AssetRecord:
    """A record with licence and NoAI as they are today. Raises as `ask` does."""
    said = ask(uid)
    return replace(
        record,
        licence=_licence_now(said, record.licence),
        noai=_noai(said),
        noai_checked_at=_today(),
        unsettled=False,
    )


def licence_of(said: Any) -> str:
    """SPDX for what the API or Objaverse's annotations give: a slug, a label, or an object with both."""
    names = [said.get(key) for key in ("slug", "label", "fullName")] if isinstance(said, dict) else [said]
    for name in filter(None, names):
        own = _OWN_LICENCES.get(name.strip().lower()) if isinstance(name, str) else None
        if (found := own or to_spdx(name)) != UNKNOWN:
            return found
    return UNKNOWN


def forbids_ai(words: tuple[str, ...]) -> bool:
    """Whether one of the tags is NoAI, however it is spelt."""
    return any(re.sub(r"[^a-z0-9]", "", word) == "noai" for word in words)


def _record(said: dict[str, Any], uid: str = "", *, unsettled: bool = False, fault: str = "") -> AssetRecord:
    named = said.get("uid")
    uid = uid or (named if isinstance(named, str) and UID.fullmatch(named) else "")
    user = mapping(said.get("user"))
    changed = text(said.get("updatedAt") or said.get("publishedAt"), 40)
    if not fault and not uid:
        fault = "malformed: no uid"
    elif not fault and said.get("isDownloadable") is False:
        fault = "dead: not downloadable"
    return AssetRecord(
        uid=uid or text(named),
        source="sketchfab",
        location=f"sketchfab://{uid}",
        fingerprint=f"sketchfab:{uid}:{changed}",
        title=text(said.get("name")),
        author=text(user.get("displayName")) or text(user.get("username")),
        source_url=address(said.get("viewerUrl")) or f"https://sketchfab.com/3d-models/{uid}",
        licence=licence_of(said.get("license")),
        noai="yes" if forbids_ai(tags(said.get("tags"))) else "unknown" if unsettled else _noai(said),
        noai_checked_at="" if unsettled else _today(),
        tags=tags(said.get("tags")),
        animations=number(said.get("animationCount")),
        faces=number(said.get("faceCount")),
        unsettled=unsettled,
        fault=fault,
    )


def _licence_now(said: dict[str, Any], before: str) -> str:
    now = licence_of(said.get("license"))
    return now if now != UNKNOWN else before


def _noai(said: dict[str, Any]) -> str:
    if not isinstance(said.get("tags"), list):
        return "unknown"
    return "yes" if forbids_ai(tags(said["tags"])) else "no"


def _links(uid: str) -> dict[str, str]:
    """Kind of file → short-lived address, for kinds that can be rendered."""
    token = os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise DownloadError(f"{uid}: set {TOKEN_VARIABLE} on every machine of the cluster")
    try:
        answer = mapping(
            Cache().ask(
                f"{_api()}/v3/models/{quote(uid)}/download", headers={"Authorization": f"Token {token}"}
            )
        )
    except DeadLink as error:
        if error.reason == "HTTP 401":
            raise DownloadError(f"{uid}: Sketchfab does not accept the token in {TOKEN_VARIABLE}") from None
        raise DeadLink(uid, f"no download from Sketchfab, {error.reason}") from None
    links = {kind: address(mapping(answer.get(kind)).get("url")) for kind in ("glb", "gltf")}
    return {kind: url for kind, url in links.items() if url}


def _unzip(archive: Path, folder: Path, uid: str) -> None:
    """Unpack below `folder` and nowhere else, and no more than is sane."""
    try:
        with zipfile.ZipFile(archive) as content:
            left = _LARGEST_UNZIPPED
            for entry in content.infolist():
                path = PurePosixPath(entry.filename.replace("\\", "/"))
                if entry.is_dir() or path.is_absolute() or ".." in path.parts or not path.parts:
                    continue
                left -= entry.file_size
                if left < 0:
                    raise DeadLink(uid, "its archive unpacks to more than 4 GiB")
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(entry) as packed, target.open("xb") as file:
                    shutil.copyfileobj(packed, file)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # zipfile's, of a compression it does not know
        RuntimeError,  # zipfile's, of an archive with a password
        FileExistsError,
    ) as error:
        raise DeadLink(uid, f"its archive cannot be unpacked ({type(error).__name__})") from None


def _uid(record: AssetRecord) -> str:
    return record.location.partition("://")[2].partition("?")[0]


def _api() -> str:
    return os.environ.get(URL_VARIABLE, "https://api.sketchfab.com").rstrip("/")


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
