"""Splats as files: `.ply` in the layout of 3DGS, which every viewer opens, and `.spz`, about ten times smaller.

A file holds one scene. What it stores is not activated (logarithms of scales, logits of opacities) and always
spherical harmonics; `read` and `write` convert. Coordinates are written as they are: +Y up, unlike most scans.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
import torch

from renderers.gaussians.types import Gaussians

SH_C0 = 0.28209479177387814  # the constant harmonic: colour = 0.5 + SH_C0 · f_dc
# 0 and 1 have no finite logit and 0 no logarithm: what is written is the nearest value that has one.
_OPACITY_LIMITS = (1e-7, 1.0 - 1e-7)
_SMALLEST_SCALE = 1e-20

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


def read(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Gaussians:
    """The splats of a `.ply` or `.spz` file as one scene (S = 1) of float32 `Gaussians` with `sh`, K as in the file.

    Raises:
        ValueError: the file is not what its name says, is cut short, or lacks a property; the message says which.
    """
    path = Path(path)
    stored = _read_spz(path) if path.suffix.lower() == ".spz" else _read_ply(path)

    def field(*names: str) -> np.ndarray:
        return np.stack([stored[name] for name in names], -1).astype(np.float32)

    # All harmonics after the first of red, then of green, then of blue.
    rest = sorted((name for name in stored if name.startswith("f_rest_")), key=lambda name: int(name[7:]))
    K = 1 + len(rest) // 3
    if len(rest) % 3 or math.isqrt(K) ** 2 != K or rest != [f"f_rest_{i}" for i in range(len(rest))]:
        raise ValueError(
            f"{path}: {len(rest)} properties f_rest_… fit no SH degree; 0, 9, 24 or 45 were expected"
        )
    constant = field("f_dc_0", "f_dc_1", "f_dc_2")
    others = field(*rest).reshape(-1, 3, K - 1) if rest else np.zeros((len(constant), 3, 0), np.float32)
    sh = np.concatenate([constant[:, :, None], others], -1).transpose(0, 2, 1)
    values = {
        "means": field("x", "y", "z"),
        "quats": field("rot_0", "rot_1", "rot_2", "rot_3"),
        "scales": np.exp(field("scale_0", "scale_1", "scale_2")),
        "opacities": 1.0 / (1.0 + np.exp(-field("opacity")[:, 0].astype(np.float64))),
        "sh": sh,
    }
    tensors = {k: torch.from_numpy(np.ascontiguousarray(v, np.float32))[None] for k, v in values.items()}
    return Gaussians(**tensors).to(device)


def write(path: str | os.PathLike[str], gaussians: Gaussians, *, scene: int = 0) -> None:
    """Write one scene to a `.ply` or, by its name, `.spz` file, which appears complete or not at all.

    Plain `colors` [S, N, 3] are written as harmonics of degree 0. An `.spz` rounds: positions to 1/4096, all else to
    about 8 bits, and holds degree 3 at most.

    Raises:
        ValueError: colours with other than three channels.
        RuntimeError: `.spz` without the library that writes it.
    """
    path = Path(path)
    stored = _stored(gaussians, scene)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.suffix.lower() == ".spz":
            _write_spz(part, stored)
        else:
            _write_ply(part, stored)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _stored(gaussians: Gaussians, scene: int) -> dict[str, np.ndarray]:
    """What a file holds, float32 [N] by property name, in the order of 3DGS."""

    def pick(name: str) -> np.ndarray | None:
        tensor = getattr(gaussians, name)
        if tensor is None:
            return None
        return tensor[scene if tensor.shape[0] > 1 else 0].detach().double().cpu().numpy()

    means, quats, scales, opacities, colors, sh = (
        pick(name) for name in ("means", "quats", "scales", "opacities", "colors", "sh")
    )
    if sh is None:
        if colors.shape[-1] != 3:
            raise ValueError(f"write: a splat file holds RGB, these colors have {colors.shape[-1]} channels")
        sh = ((colors - 0.5) / SH_C0)[:, None]
    opacities = opacities.clip(*_OPACITY_LIMITS)
    quats = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    columns = {axis: means[:, i] for i, axis in enumerate("xyz")}
    columns |= {f"n{axis}": np.zeros(len(means)) for axis in "xyz"}  # unused, but viewers expect normals
    columns |= {f"f_dc_{i}": sh[:, 0, i] for i in range(3)}
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(len(sh), 3 * (sh.shape[1] - 1))
    columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns["opacity"] = np.log(opacities / (1.0 - opacities))
    columns |= {f"scale_{i}": np.log(scales[:, i].clip(_SMALLEST_SCALE)) for i in range(3)}
    columns |= {f"rot_{i}": quats[:, i] for i in range(4)}
    return {name: values.astype(np.float32) for name, values in columns.items()}


def _write_ply(path: Path, stored: dict[str, np.ndarray]) -> None:
    count = len(stored["x"])
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property float {name}" for name in stored] + ["end_header\n"]
    table = np.stack(list(stored.values()), -1).astype("<f4")
    with path.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(table.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _read_ply(path: Path) -> dict[str, np.ndarray]:
    """Columns of a PLY file's vertices by name."""
    content = path.read_bytes()
    end = re.search(rb"end_header\r?\n", content)
    if not content.startswith((b"ply\n", b"ply\r\n")) or end is None:
        raise ValueError(f"{path}: not a PLY file (it starts with {content[:12]!r})")
    lines = [line.split() for line in content[: end.start()].decode("ascii", "replace").splitlines()[1:]]
    kind = next((line[1] for line in lines if line[0] == "format"), "none")
    elements = [line for line in lines if line and line[0] == "element"]
    if elements and elements[0][1] == "chunk":
        raise ValueError(f"{path}: a compressed PLY of PlayCanvas; export it as plain PLY or .spz")
    if not elements or elements[0][1] != "vertex":
        raise ValueError(f"{path}: expected a PLY whose first element is vertex, got {elements[:1]}")
    count = int(elements[0][2])
    first = lines.index(elements[0]) + 1
    last = lines.index(elements[1]) if len(elements) > 1 else len(lines)
    properties = [line for line in lines[first:last] if line and line[0] == "property"]
    if any(line[1] not in _TYPES for line in properties):
        raise ValueError(f"{path}: a vertex of splats holds numbers alone, this one has {properties}")
    names = [line[2] for line in properties]
    needed = ["x", "y", "z", "f_dc_0", "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_3"]
    if missing := [name for name in needed if name not in names]:
        raise ValueError(f"{path}: a PLY without {', '.join(missing)}: these are not the splats of 3DGS")
    body = content[end.end() :]
    if kind == "ascii":
        numbers = np.array(body.split(), np.float64)
        if numbers.size < count * len(names):
            raise ValueError(
                f"{path}: {count} vertices announced, numbers for {numbers.size // len(names)} found"
            )
        table = numbers[: count * len(names)].reshape(count, len(names))
        return {name: table[:, i] for i, name in enumerate(names)}
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(kind)
    if order is None:
        raise ValueError(f"{path}: unknown PLY format {kind!r}")
    vertex = np.dtype([(line[2], order + _TYPES[line[1]]) for line in properties])
    if len(body) < count * vertex.itemsize:
        raise ValueError(
            f"{path}: cut short: {count} vertices of {vertex.itemsize} bytes announced, {len(body)} bytes there"
        )
    table = np.frombuffer(body, vertex, count)
    return {name: table[name] for name in names}


