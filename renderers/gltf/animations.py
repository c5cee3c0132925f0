"""The animations of a glTF file: key times and values, validated and within limits."""

from __future__ import annotations

from array import array
from collections.abc import Container
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from renderers.gltf.document import Document
from renderers.gltf.limits import GltfError, LimitExceeded, UnsupportedGltf
from renderers.gltf.pointers import Target, note_pointer, read_targets
from renderers.values import by_value

KeyTimes: TypeAlias = "array[float]"  # array.array: bisecting it is faster than bisecting a numpy array

# Animated property → accessor type and number of components.
_TYPES = {
    "translation": ("VEC3", 3),
    "scale": ("VEC3", 3),
    "rotation": ("VEC4", 4),
    "weights": ("SCALAR", 1),
    "visible": ("SCALAR", 1),
}


_SAME_TIME = 1e-4  # seconds; key times that are closer differ by rounding


@by_value
@dataclass(frozen=True, eq=False, repr=False)
class Channel:
    """One animated property of one node.

    Attributes:
        node: index of the node.
        path: "translation", "rotation", "scale", "weights" or "visible".
        interpolation: "STEP", "LINEAR" or "CUBICSPLINE".
        times: key times in seconds, ascending; channels with equal key times share one object.
        values: float64 [keys, width]; for CUBICSPLINE [keys, 3, width]: in-tangent, value, out-tangent.
        element: index of the only morph weight that is driven; None for all of them.
    """

    node: int
    path: str
    interpolation: str
    times: KeyTimes
    values: np.ndarray
    element: int | None = None


@dataclass(frozen=True)
class Animation:
    """One animation of the file; `Asset.animations` keeps the order of the file.

    Attributes:
        name: name in the file.
        start, end: time of the first and last key, seconds; the pose is constant outside. Equal if nothing is animated.
        channels: number of animated node transforms and sets of morph weights.
        description: the author's description (`extras.description`), "" if absent.
        fault: why the animation is left out, "" if it is valid. It has no channels then, and keeps its place in the
            file. The words are the same for all animations with that fault.
        key_interval: typical distance of consecutive key times, seconds: the median over all channels together. 0 if
            there are fewer than two key times.
    """

    name: str
    start: float
    end: float
    channels: int
    description: str = ""
    fault: str = ""
    key_interval: float = 0.0

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.end - self.start


def read_animations(
    document: Document, morphs: dict[int, np.ndarray], materials: Container[int | None]
) -> tuple[tuple[Animation, ...], tuple[tuple[Channel, ...], ...]]:
    """Read all animations; the document gets notes on channels that are ignored and animations that are left out.

    An animation that is not valid costs only itself, as in Blender and three.js, unless there is no other.

    Args:
        morphs: the morph weights of the nodes that have morph targets.
        materials: the materials of what is drawn.
    Returns:
        the animations in the order of the file, and the channels of each.
    Raises:
        GltfError: all animations are invalid (the error is that of the first), or they exceed the limits.
    """
    errors: list[GltfError] = []
    reader = _ChannelReader(document, morphs, materials)
    animations, channels = [], []
    for index, owner in enumerate(document.items("animations")):
        name = document.text(owner, "name", f"animation {index}")
        members: tuple[Channel, ...] = ()
        fault = ""
        try:
            members = reader.read(index, owner)
        except (LimitExceeded, UnsupportedGltf):
            raise
        except GltfError as error:
            errors.append(error)
            fault = _fault(error)
        start = min((channel.times[0] for channel in members), default=0.0)
        end = max((channel.times[-1] for channel in members), default=0.0)
        extras = owner.get("extras")
        description = document.text(extras, "description", "") if isinstance(extras, dict) else ""
        interval = _key_interval(members)
        animations.append(Animation(name, start, end, len(members), description, fault, interval))
        channels.append(members)
    if reader.ignored_pointers and not any(channels):
        document.unsupported(
            "its animations only drive properties through KHR_animation_pointer that are not supported; "
            "bake them to node transforms and morph weights"
        )
    if errors and len(errors) == len(animations):
        raise errors[0]
    for animation in animations:
        if animation.fault:
            document.note(f"an animation is left out: {animation.fault}")
    return tuple(animations), tuple(channels)


