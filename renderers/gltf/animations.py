"""The animations of a glTF file: key times and values, validated and within limits."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from renderers.gltf.document import Document

KeyTimes: TypeAlias = "array[float]"  # array.array: bisecting it is faster than bisecting a numpy array

# Animated property → accessor type and number of components.
_TYPES = {"translation": ("VEC3", 3), "scale": ("VEC3", 3), "rotation": ("VEC4", 4), "weights": ("SCALAR", 1)}


@dataclass(frozen=True)
class Channel:
    """One animated property of one node.

    Attributes:
        node: index of the node.
        path: "translation", "rotation", "scale" or "weights".
        interpolation: "STEP", "LINEAR" or "CUBICSPLINE".
        times: key times in seconds, ascending; channels with equal key times share one object.
        values: float64 [keys, width]; for CUBICSPLINE [keys, 3, width]: in-tangent, value, out-tangent.
    """

    node: int
    path: str
    interpolation: str
    times: KeyTimes
    values: np.ndarray


@dataclass(frozen=True)
class Animation:
    """One animation of the file; `Asset.animations` keeps the order of the file.

    Attributes:
        name: name in the file.
        start, end: time of the first and last key, seconds; the pose is constant outside. Equal if nothing is animated.
        channels: number of animated node transforms and sets of morph weights.
        description: the author's description (`extras.description`), "" if absent.
    """

    name: str
    start: float
    end: float
    channels: int
    description: str = ""

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


def read_animations(
    document: Document, morphs: dict[int, np.ndarray]
) -> tuple[tuple[Animation, ...], tuple[tuple[Channel, ...], ...], tuple[str, ...]]:
    """Read all animations.

    Args:
        morphs: the morph weights of the nodes that have morph targets.
    Returns:
        the animations in the order of the file, the channels of each, and notes on channels that are ignored.
    """
    reader = _ChannelReader(document, morphs)
    animations, channels, notes = [], [], []
    for index, owner in enumerate(document.items("animations")):
        name = document.text(owner, "name", f"animation {index}")
        members, pointers = reader.read(index, owner)
        start = min((channel.times[0] for channel in members), default=0.0)
        end = max((channel.times[-1] for channel in members), default=0.0)
        extras = owner.get("extras")
        description = document.text(extras, "description", "") if isinstance(extras, dict) else ""
        animations.append(Animation(name, start, end, len(members), description))
        channels.append(members)
        if pointers:
            notes.append(f"{pointers} KHR_animation_pointer channels of animation {name!r} are ignored")
    if notes and not any(channels):
        document.unsupported(
            "all of its animation channels use KHR_animation_pointer, which is not supported; "
            "bake the animation to node transforms and morph weights"
        )
    return tuple(animations), tuple(channels), tuple(notes)


class _ChannelReader:
    """Reads the channels of animations; limits apply to all animations together."""

    def __init__(self, document: Document, morphs: dict[int, np.ndarray]) -> None:
        self._document = document
        self._morphs = morphs
        self._key_times = _KeyTimesCache()
        self._key_values = 0

    def read(self, index: int, owner: dict) -> tuple[tuple[Channel, ...], int]:
        """Return the channels of one animation, and the number of KHR_animation_pointer channels among its others."""
        document = self._document
        channels: dict[tuple[int, str], Channel] = {}
        pointers = 0
        samplers = document.items("samplers", owner, f"animations[{index}].")
        for number, entry in enumerate(document.items("channels", owner, f"animations[{index}].")):
            where = f"animations[{index}].channels[{number}]"
            target = document.child(entry, "target", where) or {}
            node = document.index(target, "node", "nodes", f"{where}.target")
            path = document.text(target, "path", "")
            pointers += path == "pointer"
            if node is None or path not in _TYPES or (path == "weights" and node not in self._morphs):
                continue  # the channel belongs to an extension, or the node has no morph targets
            if (node, path) in channels:
                document.fail(
                    f"{where}: a second channel animates nodes[{node}].{path}, expected one; export the asset again"
                )
            sampler = document.integer(entry, "sampler", None, where)
            if sampler >= len(samplers):
                document.fail(f"{where}.sampler: expected an index below {len(samplers)}, got {sampler}")
            targets = len(self._morphs[node]) if path == "weights" else 1
            here = f"animations[{index}].samplers[{sampler}]"
            data = _read_sampler(document, samplers[sampler], *_TYPES[path], targets, self._key_times, here)
            self._key_values += data[2].size
            document.within(self._key_values, "key_values", "animated numbers")
            channels[node, path] = Channel(node, path, *data)
        return tuple(channels.values()), pointers


def _read_sampler(
    document: Document,
    sampler: dict,
    accessor_type: str,
    width: int,
    targets: int,
    key_times: _KeyTimesCache,
    where: str,
) -> tuple[str, KeyTimes, np.ndarray]:
    """Read interpolation, key times and values of a sampler.

    Args:
        accessor_type, width: accessor type and number of components of the property.
        targets: number of properties per key: the number of morph targets for weights, else 1.
    """
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
    line = key_times.read(document, times, keys, f"{where}.input")
    data = document.floats(values, elements, (accessor_type,), f"{where}.output").astype(np.float64)
    shape = (keys, 3, targets * width) if interpolation == "CUBICSPLINE" else (keys, targets * width)
    return interpolation, line, data.reshape(shape)


class _KeyTimesCache:
    """Key times by accessor and by value: exporters repeat them for every channel, and equal ones share one object."""

    def __init__(self) -> None:
        self._of_accessor: dict[int, KeyTimes] = {}
        self._equal: dict[bytes, KeyTimes] = {}

    def read(self, document: Document, accessor: int, keys: int, where: str) -> KeyTimes:
        """Read ascending key times in seconds."""
        if accessor not in self._of_accessor:
            seconds = document.floats(accessor, keys, ("SCALAR",), where)[:, 0]
            if not keys or (np.diff(seconds) < 0).any():
                document.fail(f"{where}: expected at least one key time, in ascending order")
            times = array("d", seconds.tolist())
            self._of_accessor[accessor] = self._equal.setdefault(times.tobytes(), times)
        return self._of_accessor[accessor]
