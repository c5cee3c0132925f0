"""Sketchfab's data API: search, current licence and NoAI status, and downloads with the user's API token.

Objaverse's models also come from Sketchfab. The NoAI tag was introduced after Objaverse was compiled, and some authors
have withdrawn their models since, so the status of every Objaverse model is queried with `ask` before it is fetched.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, quote, urlencode, urlsplit

from factory.assets.licences import UNKNOWN, to_spdx
from factory.assets.record import AssetRecord
from factory.assets.sanitize import address, mapping, number, tags, text
from factory.sources.archives import unzip
from factory.sources.downloads import Cache, DeadLink, DownloadError
from factory.sources.source import Source, SourceError

TOKEN_VARIABLE = "SKETCHFAB_API_TOKEN"
URL_VARIABLE = "SKETCHFAB_API_URL"
UID = re.compile(r"[0-9a-f]{32}")

_PAGE = 24  # largest page size of the search API
_REST_S = 60.0  # no new queries for this long after the API was unreachable
_OWN_LICENCES = {  # slugs and labels of licences that are not open
    **dict.fromkeys(("st", "standard"), "LicenseRef-Sketchfab-Standard"),
    **dict.fromkeys(("ed", "editorial"), "LicenseRef-Sketchfab-Editorial"),
    **dict.fromkeys(("free-st", "free-standard", "free standard"), "LicenseRef-Sketchfab-Free-Standard"),
}
_unreachable_until: dict[str, float] = {}  # API URL → time.monotonic() value


class SketchfabSource(Source):
    """`sketchfab://UID,UID`, `sketchfab://search?q=dragon` with parameters of Sketchfab's search, or `sketchfab`.

    Searches are limited to animated, downloadable models unless the parameters override that. Downloads need the
    user's API token in SKETCHFAB_API_TOKEN on every machine of the cluster.
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
            return _links(uid).get(
                kind, ""
            )  # expires after a few minutes, so it is requested only when needed

        file = cache.fetch(link, name=names[kind])
        if kind == "glb":
            return file
        folder = cache.tree(f"{names[kind]} unzipped", lambda folder: unzip(file, folder, uid))
        models = sorted(folder.rglob("*.gltf"))
        if not models:
            raise DeadLink(uid, "no glTF in its archive")
        return models[0]


def ask(uid: str) -> dict[str, Any]:
    """Return the API's current metadata of a model.

    Raises:
        DeadLink: the model no longer exists.
        DownloadError: the API could not be reached.
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


class SketchfabMirror(Source):
    """A collection of Sketchfab's models: `scheme` for all of them, or `scheme://UID,UID` for some.

    Attributes:
        name: of the collection, in error messages.
        uids: the models that are named; empty if all are meant.
        path: of a model's file in the collection; "" unless the URI is a record's location.
    """

    is_remote = True
    name: str

    def __init__(self, uri: str) -> None:
        _, _, rest = uri.partition("://")
        named, _, query = rest.partition("?")
        self.uids = named.split(",") if named else []
        for uid in self.uids:
            if not UID.fullmatch(uid):
                raise SourceError(f"source {uri!r}: {uid!r} is no {self.name} uid (32 hexadecimal digits)")
        self.path = parse_qs(query).get("path", [""])[0]

    def check(self, record: AssetRecord) -> AssetRecord:
        return checked(record, self.uids[0])


def checked(record: AssetRecord, uid: str) -> AssetRecord:
    """Return the record with its current licence and NoAI status. Raises the same errors as `ask`."""
    metadata = ask(uid)
    return replace(
        record,
        licence=_licence_now(metadata, record.licence),
        noai=_noai(metadata),
        noai_checked_at=_today(),
        unsettled=False,
    )


def licence_of(value: Any) -> str:
    """Return the SPDX expression for a licence as given by the API or by Objaverse's annotations.

    Args:
        value: a slug, a label, or an object with the keys `slug`, `label` and `fullName`.

    Returns:
        The SPDX expression, or "unknown".
    """
    names = [value.get(key) for key in ("slug", "label", "fullName")] if isinstance(value, dict) else [value]
    for name in filter(None, names):
        own = _OWN_LICENCES.get(name.strip().lower()) if isinstance(name, str) else None
        if (licence := own or to_spdx(name)) != UNKNOWN:
            return licence
    return UNKNOWN


def forbids_ai(words: tuple[str, ...]) -> bool:
    """Return whether one of the tags is NoAI, ignoring case and punctuation."""
    return any(re.sub(r"[^a-z0-9]", "", word) == "noai" for word in words)


def _record(
    metadata: dict[str, Any], uid: str = "", *, unsettled: bool = False, fault: str = ""
) -> AssetRecord:
    named = metadata.get("uid")
    uid = uid or (named if isinstance(named, str) and UID.fullmatch(named) else "")
    user = mapping(metadata.get("user"))
    changed = text(metadata.get("updatedAt") or metadata.get("publishedAt"), 40)
    if not fault and not uid:
        fault = "malformed: no uid"
    elif not fault and metadata.get("isDownloadable") is False:
        fault = "dead: not downloadable"
    return AssetRecord(
        uid=uid or text(named),
        source="sketchfab",
        location=f"sketchfab://{uid}",
        fingerprint=f"sketchfab:{uid}:{changed}",
        title=text(metadata.get("name")),
        author=text(user.get("displayName")) or text(user.get("username")),
        source_url=address(metadata.get("viewerUrl")) or f"https://sketchfab.com/3d-models/{uid}",
        licence=licence_of(metadata.get("license")),
        noai="yes" if forbids_ai(tags(metadata.get("tags"))) else "unknown" if unsettled else _noai(metadata),
        noai_checked_at="" if unsettled else _today(),
        tags=tags(metadata.get("tags")),
        animations=number(metadata.get("animationCount")),
        faces=number(metadata.get("faceCount")),
        unsettled=unsettled,
        fault=fault,
    )


def _licence_now(metadata: dict[str, Any], before: str) -> str:
    now = licence_of(metadata.get("license"))
    return now if now != UNKNOWN else before


def _noai(metadata: dict[str, Any]) -> str:
    if not isinstance(metadata.get("tags"), list):
        return "unknown"
    return "yes" if forbids_ai(tags(metadata["tags"])) else "no"


def _links(uid: str) -> dict[str, str]:
    """Return the short-lived download URLs of the formats that can be rendered ("glb", "gltf"), by format."""
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


def _uid(record: AssetRecord) -> str:
    return record.location.partition("://")[2].partition("?")[0]


def _api() -> str:
    return os.environ.get(URL_VARIABLE, "https://api.sketchfab.com").rstrip("/")


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
