"""The HTTP server of the viewer. It serves its own page, scenes and exports, and nothing from the file system."""

from __future__ import annotations

import json
import re
import socket
import sys
import tempfile
import traceback
from collections.abc import Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from renderers.arguments import integer, shown
from renderers.cameras import Cameras
from zoo.console import describe
from zoo.errors import ZooError
from zoo.export.html.page import escaped
from zoo.viewer.access import Access
from zoo.viewer.frames import zipped
from zoo.viewer.scene import Scene
from zoo.viewer.wire import encode

LARGEST_PICTURE = 1024  # longer side of exported videos, pixels
IDLE_S = 60.0  # after which an unused connection is closed
SCRIPTS = (
    "wire.js", "orbit.js", "splats.js", "splat_scenes.js", "mesh_scene.js", "video_scene.js", "pane.js",
    "latent_map.js", "panel.js", "viewer.js",
)  # fmt: skip
_PACKAGES = {"splats.js": "zoo.export.html"}  # others are in zoo.viewer.page
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Errors of a request, answered with their sentence. Others are bugs.
_EXPECTED = (ZooError, LookupError, ValueError, TypeError, RuntimeError, OSError, ImportError, MemoryError)


class Server(ThreadingHTTPServer):
    """Serves scenes to any number of pages."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, scenes: Sequence[Scene], host: str, port: int, token: str | None) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be used.
        """
        self.scenes = tuple(scenes)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self.access = Access(self.server_address[1], token)

    def server_bind(self) -> None:
        """Bind, without the look-up of the host's name that `HTTPServer` does and that may ask a name server."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report bugs; a browser that closes a connection is none."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "menagerie4d", ""
    timeout = IDLE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: their URLs may have the token in them."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query, max_num_fields=16))
        access = self.server.access
        if url.path == "/" and access.is_token(query.get("token", "")):
            # A redirection, so that the token is not kept in the history. Not SameSite=Strict: after a link on another
            # site, browsers would leave the cookie out.
            cookie = f"{access.cookie}={access.token}; HttpOnly; SameSite=Lax; Path=/"
            self._send(303, b"", "text/plain", {"Location": "/", "Set-Cookie": cookie})
            return
        refusal = access.refusal(url.path, self.headers)
        if refusal is not None:
            self._send_text(403, f"Refused: {refusal}.")
            return
        try:
            self._answer(url.path, query)
        except ConnectionError:
            raise
        except _EXPECTED as error:
            unexpected = isinstance(error, KeyError | IndexError) and not isinstance(error, ZooError)
            if unexpected:
                traceback.print_exc()
            self._send_text(500 if unexpected else 400, describe(error))
        except Exception:
            traceback.print_exc()
            self._send_text(500, "The viewer failed; the terminal that it was started in has the details.")

    do_HEAD = do_GET

    def _answer(self, path: str, query: dict[str, str]) -> None:
        if path == "/":
            self._send_page()
        elif path.removeprefix("/page/") in (*SCRIPTS, "viewer.css"):
            name = path.removeprefix("/page/")
            self._send(200, asset(name).encode(), _TYPES[Path(name).suffix])
        elif path == "/scene":
            self._send(200, encode(*self._scene(query).describe()), "application/octet-stream")
        elif path == "/motion":
            answer = self._scene(query).motion(query.get("choice", ""))
            self._send(200, encode(*answer), "application/octet-stream")
        elif path == "/export":
            self._export(query)
        else:
            self._send_text(404, "There is no such page.")

    def _scene(self, query: dict[str, str]) -> Scene:
        text = query.get("pane", "0")
        if text not in map(str, range(len(self.server.scenes))):
            raise ValueError(f"pane: expected a number below {len(self.server.scenes)}, got {shown(text)}")
        return self.server.scenes[int(text)]

    def _send_page(self) -> None:
        title = escaped(" and ".join(scene.title for scene in self.server.scenes))
        scripts = "".join(f'<script src="page/{name}" defer></script>\n' for name in SCRIPTS)
        values = {"title": title, "panes": str(len(self.server.scenes)), "scripts": scripts}
        text = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], asset("viewer.html"))
        self._send(200, text.encode(), "text/html")

    def _export(self, query: dict[str, str]) -> None:
        scene, suffix = self._scene(query), query.get("format", "")
        if suffix not in scene.formats:
            raise ValueError(f"format: expected one of {', '.join(scene.formats)}, got {shown(suffix)}")
        camera = None if suffix != ".mp4" or "camera" not in query else read_camera(query["camera"])
        with tempfile.TemporaryDirectory() as folder:
            path = scene.save(
                query.get("choice", ""), Path(folder) / f"{_file_name(query.get('name', ''))}{suffix}", camera
            )
            if path.is_dir():
                names = sorted(each.name for each in path.iterdir())
                data, name = zipped({each: (path / each).read_bytes() for each in names}), f"{path.name}.zip"
            else:
                data, name = path.read_bytes(), path.name
        self._send(
            200, data, "application/octet-stream", {"Content-Disposition": f'attachment; filename="{name}"'}
        )

    def _send_text(self, status: int, text: str) -> None:
        self._send(status, text.encode("utf-8", "replace"), "text/plain")

    def _send(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        fixed = {
            "Content-Type": kind + charset,
            "Content-Length": str(len(data)),
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        for name, value in (fixed | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@cache
def asset(name: str) -> str:
    """Text of a file of the page."""
    return files(_PACKAGES.get(name, "zoo.viewer.page")).joinpath(name).read_text(encoding="utf-8")


def read_camera(text: str) -> Cameras:
    """A camera of the page, {"worldToCamera", "K", "width", "height"}, scaled to even sides for a video.

    Raises:
        TypeError, ValueError: it is malformed.
    """
    try:
        content = json.loads(text)
        fields = {name: np.array(content[name], np.float64) for name in ("worldToCamera", "K")}
        sides = [content["width"], content["height"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError(f"camera: expected a camera as JSON, got {shown(text)}") from None
    width, height = (integer(side, "camera: size", 2, 1 << 15) for side in sides)
    if [field.shape for field in fields.values()] != [(4, 4), (3, 3)]:
        raise ValueError("camera: expected a 4 × 4 and a 3 × 3 matrix")
    scale = min(1.0, LARGEST_PICTURE / max(width, height))
    size = [max(2, int(side * scale) // 2 * 2) for side in (width, height)]
    K = fields["K"].copy()
    # One scale for both axes, so that pixels stay square; the picture keeps its centre.
    K[:2] *= scale
    K[0, 2] += (size[0] - width * scale) / 2
    K[1, 2] += (size[1] - height * scale) / 2
    return Cameras(fields["worldToCamera"][None], K[None], size[0], size[1])


def _file_name(title: str) -> str:
    """A title as the name of a file: ASCII letters, digits and single hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-").lower()[:60] or "motion"
