"""Read and write splats: `.ply` in the layout of 3DGS, supported by every viewer, and `.spz`, about ten times smaller.

A file contains one scene. It stores raw parameters (log scales, opacity logits) and always spherical harmonics; `read`
and `write` convert from and to activated parameters.

In this package +Y is up. Viewers of 3DGS expect the axes of COLMAP in a `.ply`, x right, y down, z forward: a scene is
turned by 180° about the x axis when it is written, and turned back when it is read. A header comment in the file names
the direction that is up, e.g. "comment menagerie4d: up -y". Files without it are read as they are, since they may have
been written by version 0.1.0 of this package, with +Y up, or by a program whose axes are unknown: pass `up="-y"` to
turn a scan upright. An `.spz` is defined to have +Y up and is never turned, unless `up` asks for it.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from renderers.arguments import integer, shown
from renderers.files import atomic_path, file_path
from renderers.gaussians.checks import check_gaussians, torch_device
from renderers.gaussians.types import Gaussians

SH_C0 = 0.28209479177387814  # basis function of degree 0: colour = 0.5 + SH_C0 · f_dc
# Opacities 0 and 1 have no finite logit and scale 0 has no logarithm: they are clamped when written.
_OPACITY_LIMITS = (1e-7, 1.0 - 1e-7)
_SMALLEST_SCALE = 1e-20
UP = ("-y", "y")  # directions that `up` accepts
UP_COMMENT = "comment menagerie4d: up "
_NEEDED = ("x", "y", "z", "f_dc_0", "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_3")

_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


def read(
    path: str | os.PathLike[str], *, device: torch.device | str = "cpu", up: str | None = None
) -> Gaussians:
    """Read a `.ply` or `.spz` file as one scene (S = 1).

    Args:
        path: a file with any SH degree; a PLY may be text or binary of either byte order.
        device: device of the tensors.
        up: the direction that is up in the file, "y" or "-y" (y down, as in scans); None is the one that its header
            comment names, and without a comment "y". A file with "-y" is turned by 180° about the x axis.
    Returns:
        float32 `Gaussians` with `sh` [1, N, K, 3], K as in the file.
    Raises:
        ValueError: the file does not have the format of its suffix, is truncated, or lacks a property; or `up` is
            another direction.
        RuntimeError: `.spz` without the gsply library.
    """
    path = file_path(path, "ply.read: path")
    where = torch_device(device, "ply.read: device")
    if up is not None:
        check_up(up, "ply.read")
    columns, stored = (_read_spz(path), "y") if path.suffix.lower() == ".spz" else _read_ply(path)
    if up is None and stored not in UP:
        raise ValueError(f"{path}: its comment names {stored!r} as up, expected y or -y; pass `up`")
    if (up or stored) == "-y":
        columns = _turned(columns, back=True)

    def field(*names: str) -> np.ndarray:
        return np.stack([columns[name] for name in names], -1).astype(np.float32)

    # f_rest_i holds coefficients 1..K-1 of the red channel, then of green, then of blue.
    rest = sorted((name for name in columns if name.startswith("f_rest_")), key=lambda name: int(name[7:]))
    K = 1 + len(rest) // 3
    if len(rest) % 3 or math.isqrt(K) ** 2 != K or rest != [f"f_rest_{i}" for i in range(len(rest))]:
        raise ValueError(
            f"{path}: expected 0, 9, 24 or 45 properties f_rest_… (SH degree 0-3), got {len(rest)}"
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
    return Gaussians(**tensors).to(where)


def write(
    path: str | os.PathLike[str], gaussians: Gaussians, *, scene: int = 0, up: str | None = None
) -> None:
    """Write one scene to a binary `.ply` or an `.spz` file, chosen by the suffix. The file is written atomically.

    `colors` [S, N, 3] are written as spherical harmonics of degree 0. An `.spz` is quantised (positions to 1/4096, the
    rest to about 8 bits) and stores at most degree 3.

    Args:
        path: the file to write or replace.
        gaussians: scenes with 3 colour channels.
        scene: index of the scene to write; fields shared by all scenes are used for any index.
        up: the direction that is up in the file. "-y", the default of `.ply`, is what viewers of 3DGS expect; "y",
            the default of `.spz`, writes the coordinates of this package.
    Raises:
        IndexError: there is no such scene.
        OSError: the file cannot be written.
        TypeError, ValueError: an argument is of another type, or a field has invalid values (NaN, negative scales).
        ValueError: the colours do not have 3 channels, or the SH degree is too high for `.spz`.
        RuntimeError: `.spz` without the gsply library.
    """
    path = file_path(path, "ply.write: path")
    is_spz = path.suffix.lower() == ".spz"
    if up is None:
        up = "y" if is_spz else "-y"
    check_up(up, "ply.write")
    scenes = check_gaussians(gaussians)["S"]
    scene = integer(scene, "ply.write: scene")
    if not -scenes <= scene < scenes:
        raise IndexError(f"ply.write: scene: expected an index below {scenes}, got {scene}")
    columns = _to_columns(gaussians, scene)
    if up == "-y":
        columns = _turned(columns)
    with atomic_path(path) as part:
        if is_spz:
            _write_spz(part, columns)
        else:
            _write_ply(part, columns, up)


def check_up(up: str, function: str) -> None:
    """Check a direction that is up in a file.

    Raises:
        ValueError: it is not one of `UP`.
    """
    if not isinstance(up, str) or up not in UP:
        raise ValueError(
            f'{function}: up: expected "-y" (y down, as viewers of 3DGS do) or "y", got {shown(up)}'
        )


def _turned(columns: dict[str, np.ndarray], back: bool = False) -> dict[str, np.ndarray]:
    """Turn a scene by 180° about the x axis, D = diag(1, −1, −1), or `back` by −180°.

    Only signs and the order of values change, so that turning back gives the same bits.

    Centres are D μ. The rotation of a Gaussian is D R: with the quaternion d = (0, ±1, 0, 0) of ±D, d ⊗ (w, x, y, z) is
    ±(−x, w, −z, y). Real spherical harmonics are even (m ≥ 0) or odd (m < 0) in y, and l + m counts the factors of z
    in them, so that D changes the sign of the coefficient (l, m) by (−1)^(l + |m|), and once more if m < 0.
    """
    turned = dict(columns)
    w, x, y, z = (columns[f"rot_{i}"] for i in range(4))
    quaternion = (x, -w, z, -y) if back else (-x, w, -z, y)
    turned |= {f"rot_{i}": values for i, values in enumerate(quaternion)}
    turned |= {axis: -columns[axis] for axis in "yz"}
    count = sum(name.startswith("f_rest_") for name in columns) // 3
    for coefficient in range(count):
        degree = math.isqrt(coefficient + 1)
        order = coefficient + 1 - degree * (degree + 1)
        if (degree + abs(order) + (order < 0)) % 2:
            for channel in range(3):
                name = f"f_rest_{channel * count + coefficient}"
                turned[name] = -columns[name]
    return turned


def _to_columns(gaussians: Gaussians, scene: int) -> dict[str, np.ndarray]:
    """Convert one scene to the properties of a file: name → float32 [N] raw parameters, in the order of 3DGS."""

    def pick(tensor: torch.Tensor) -> np.ndarray:
        return tensor[scene if tensor.shape[0] > 1 else 0].detach().double().cpu().numpy()

    means, quats, scales, opacities = map(
        pick, (gaussians.means, gaussians.quats, gaussians.scales, gaussians.opacities)
    )
    if gaussians.sh is not None:
        sh = pick(gaussians.sh)
    elif gaussians.colors is not None and gaussians.colors.shape[-1] == 3:
        sh = ((pick(gaussians.colors) - 0.5) / SH_C0)[:, None]
    else:
        channels = (
            "neither colors nor sh" if gaussians.colors is None else f"{gaussians.colors.shape[-1]} channels"
        )
        raise ValueError(f"write: a splat file stores RGB colours, expected 3 channels or sh, got {channels}")
    opacities = opacities.clip(*_OPACITY_LIMITS)
    quats = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    columns = {axis: means[:, i] for i, axis in enumerate("xyz")}
    columns |= {f"n{axis}": np.zeros(len(means)) for axis in "xyz"}  # unused, but expected by some viewers
    columns |= {f"f_dc_{i}": sh[:, 0, i] for i in range(3)}
    rest = sh[:, 1:].transpose(0, 2, 1).reshape(len(sh), 3 * (sh.shape[1] - 1))
    columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns["opacity"] = np.log(opacities / (1.0 - opacities))
    columns |= {f"scale_{i}": np.log(scales[:, i].clip(_SMALLEST_SCALE)) for i in range(3)}
    columns |= {f"rot_{i}": quats[:, i] for i in range(4)}
    return {name: values.astype(np.float32) for name, values in columns.items()}


def _write_ply(path: Path, columns: dict[str, np.ndarray], up: str) -> None:
    count = len(columns["x"])
    axes = "x right, y down, z forward, as in COLMAP and 3DGS" if up == "-y" else "x right, y up, z backward"
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"{UP_COMMENT}{up} ({axes})",
        f"element vertex {count}",
    ]
    header += [f"property float {name}" for name in columns] + ["end_header\n"]
    table = np.stack(list(columns.values()), -1).astype("<f4")
    with path.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(table.tobytes())
        file.flush()
        os.fsync(file.fileno())


def _read_ply(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """Read a PLY file: its vertex properties, name → [N], and the direction that is up in it."""
    with open(path, "rb") as file:
        content = file.read()
    end = re.search(rb"end_header\r?\n", content)
    if not content.startswith((b"ply\n", b"ply\r\n")) or end is None:
        raise ValueError(
            f"{path}: expected a PLY file (starting with 'ply'), got a file that starts with {content[:12]!r}"
        )
    text = content[: end.start()].decode("ascii", "replace").splitlines()[1:]
    comment = next((line for line in text if line.startswith(UP_COMMENT)), f"{UP_COMMENT}y")
    up = comment.removeprefix(UP_COMMENT).partition(" ")[0]
    try:
        kind, count, properties = _parse_header(path, [line.split() for line in text])
    except IndexError as error:
        raise ValueError(f"{path}: malformed PLY header, a line has too few words") from error
    return _read_body(path, content[end.end() :], kind, count, properties), up


def _parse_header(path: Path, lines: list[list[str]]) -> tuple[str, int, list[list[str]]]:
    """Return the format, the number of vertices, and their properties as lists of words."""
    lines = [line for line in lines if line]
    kind = next((line[1] for line in lines if line[0] == "format"), "none")
    elements = [line for line in lines if line[0] == "element"]
    if elements and elements[0][1] == "chunk":
        raise ValueError(
            f"{path}: compressed PLY files (PlayCanvas) are not supported; export it as plain PLY or .spz"
        )
    if not elements or elements[0][1] != "vertex" or not elements[0][2].isdecimal():
        raise ValueError(f"{path}: expected a PLY file whose first element is 'vertex', got {elements[:1]}")
    first = lines.index(elements[0]) + 1
    last = lines.index(elements[1]) if len(elements) > 1 else len(lines)
    properties = [line for line in lines[first:last] if line[0] == "property"]
    if any(line[1] not in _TYPES for line in properties):
        raise ValueError(f"{path}: expected scalar vertex properties only, got {properties}")
    names = [line[2] for line in properties]
    if missing := [name for name in _NEEDED if name not in names]:
        raise ValueError(
            f"{path}: expected the vertex properties of 3DGS splats, missing {', '.join(missing)}"
        )
    return kind, int(elements[0][2]), properties


def _read_body(
    path: Path, body: bytes, kind: str, count: int, properties: list[list[str]]
) -> dict[str, np.ndarray]:
    """Read the values of all vertices; arguments as returned by `_parse_header`."""
    names = [line[2] for line in properties]
    if kind == "ascii":
        try:
            numbers = np.array(body.split(), np.float64)
        except ValueError as error:
            raise ValueError(
                f"{path}: expected numbers after the header, got other words ({error})"
            ) from error
        if numbers.size < count * len(names):
            raise ValueError(
                f"{path}: truncated: the header declares {count} vertices, the file contains "
                f"{numbers.size // len(names)}"
            )
        table = numbers[: count * len(names)].reshape(count, len(names))
        return {name: table[:, i] for i, name in enumerate(names)}
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(kind)
    if order is None:
        raise ValueError(f"{path}: unknown PLY format {kind!r}")
    vertex = np.dtype([(line[2], order + _TYPES[line[1]]) for line in properties])
    if len(body) < count * vertex.itemsize:
        raise ValueError(
            f"{path}: truncated: the header declares {count} vertices of {vertex.itemsize} bytes, the file contains "
            f"{len(body)} bytes of them"
        )
    records = np.frombuffer(body, vertex, count)
    return {name: records[name] for name in names}


def _gsply() -> ModuleType:
    try:
        import gsply
    except ImportError as error:
        raise RuntimeError(
            f".spz files require the gsply library, which cannot be imported ({error}): pip install 'gsply[spz]'"
        ) from error
    return gsply


def _write_spz(path: Path, columns: dict[str, np.ndarray]) -> None:
    gsply = _gsply()

    def field(prefix: str, count: int) -> np.ndarray:
        return np.stack([columns[f"{prefix}{i}"] for i in range(count)], -1)

    count = len(columns["x"])
    rest = sum(name.startswith("f_rest_") for name in columns)
    if rest > 45:
        raise ValueError(
            f"write: .spz stores at most 16 SH coefficients (degree 3), got {rest // 3 + 1}; write a .ply"
        )
    harmonics = (
        field("f_rest_", rest).reshape(count, 3, rest // 3) if rest else np.zeros((count, 3, 0), np.float32)
    )
    data = gsply.GSData(
        means=np.stack([columns[axis] for axis in "xyz"], -1),
        scales=field("scale_", 3),
        quats=field("rot_", 4),
        opacities=columns["opacity"],
        sh0=field("f_dc_", 3),
        shN=np.ascontiguousarray(harmonics.transpose(0, 2, 1)),
    )
    gsply.write_spz(path, data)


def _read_spz(path: Path) -> dict[str, np.ndarray]:
    try:
        data = _gsply().read_spz(path)
    except (ValueError, EOFError, IndexError) as error:
        raise ValueError(f"{path}: cannot be read as an .spz file: {error}") from error
    columns = {axis: data.means[:, i] for i, axis in enumerate("xyz")}
    columns |= {f"f_dc_{i}": data.sh0[:, i] for i in range(3)}
    if data.shN is not None and data.shN.size:
        rest = data.shN.transpose(0, 2, 1).reshape(len(data.shN), -1)
        columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns["opacity"] = np.asarray(data.opacities).reshape(-1)
    columns |= {f"scale_{i}": data.scales[:, i] for i in range(3)}
    columns |= {f"rot_{i}": data.quats[:, i] for i in range(4)}
    return columns
