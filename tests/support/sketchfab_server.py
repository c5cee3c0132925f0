"""Sketchfab's data API and files of other hosts on the loopback interface, with configurable faults.

with SketchfabServer() as server:
    server.models[uid] = annotation(uid)            # response of /v3/models/UID; 404 if absent
    server.files[uid] = {"glb": data}               # files offered for download
    server.static["/huggingface.co/x.bin"] = data   # https://huggingface.co/x.bin, through MENAGERIE_MIRROR
    server.misbehave = lambda request: "cut" if request.number % 3 == 0 else None
    subprocess.run(command, env=server.environment(home))
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

TOKEN = "the-token-of-a-test"


@dataclass(frozen=True)
class Request:
    """One request: its number since the start (from 1), its path with the query, when, and its Range header."""

    number: int
    path: str
    time: float
    range: str = ""
    headers: dict[str, str] = field(default_factory=dict, compare=False)


class SketchfabServer:
    """The server, running from `__enter__` to `__exit__`.

    Attributes:
        models: uid → its record. files: uid → kind ("glb", "gltf") → bytes. static: path → bytes.
        lifetime: seconds for which a download link is valid. ranges: whether range requests are supported.
        misbehave: called before a request is answered. It returns None, "drop" (close the connection), "cut" (close
            it during the body), "corrupt" (flip a bit), "throttle:SECONDS" (429 with Retry-After), or a status.
        requests: all requests so far.
    """

    def __init__(self) -> None:
        self.models: dict[str, object] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.static: dict[str, bytes] = {}
        self.lifetime, self.ranges = 300.0, True
        self.misbehave: Callable[[Request], str | int | None] = lambda request: None
        self.requests: list[Request] = []
        self.lock = threading.Lock()

    def __enter__(self) -> SketchfabServer:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def variables(self, home: Path) -> dict[str, str]:
        """Return the environment variables that make a process use only this server."""
        return {
            "HOME": str(home),
            "MENAGERIE_CACHE": str(home / "cache"),
            "MENAGERIE_MIRROR": self.url,
            "SKETCHFAB_API_URL": self.url,
            "SKETCHFAB_API_TOKEN": TOKEN,
            "HF_ENDPOINT": f"{self.url}/huggingface.co",
            "no_proxy": "127.0.0.1",
        }

    def environment(self, home: Path) -> dict[str, str]:
        return {**os.environ, **self.variables(home)}

    def asked(self, part: str) -> list[Request]:
        """Return the requests whose path contains a string."""
        return [request for request in self.requests if part in request.path]

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        parts = urlsplit(path)
        if parts.path.startswith("/v3/models/"):
            uid, _, action = parts.path.removeprefix("/v3/models/").partition("/")
            if uid not in self.models:
                return 404, b'{"detail": "Not found."}'
            if not action:
                return 200, json.dumps(self.models[uid]).encode()
            if headers.get("Authorization") != f"Token {TOKEN}":
                return 401, b"{}"
            links = {
                kind: {"url": self._link(uid, kind), "size": len(data), "expires": int(self.lifetime)}
                for kind, data in self.files.get(uid, {}).items()
            }
            return (200, json.dumps(links).encode()) if links else (403, b"{}")
        if parts.path == "/v3/search":
            return 200, self._search(parse_qs(parts.query))
        if parts.path.startswith("/media/"):
            _, _, uid, kind = parts.path.split("/")
            expires = float(parse_qs(parts.query)["expires"][0])
            return (200, self.files[uid][kind]) if time.time() < expires else (403, b"expired")
        data = self.static.get(parts.path)
        return (200, data) if data is not None else (404, b"nothing here")

    def _link(self, uid: str, kind: str) -> str:
        return f"{self.url}/media/{uid}/{kind}?expires={time.time() + self.lifetime:.3f}"

    def _search(self, query: dict[str, list[str]]) -> bytes:
        start, count = int(query.get("cursor", ["0"])[0]), 2
        results = [self.models[uid] for uid in sorted(self.models)]
        following = f"{self.url}/v3/search?cursor={start + count}" if start + count < len(results) else None
        return json.dumps({"results": results[start : start + count], "next": following}).encode()


class _Handler(BaseHTTPRequestHandler):
    owner: SketchfabServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        owner = self.owner
        with owner.lock:
            number = len(owner.requests) + 1
            asked = self.headers.get("Range", "")
            request = Request(number, self.path, time.time(), asked, dict(self.headers))
            owner.requests.append(request)
        mood = owner.misbehave(request)
        self.close_connection = True
        if mood == "drop":
            return
        if isinstance(mood, int):
            return self._send(mood, b"")
        if mood and mood.startswith("throttle"):
            return self._send(429, b"{}", {"Retry-After": mood.partition(":")[2]})
        status, body = owner.answer(self.path, dict(self.headers))
        extra = {}
        if status == 200:
            tag = f'"{hashlib.md5(body).hexdigest()}"'
            extra = {"ETag": tag, "Accept-Ranges": "bytes"} if owner.ranges else {}
            if owner.ranges and asked and self.headers.get("If-Range", tag) == tag:
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                if start >= len(body):
                    return self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                extra["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                status, body = 206, body[start:]
        if mood == "corrupt" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        self._send(status, body, extra, cut=mood == "cut")

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, cut: bool = False
    ) -> None:
        try:
            self.send_response(status)
            for name, value in {
                **(headers or {}),
                "Content-Length": str(len(body)),
                "Connection": "close",
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
        except ConnectionError:
            pass  # the client was killed


def annotation(uid: str, **changes: object) -> dict:
    """A model as Sketchfab's API and Objaverse 1.0's annotations describe it; `license` is a slug in the latter."""
    return {
        "uri": f"https://api.sketchfab.com/v3/models/{uid}",
        "uid": uid,
        "name": f"Model {uid[:4]}",
        "viewerUrl": f"https://sketchfab.com/3d-models/{uid}",
        "isDownloadable": True,
        "animationCount": 1,
        "faceCount": 500,
        "publishedAt": "2021-03-18T09:36:25.430631",
        "tags": [{"name": "Robot", "slug": "robot", "uri": "https://api.sketchfab.com/v3/tags/robot"}],
        "user": {"uid": "0" * 32, "username": "ada", "displayName": "Ada L."},
        "license": {
            "uri": "https://api.sketchfab.com/v3/licenses/322a749bcfa841b29dff1e8a1bb74b0b",
            "label": "CC Attribution",
            "fullName": "Creative Commons Attribution",
            "slug": "by",
            "url": "http://creativecommons.org/licenses/by/4.0/",
        },
        **changes,
    }
