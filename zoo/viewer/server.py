"""The HTTP server of the viewer. It serves its own page, scenes and exports, and nothing from the file system."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from renderers.arguments import integer, shown
from renderers.cameras import Cameras
from zoo.export.html.page import escaped
from zoo.viewer.frames import zipped
from zoo.viewer.scene import Scene
from zoo.viewer.serving import TYPES, PageHandler, PageServer
from zoo.viewer.wire import encode

LARGEST_PICTURE = 1024  # longer side of exported videos, pixels
SCRIPTS = (
    "wire.js", "orbit.js", "splats.js", "splat_scenes.js", "mesh_scene.js", "video_scene.js", "pane.js",
    "latent_map.js", "panel.js", "viewer.js",
)  # fmt: skip
_PACKAGES = dict.fromkeys(("splats.js", "mesh_scene.js"), "zoo.export.html")  # others are in zoo.viewer.page


class Server(PageServer):
    """Serves scenes to any number of pages."""

    def __init__(self, scenes: Sequence[Scene], host: str, port: int, token: str | None) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be used.
        """
        self.scenes = tuple(scenes)
        self.title = ", ".join(scene.title for scene in self.scenes)
        super().__init__(host, port, token, _Handler)


class _Handler(PageHandler):
    server: Server

    def answer(self, path: str, query: dict[str, str]) -> None:
        if path == "/":
            self._send_page()
        elif path.removeprefix("/page/") in (*SCRIPTS, "viewer.css"):
            name = path.removeprefix("/page/")
            self.send(200, asset(name).encode(), TYPES[Path(name).suffix])
        elif path == "/scene":
            self.send(200, encode(*self._scene(query).describe()), "application/octet-stream")
        elif path == "/motion":
            answer = self._scene(query).motion(query.get("choice", ""))
            self.send(200, encode(*answer), "application/octet-stream")
        elif path == "/export":
            self._export(query)
        else:
            self.send_text(404, "There is no such page.")

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
        self.send(200, text.encode(), "text/html")

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
        self.send(
            200, data, "application/octet-stream", {"Content-Disposition": f'attachment; filename="{name}"'}
        )


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