def _key_interval(channels: tuple[Channel, ...]) -> float:
    """Return the median distance of consecutive key times, of all channels merged, in seconds.

    Merged, because exporters drop keys that interpolation restores, in each channel separately.
    """
    lines = {id(channel.times): channel.times for channel in channels}.values()
    if not lines:
        return 0.0
    times = np.unique(np.concatenate([np.asarray(line) for line in lines]))
    steps = np.diff(times)
    steps = steps[steps > _SAME_TIME]
    return float(np.median(steps)) if len(steps) else 0.0


# Part of an error message → `Animation.fault`.
_FAULTS = {
    "in ascending order": "its key times are not in ascending order",
    "elements, expected": "its numbers of keys and of values differ",
    "a second channel": "two of its channels animate the same property differently",
    "NaN or infinity": "it contains NaN or infinity",
}


def _fault(error: GltfError) -> str:
    text = str(error)
    return next((fault for part, fault in _FAULTS.items() if part in text), "it is not valid glTF")


class _ChannelReader:
    """Reads the channels of animations; limits apply to all animations together."""

    def __init__(
        self, document: Document, morphs: dict[int, np.ndarray], materials: Container[int | None]
    ) -> None:
        self._document = document
        self._morphs = morphs
        self._materials = materials
        self.ignored_pointers = 0
        self._key_times = _KeyTimesCache()
        self._key_values = 0

    def read(self, index: int, owner: dict) -> tuple[Channel, ...]:
        """Return the channels of one animation, without those that drive nothing that is supported."""
        document = self._document
        channels: dict[Target, Channel] = {}
        samplers = document.items("samplers", owner, f"animations[{index}].")
        for number, entry in enumerate(document.items("channels", owner, f"animations[{index}].")):
            where = f"animations[{index}].channels[{number}]"
            target = document.child(entry, "target", where) or {}
            driven = read_targets(document, target, f"{where}.target")
            if driven is None:
                self.ignored_pointers += 1
                note_pointer(document, target, self._materials)
            for property in driven or ():
                node, path, element = property
                targets = len(self._morphs.get(node, ())) if path == "weights" else 1
                if not targets or (element or 0) >= targets:
                    continue  # the node has no morph targets
                sampler = document.integer(entry, "sampler", None, where)
                if sampler >= len(samplers):
                    document.fail(f"{where}.sampler: expected an index below {len(samplers)}, got {sampler}")
                here = f"animations[{index}].samplers[{sampler}]"
                width = targets if element is None else 1
                data = self._read_sampler(samplers[sampler], *_TYPES[path], width, here)
                channel = Channel(node, path, *data, element)
                if not _same(channels.setdefault(property, channel), channel):
                    document.fail(
                        f"{where}: a second channel animates nodes[{node}].{path} differently, expected one; "
                        "export the asset again"
                    )
        return tuple(channels.values())

    def _read_sampler(
        self, sampler: dict, accessor_type: str, width: int, targets: int, where: str
    ) -> tuple[str, KeyTimes, np.ndarray]:
        """Read interpolation, key times and values of a sampler.

        Args:
            accessor_type, width: accessor type and number of components of the property.
            targets: number of properties per key: the number of morph targets for weights, else 1.
        """
        document = self._document
        interpolation = document.text(sampler, "interpolation", "LINEAR").upper()
        if interpolation not in ("STEP", "LINEAR", "CUBICSPLINE"):
            document.fail(
                f"{where}.interpolation: expected STEP, LINEAR or CUBICSPLINE, got {interpolation[:40]!r}"
            )
        times, values = (document.index(sampler, key, "accessors", where) for key in ("input", "output"))
        if times is None or values is None:
            document.fail(f"{where}: expected input and output accessors; export the asset again")
        keys = document.count(times)
        elements = keys * targets * (3 if interpolation == "CUBICSPLINE" else 1)
        # Counted before they are read, so that many invalid samplers cannot take more time than valid ones.
        self._key_values += elements * width
        document.within(self._key_values, "key_values", "animated numbers")
        line = self._key_times.read(document, times, keys, f"{where}.input")
        data = document.floats(values, elements, (accessor_type,), f"{where}.output").astype(np.float64)
        shape = (keys, 3, targets * width) if interpolation == "CUBICSPLINE" else (keys, targets * width)
        return interpolation, line, data.reshape(shape)


def _same(a: Channel, b: Channel) -> bool:
    """Whether two channels of one property are equal: exporters write some twice."""
    if a is b:
        return True
    return a.interpolation == b.interpolation and a.times == b.times and np.array_equal(a.values, b.values)


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
