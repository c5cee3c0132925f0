"""The animations of a glTF as the file stores them: key times and values, checked and bounded."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from renderers.gltf.document import Document

_TYPES = {"translation": ("VEC3", 3), "scale": ("VEC3", 3), "rotation": ("VEC4", 4), "weights": ("SCALAR", 1)}


@dataclass(frozen=True)
class Channel:
    """One animated property of one node.

    Attributes:
        path: "translation", "rotation", "scale" or "weights".
        interpolation: "STEP", "LINEAR" or "CUBICSPLINE".
        times: seconds, ascending; shared between channels that have the same key times.
        values: float64 [keys, width]; for splines [keys, 3, width] of in-tangent, value, out-tangent.
    """

    node: int
    path: str
    interpolation: str
    times: array
    values: np.ndarray


@dataclass(frozen=True)
class Animation:
    """One animation of the file; `Asset.animations` keeps the file's order and indices.

    Attributes:
        start, end: first and last key in seconds; outside of them the pose stands still. Equal where
            nothing is animated.
        channels: how many node transforms and sets of morph weights it drives.
        description: what its author says happens (`extras.description`), "" if nothing.
    """

    name: str
    start: float
    end: float
    channels: int
    description: str = ""

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.end - self.start


def read_animations(document: Document, morphs: dict[int, np.ndarray]):
    """All animations in the file's order, the channels of each, and notes on what stands still.

    Args:
        morphs: the morph weights of the nodes that have any.
    """
    animations, channels, notes, key_values = [], [], [], 0
    time_lines = _TimeLines()
    for index, owner in enumerate(document.items("animations")):
        name = document.text(owner, "name", f"animation {index}")
        found: dict[tuple[int, str], Channel] = {}
        pointers = 0
        samplers = document.items("samplers", owner, f"animations[{index}].")
        for number, entry in enumerate(document.items("channels", owner, f"animations[{index}].")):
            where = f"animations[{index}].channels[{number}]"
            target = document.child(entry, "target", where) or {}
            node = document.index(target, "node", "nodes", f"{where}.target")
            path = document.text(target, "path", "")
            pointers += path == "pointer"
            if node is None or path not in _TYPES or (path == "weights" and node not in morphs):
                continue  # an extension's business, or nothing there to morph
            if (node, path) in found:
                document.fail(f"{where}: a second channel for nodes[{node}].{path}; export the asset again")
            sampler = document.integer(entry, "sampler", None, where)
            if sampler >= len(samplers):
                document.fail(f"{where}.sampler: expected an index below {len(samplers)}, got {sampler}")
            targets = len(morphs[node]) if path == "weights" else 1
            here = f"animations[{index}].samplers[{sampler}]"
            data = _read_sampler(document, samplers[sampler], *_TYPES[path], targets, time_lines, here)
            key_values += data[2].size
            document.within(key_values, "key_values", "animated numbers")
            found[node, path] = Channel(node, path, *data)
        start = min((channel.times[0] for channel in found.values()), default=0.0)
        end = max((channel.times[-1] for channel in found.values()), default=0.0)
        extras = owner.get("extras")
        description = document.text(extras, "description", "") if isinstance(extras, dict) else ""
        animations.append(Animation(name, start, end, len(found), description))
        channels.append(tuple(found.values()))
        if pointers:
            notes.append(f"{pointers} KHR_animation_pointer channels of animation {name!r} stand still")
    if notes and not any(channels):
        document.unsupported(
            "all of its animation channels use KHR_animation_pointer, which is not supported; "
            "bake the animation to node transforms and morph weights"
        )
    return tuple(animations), tuple(channels), tuple(notes)


def _read_sampler(
    document: Document,
    sampler: dict,
    kind: str,
    width: int,
    targets: int,
    time_lines: _TimeLines,
    where: str,
) -> tuple[str, array, np.ndarray]:
    """Interpolation, times and values of one sampler that drives `targets` properties."""
    interpolation = document.text(sampler, "interpolation", "LINEAR")
    if interpolation not in ("STEP", "LINEAR", "CUBICSPLINE"):
        document.fail(
            f"{where}.interpolation: expected STEP, LINEAR or CUBICSPLINE, got {interpolation[:40]!r}"
        )
    times, values = (document.index(sampler, key, "accessors", where) for key in ("input", "output"))
    if times is None or values is None:
        document.fail(f"{where}: expected input and output accessors; export the asset again")
    keys = document.count(times)
    elements = keys * targets * (3 if interpolation == "CUBICSPLINE" else 1)
    document.within(elements * width, "key_values", "animated numbers")
    line = time_lines.read(document, times, keys, f"{where}.input")
    data = document.floats(values, elements, (kind,), f"{where}.output").astype(np.float64)
    shape = (keys, 3, targets * width) if interpolation == "CUBICSPLINE" else (keys, targets * width)
    return interpolation, line, data.reshape(shape)


class _TimeLines:
    """Key times, one object for equal ones: exporters repeat them for every channel."""

    def __init__(self) -> None:
        self._of_accessor: dict[int, array] = {}
        self._equal: dict[bytes, array] = {}

    def read(self, document: Document, accessor: int, keys: int, where: str) -> array:
        if accessor not in self._of_accessor:
            line = document.floats(accessor, keys, ("SCALAR",), where)[:, 0]
            if not keys or (np.diff(line) < 0).any():
                document.fail(f"{where}: expected at least one key time, in ascending order")
            line = array("d", line.tolist())
            self._of_accessor[accessor] = self._equal.setdefault(line.tobytes(), line)
        return self._of_accessor[accessor]
