"""Changes to the nodes of a glTF file: give a mesh a node of its own, put nodes into scenes, redirect animations."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from renderers.gltf.editing import GltfEditor

_TRANSFORM = ("matrix", "translation", "rotation", "scale")


def own_mesh(editor: GltfEditor, node: int, indices: Sequence[int]) -> tuple[int, list[int], int | None]:
    """Make a mesh with some of the primitives of a node's mesh that no other node uses.

    Args:
        node: the node.
        indices: of the primitives.
    Returns:
        the mesh: that of the node itself if it may be changed, else a copy; where the primitives are in it; and a mesh
        of the primitives that were left out, None if there are none.
    """
    nodes, meshes = editor.json["nodes"], editor.json["meshes"]
    mesh = nodes[node]["mesh"]
    primitives = meshes[mesh]["primitives"]
    others = [index for index in range(len(primitives)) if index not in indices]
    users = sum(each.get("mesh") == mesh for each in nodes)
    if users == 1 and not others:
        return mesh, list(indices), None
    copies = []
    for chosen in (list(indices), others):
        part = copy.deepcopy(meshes[mesh])
        part["primitives"] = [copy.deepcopy(primitives[index]) for index in chosen]
        copies.append(editor.append("meshes", part) if chosen else None)
    assert copies[0] is not None
    return copies[0], list(range(len(indices))), copies[1]


def release_mesh(editor: GltfEditor, node: int, indices: Sequence[int]) -> tuple[int, int, list[int]]:
    """Move primitives of a node to a node at the root of the scene, without a transform; the node itself stays.

    Args:
        node: the node of the mesh. It is returned if it is at the root and its transform is never set.
        indices: of the primitives.
    Returns:
        the node, its mesh, and where the primitives are in that mesh.
    """
    mesh, positions, rest = own_mesh(editor, node, indices)
    owner = editor.json["nodes"][node]
    if rest is None and _is_plain_root(editor, node):
        owner["mesh"] = mesh
        return node, mesh, positions
    entry: dict[str, Any] = {"name": owner["name"]} if "name" in owner else {}
    entry["mesh"] = mesh
    if "weights" in owner:
        entry["weights"] = list(owner["weights"])
    if rest is None:
        for key in ("mesh", "skin", "weights"):
            owner.pop(key, None)
    else:
        owner["mesh"] = rest
    return editor.append("nodes", entry), mesh, positions


def _is_plain_root(editor: GltfEditor, node: int) -> bool:
    """Whether a node has no parent and no transform, and no animation gives it one."""
    if any(key in editor.json["nodes"][node] for key in _TRANSFORM):
        return False
    if any(node in each.get("children", []) for each in editor.json["nodes"]):
        return False
    return not any(
        channel["target"].get("node") == node and channel["target"].get("path") != "weights"
        for animation in editor.json.get("animations", [])
        for channel in animation.get("channels", [])
    )


def place_in_scenes(editor: GltfEditor, moved: Sequence[tuple[int, int]], root: int) -> None:
    """Add new nodes to the roots of all scenes that contain the nodes that they come from.

    Args:
        moved: pairs of a node and the one that has its mesh now.
        root: another new node, which belongs to all of these scenes.
    """
    nodes, scenes = editor.json["nodes"], editor.items("scenes")
    if not scenes:  # all nodes are drawn then
        below = {child for each in nodes for child in each.get("children", [])}
        new = {each for _, each in moved} | {root}
        scenes.append({"nodes": [n for n in range(len(nodes)) if n not in below and n not in new]})
        editor.json["scene"] = 0
    for scene in scenes:
        inside = _below(nodes, scene.get("nodes", []))
        added = [new for old, new in moved if old in inside and new not in inside]
        if any(old in inside for old, _ in moved):
            scene["nodes"] = [*scene.get("nodes", []), root, *added]


def _below(nodes: Sequence[Mapping[str, Any]], roots: Sequence[int]) -> set[int]:
    inside: set[int] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in inside:
            inside.add(node)
            stack.extend(nodes[node].get("children", []))
    return inside


def retarget_weights(editor: GltfEditor, moved: Mapping[int, int]) -> None:
    """Make animations of morph weights follow meshes that are at other nodes now."""
    for animation in editor.json.get("animations", []):
        for channel in animation.get("channels", []):
            target = channel["target"]
            if target.get("path") == "weights" and target.get("node") in moved:
                target["node"] = moved[target["node"]]
            pointer = (target.get("extensions") or {}).get("KHR_animation_pointer") or {}
            words = str(pointer.get("pointer", "")).split("/")
            if len(words) > 3 and words[1] == "nodes" and words[3] == "weights" and words[2].isdigit():
                if int(words[2]) in moved:
                    words[2] = str(moved[int(words[2])])
                    pointer["pointer"] = "/".join(words)
