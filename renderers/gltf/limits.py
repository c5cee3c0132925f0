"""Errors of the glTF reader, and limits on what a file may make it allocate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from renderers.arguments import integer


class GltfError(ValueError):
    """The file is not a usable glTF 2.0 asset. The message names the asset, the fault and what to do."""


class UnsupportedGltf(GltfError):
    """The file is valid but requires a feature that is not supported. The message says what to do."""


class LimitExceeded(GltfError):
    """The file exceeds one of `Limits`. The whole file is refused, even if only an animation is too large."""


@contextmanager
def errors_prefixed(prefix: str) -> Iterator[None]:
    """Prepend the name of the asset, and the place in it, to the messages of errors raised inside."""
    try:
        yield
    except GltfError as error:
        raise type(error)(f"{prefix}: {error}") from error.__cause__


@dataclass(frozen=True)
class Limits:
    """Upper bounds on the contents of a file, so that memory and time are bounded for any input.

    Attributes:
        file_bytes: size of the file and of all files it references, together.
        json_values: number of values in the JSON part.
        nodes: number of nodes, of joints over all skins, and of mesh primitives over all nodes.
        vertices, triangles: totals over all instances, after conversion of strips and of missing normals.
        morph_vertices: vertices times morph targets, over all instances.
        skin_weights: numbers in the dense blocks of skin weights (vertices times the joints used near them).
        key_values: numbers in all animation samplers.
        texture_side, texture_pixels: side of one image, and pixels of all images together.
    """

    file_bytes: int = 1 << 29
    json_values: int = 4_000_000
    nodes: int = 20_000
    vertices: int = 2_000_000
    triangles: int = 4_000_000
    morph_vertices: int = 1 << 25
    skin_weights: int = 1 << 27
    key_values: int = 1 << 25
    texture_side: int = 16_384
    texture_pixels: int = 1 << 28

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, integer(value, f"Limits.{name}", 0))
