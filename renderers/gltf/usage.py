"""Which extensions of a file change what is drawn of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from renderers.gltf.document import Document
from renderers.gltf.extensions import EXTENSIONS, Extension

# Reflectance at normal incidence differs from that of index 1.5 by less than 0.01: not visible. Blender writes 1.45.
_USUAL_IOR = (1.42, 1.58)


def check_required(document: Document) -> None:
    """Raise `UnsupportedGltf` if the file requires an extension without which it cannot be drawn."""
    required = document.json.get("extensionsRequired") or []
    if not isinstance(required, list) or not all(isinstance(item, str) for item in required):
        document.fail("extensionsRequired: expected a list of names")
    for name in required:
        extension = EXTENSIONS.get(name)
        if extension is None or extension.refused_if_required:
            advice = "export the asset without it" if extension is None else extension.advice
            document.unsupported(
                f"the file requires the extension {name[:80]}, which is not supported; {advice}"
            )


def note_extensions(document: Document, nodes: Iterable[int], materials: Iterable[int | None]) -> None:
    """Add notes to the document on extensions that change what is drawn and are ignored or approximated.

    Args:
        nodes: the nodes that are not hidden. Their meshes and skins are drawn.
        materials: the materials of what is drawn.
    """
    for name, value in _used(document, nodes, materials):
        extension = EXTENSIONS.get(name)
        if extension is None:
            document.note(f"{shown_name(name)} is ignored: the extension is unknown")
        elif extension.sentence and not _is_neutral(extension, value):
            document.note(extension.sentence)


def shown_name(name: str) -> str:
    """The name of an extension, as it can be shown in a terminal and on a page."""
    return name if re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", name) else "an extension with an invalid name"


def _is_neutral(extension: Extension, value: Any) -> bool:
    """Whether an extension object has no effect, as when exporters write all of its defaults."""
    if not extension.neutral or not isinstance(value, dict):
        return False
    if extension.name == "KHR_materials_ior" and isinstance(value.get("ior"), (int, float)):
        return _USUAL_IOR[0] <= value["ior"] <= _USUAL_IOR[1]
    return all(value.get(key, default) == default for key, default in extension.neutral.items())


def _used(
    document: Document, nodes: Iterable[int], materials: Iterable[int | None]
) -> Iterator[tuple[str, Any]]:
    """Yield the name and the object of every extension of what is drawn."""
    root = document.json.get("extensions")
    for name, value in root.items() if isinstance(root, dict) else ():
        if name not in EXTENSIONS or EXTENSIONS[name].root:
            yield name, value
    scene = document.index(document.json, "scene", "scenes", "top level") or 0
    owners = [owner for owner in document.items("scenes")[scene : scene + 1]]
    for node in (document.items("nodes")[index] for index in nodes):
        owners.append(node)
        owners += _referenced(document, node, "mesh", "meshes") + _referenced(document, node, "skin", "skins")
    owners += document.items("animations")
    for owner in owners:
        yield from _extensions_of(owner)
    for index in materials:
        if index is None:
            continue
        material = document.items("materials")[index]
        for owner in (material, *_textures(document, material)):
            unlit = "KHR_materials_unlit" in (owner.get("extensions") or ())
            for name, value in _extensions_of(owner):
                if not (unlit and name.startswith("KHR_materials_")):
                    yield name, value


def _extensions_of(owner: Any) -> Iterator[tuple[str, Any]]:
    """Yield the extensions of an object and of all objects in it."""
    for key, value in _walk(owner):
        if key == "extensions" and isinstance(value, dict):
            yield from value.items()


def _walk(owner: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key and value of an object and of all objects in it, except `extras`."""
    stack = [owner]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            members = [(key, member) for key, member in value.items() if key != "extras"]
            yield from members
            stack += [member for _, member in reversed(members)]
        elif isinstance(value, list):
            stack += reversed(value)


def _textures(document: Document, material: dict) -> Iterator[dict]:
    """Yield the textures of a material, their images and samplers."""
    for key, value in _walk(material):
        if key.endswith("Texture") and isinstance(value, dict):
            for texture in _referenced(document, value, "index", "textures"):
                yield texture
                yield from _referenced(document, texture, "source", "images")
                yield from _referenced(document, texture, "sampler", "samplers")


def _referenced(document: Document, owner: dict, key: str, collection: str) -> list[dict]:
    """The object that `owner[key]` is the index of, in a list; empty if there is none."""
    items, index = document.items(collection), owner.get(key)
    if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(items):
        return [items[index]]
    return []
