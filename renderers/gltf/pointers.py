"""KHR_animation_pointer and KHR_node_visibility: what an animation channel drives, and which nodes are hidden."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Any, NamedTuple

from renderers.gltf.document import Document

POINTER, VISIBILITY = "KHR_animation_pointer", "KHR_node_visibility"
_PATHS = ("translation", "rotation", "scale", "weights")
_NODE = re.compile(r"/nodes/(\d{1,9})/(translation|rotation|scale|weights)(?:/(\d{1,9}))?")
_MESH = re.compile(r"/meshes/(\d{1,9})/weights(?:/(\d{1,9}))?")
_VISIBLE = re.compile(rf"/nodes/(\d{{1,9}})/extensions/{VISIBILITY}/visible")
_MATERIAL = re.compile(r"/materials/(\d{1,9})/")
_LIGHTS = "/extensions/KHR_lights_punctual/"


class Target(NamedTuple):
    """A driven property: `path` of a node, or only one `element` of its morph weights.

    `path` is "translation", "rotation", "scale", "weights" or "visible".
    """

    node: int
    path: str
    element: int | None = None


def read_targets(document: Document, target: dict, where: str) -> list[Target] | None:
    """Return what a channel drives, [] if that does not exist, or None if it is a pointer to something else."""
    path = document.text(target, "path", "")
    if path != "pointer":
        node = document.index(target, "node", "nodes", where)
        if node is not None and path not in _PATHS:
            document.note("an animated property is ignored: glTF has none of its name")
        return [Target(node, path)] if node is not None and path in _PATHS else []
    pointer, nodes = _pointer(target), document.items("nodes")
    if match := _NODE.fullmatch(pointer):
        node, path = int(match[1]), match[2]
        if match[3] is not None and path != "weights":
            return None  # the object model has no pointers to components of vectors
        return [Target(node, path, _element(match[3]))] if node < len(nodes) else []
    if match := _VISIBLE.fullmatch(pointer):
        return [Target(int(match[1]), "visible")] if int(match[1]) < len(nodes) else []
    if match := _MESH.fullmatch(pointer):  # a node's own weights override those of its mesh
        users = [
            i for i, o in enumerate(nodes) if o.get("mesh") == int(match[1]) and o.get("weights") is None
        ]
        return [Target(node, "weights", _element(match[2])) for node in users]
    return None


def note_pointer(document: Document, target: dict, materials: Container[int | None]) -> None:
    """Add a note to the document on a pointer that is ignored.

    Args:
        materials: the materials of what is drawn; the animation of others makes no difference.
    """
    pointer = _pointer(target)
    match = _MATERIAL.match(pointer)
    if match and int(match[1]) not in materials:
        return
    if match:
        subject = "materials"
    elif pointer.startswith("/cameras/"):
        subject = "cameras"
    elif pointer.startswith(_LIGHTS):
        subject = "lights"
    else:
        subject = "properties other than transforms, weights and visibility of nodes"
    document.note(f"{POINTER} is ignored for {subject}, which keep their rest values")


def is_hidden(document: Document, node: int) -> bool:
    """Whether KHR_node_visibility hides a node at rest, and with it everything below."""
    extension = document.extension(document.items("nodes")[node], VISIBILITY, f"nodes[{node}]")
    return extension is not None and extension.get("visible") is False


def animated_visibility(document: Document) -> set[int]:
    """The nodes whose visibility some animation drives."""
    nodes = set()
    for animation in document.items("animations"):
        channels = animation.get("channels")
        for channel in (
            channels if isinstance(channels, list) else ()
        ):  # `read_animations` reports other values
            if not isinstance(channel, dict):
                continue
            match = _VISIBLE.fullmatch(_pointer(channel.get("target")))
            if match:
                nodes.add(int(match[1]))
    return nodes


def _pointer(target: Any) -> str:
    """The JSON pointer of a channel's target, "" if it has none."""
    for key in ("extensions", POINTER, "pointer"):
        target = target.get(key) if isinstance(target, dict) else None
    return target if isinstance(target, str) else ""


def _element(text: str | None) -> int | None:
    return None if text is None else int(text)
