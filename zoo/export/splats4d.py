"""Moving Gaussians as one .4dgs file (https://4dgs.dev), and still ones as glTF, by the package fourdgs."""

from __future__ import annotations

import os
from types import ModuleType

import numpy as np

from renderers.files import atomic_path, file_path
from zoo.errors import ModelError
from zoo.formats import check_suffix


def write_4dgs(
    path: str | os.PathLike[str],
    means: np.ndarray,
    quats: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
    times: np.ndarray,
) -> None:
    """Write N Gaussians over T frames, atomically.

    The file has every Gaussian once per frame, valid until the next frame, with the velocity that takes it there:
    centres are interpolated linearly between frames, and rotations stay until the next one. The last frame lasts as
    long as the mean of the others. The format rounds all values.

    Args:
        path: of the file.
        means: [T, N, 3], metres.
        quats: [T, N, 4], wxyz, of any length but 0.
        scales: [T, N, 3], standard deviations, or [1, N, 3] if they do not change; they stay until the next frame.
        opacities: [N], 0..1.
        colors: [N, 3], 0..1, sRGB-encoded.
        times: [T], seconds, from 0.

    Raises:
        ModelError: fourdgs is not installed.
        ValueError: the name does not end in .4dgs.
    """
    path = file_path(path, "write_4dgs: path")
    check_suffix(path, (".4dgs",), "moving splats")
    fourdgs = _fourdgs(path)
    T, N, _ = means.shape
    step = float(np.diff(times).mean()) if T > 1 else 1.0
    ends = np.append(times[1:], times[-1] + step)
    motions = np.diff(means, axis=0, append=means[-1:]) / (ends - times)[:, None, None]
    quats = quats / np.linalg.norm(quats, axis=-1, keepdims=True)

    def each(values: np.ndarray) -> np.ndarray:
        """Values per Gaussian, for every frame."""
        return np.tile(values, (T, *[1] * (values.ndim - 1))).astype(np.float32)

    scene = fourdgs.GaussianSet(
        positions=means.reshape(-1, 3).astype(np.float32),
        scales=np.broadcast_to(scales, means.shape).reshape(-1, 3).astype(np.float32),
        rotations=quats[..., [1, 2, 3, 0]].reshape(-1, 4).astype(np.float32),
        colors=each(np.concatenate([colors, opacities[:, None]], 1)),
        motions=motions.reshape(-1, 3).astype(np.float32),
        mu_t=np.repeat(times, N).astype(np.float32),
        sigma_t=np.full(T * N, np.inf, np.float32),
        win_lo=np.repeat(times, N),
        win_hi=np.repeat(ends, N),
    )
    with atomic_path(path) as part:
        # "fine" rounds centres to within 2 % of the median standard deviation.
        fourdgs.write(str(part), scene, float(ends[-1]), options=fourdgs.WriteOptions(profile="fine"))


def write_gltf_splats(
    path: str | os.PathLike[str],
    means: np.ndarray,
    quats: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
) -> None:
    """Write N still Gaussians as glTF with KHR_gaussian_splatting, atomically.

    Args:
        path: of the .glb file.
        means: [N, 3], metres, +Y up.
        quats, scales, opacities, colors: as for `write_4dgs`, quats [N, 4].

    Raises:
        ModelError: fourdgs is not installed.
        ValueError: the name does not end in .glb.
    """
    path = file_path(path, "write_gltf_splats: path")
    check_suffix(path, (".glb",), "still splats")
    fourdgs = _fourdgs(path)
    N = len(means)
    quats = quats / np.linalg.norm(quats, axis=-1, keepdims=True)
    scene = fourdgs.GaussianSet(
        positions=means.astype(np.float32),
        scales=scales.astype(np.float32),
        rotations=quats[:, [1, 2, 3, 0]].astype(np.float32),
        colors=np.concatenate([colors, opacities[:, None]], 1).astype(np.float32),
        motions=np.zeros((N, 3), np.float32),
        mu_t=np.zeros(N, np.float32),
        sigma_t=np.full(N, np.inf, np.float32),
        win_lo=np.zeros(N),
        win_hi=np.full(N, np.inf),
    )
    with atomic_path(path) as part:
        fourdgs.to_gltf(str(part), scene, 0.0, cutoff=0.05, coordinate_system="y-up-right-handed")


def _fourdgs(path: object) -> ModuleType:
    try:
        import fourdgs
    except ImportError as error:
        raise ModelError(
            f"{path}: writing it needs fourdgs ({error}); pip install 'menagerie4d[animate]', or save as .ply"
        ) from error
    return fourdgs
