"""Manifests: lists of models with one line per model, as JSON objects (.jsonl) or as a table (.csv)."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factory.assets.licences import to_spdx
from factory.assets.record import AssetRecord
from factory.assets.sanitize import address, mapping, number, parse, sha256, tags, text
from factory.sources.folder import fingerprint
from factory.sources.source import Source, SourceError


class ManifestSource(Source):
    """Models at the paths and URLs listed in a manifest file.

    Columns: `location` (or `path`, `file`, `url`: an http(s) URL or a path relative to the manifest's folder) and,
    optionally, `uid`, `title`, `author`, `licence` (or `license`), `source_url`, `tags` (in a .csv separated by
    `;`), `sha256`, `animations`, `faces`, `noai` (yes, no), `noai_checked_at`.
    """

    is_remote = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).resolve()

    def list(self) -> Iterator[AssetRecord]:
        try:
            # Names of files may have bytes that are not UTF-8; `_readable` replaces them in all other values.
            with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                rows = _table(file) if self.path.suffix.lower() == ".csv" else _objects(file)
                for line, row in rows:
                    yield self._record(line, mapping(row))
        except OSError as error:
            raise SourceError(f"source {str(self.path)!r}: cannot be read ({error.strerror})") from None

    def fetch(self, record: AssetRecord) -> Path:
        raise SourceError(f"{record.uid}: a manifest's assets are fetched from their own locations")

    def _record(self, line: int, row: dict[str, Any]) -> AssetRecord:
        named = next((row[key] for key in ("location", "path", "file", "url") if row.get(key)), None)
        row = {key: _readable(value) for key, value in row.items()}
        location, content_id, fault = self._locate(named, sha256(row.get("sha256")))
        return AssetRecord(
            uid=text(row.get("uid")) or text(_readable(named)) or f"{self.path.name}, line {line}",
            source="manifest",
            location=location,
            fingerprint=content_id,
            title=text(row.get("title")),
            author=text(row.get("author")),
            source_url=address(row.get("source_url")) or (location if address(location) else ""),
            licence=to_spdx(row.get("licence") or row.get("license")),
            noai={"yes": "yes", "true": "yes", "no": "no", "false": "no"}.get(
                str(row.get("noai")).lower(), "unknown"
            ),
            noai_checked_at=text(row.get("noai_checked_at"), 40),
            tags=tags(row.get("tags")),
            animations=number(row.get("animations")),
            faces=number(row.get("faces")),
            unsettled=not address(location),
            fault=fault,
        )

    def _locate(self, named: Any, known: str) -> tuple[str, str, str]:
        """Return location, fingerprint and fault of the model at a listed path or URL."""
        if not isinstance(named, str):
            return "", "", "malformed: no location"
        if url := address(_readable(named)):
            return url, f"sha256:{known}" if known else f"url:{url}", ""
        try:
            file = (self.path.parent / named).resolve()
            if not file.is_file():
                return "", "", "malformed: no such scheme" if "://" in named else "dead: no such file"
            return str(file), fingerprint(file), ""
        except (OSError, ValueError):  # not a valid file name, or the file may not be read
            return "", "", "dead: no such file"


def _readable(value: Any) -> Any:
    """Replace bytes of a string that are not UTF-8 with U+FFFD."""
    return re.sub("[\\ud800-\\udfff]", "\ufffd", value) if isinstance(value, str) else value


def _objects(file: Any) -> Iterator[tuple[int, Any]]:
    for line, written in enumerate(file, 1):
        if written.strip():
            try:
                yield line, parse(written)
            except (ValueError, RecursionError):
                yield line, None


def _table(file: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(file)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:  # unterminated quoted field
            yield reader.line_num, {}
            continue
        if header is None:
            header = [name.strip().lower() for name in cells]
        elif any(cell.strip() for cell in cells):
            yield reader.line_num, dict(zip(header, (cell.strip() for cell in cells), strict=False))