def _gsply():
    try:
        import gsply
    except ImportError as error:
        raise RuntimeError(
            f".spz files need the library gsply ({error}): pip install 'gsply[spz]'"
        ) from error
    return gsply


def _write_spz(path: Path, stored: dict[str, np.ndarray]) -> None:
    gsply = _gsply()

    def field(prefix: str, count: int) -> np.ndarray:
        return np.stack([stored[f"{prefix}{i}"] for i in range(count)], -1)

    count = len(stored["x"])
    rest = sum(name.startswith("f_rest_") for name in stored)
    if rest > 45:
        raise ValueError(f"write: .spz holds SH degree 3 at most, these have {rest // 3 + 1} coefficients")
    harmonics = (
        field("f_rest_", rest).reshape(count, 3, rest // 3) if rest else np.zeros((count, 3, 0), np.float32)
    )
    data = gsply.GSData(
        means=np.stack([stored[axis] for axis in "xyz"], -1),
        scales=field("scale_", 3),
        quats=field("rot_", 4),
        opacities=stored["opacity"],
        sh0=field("f_dc_", 3),
        shN=np.ascontiguousarray(harmonics.transpose(0, 2, 1)),
    )
    gsply.write_spz(path, data)


def _read_spz(path: Path) -> dict[str, np.ndarray]:
    try:
        data = _gsply().read_spz(path)
    except (ValueError, EOFError, IndexError) as error:
        raise ValueError(f"{path}: not a readable .spz file: {error}") from error
    columns = {axis: data.means[:, i] for i, axis in enumerate("xyz")}
    columns |= {f"f_dc_{i}": data.sh0[:, i] for i in range(3)}
    if data.shN is not None and data.shN.size:
        rest = data.shN.transpose(0, 2, 1).reshape(len(data.shN), -1)
        columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns["opacity"] = np.asarray(data.opacities).reshape(-1)
    columns |= {f"scale_{i}": data.scales[:, i] for i in range(3)}
    columns |= {f"rot_{i}": data.quats[:, i] for i in range(4)}
    return columns
