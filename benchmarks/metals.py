"""Compare the shading of spheres with Cycles: `python -m benchmarks.metals [--out SHEET.png]`.

For every metallic, roughness and base colour, the mean linear colour of a sphere in the OpenGL back end is divided by
that in Cycles under the same light. The sheet shows both, one above the other. Takes about five minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from renderers import gltf
from renderers.cameras import orbit_cameras
from renderers.meshes import blender, render_clip
from renderers.meshes.clip import GREY, RenderSettings, Shot, composite

METALLIC, ROUGHNESS = (0.0, 0.5, 1.0), (0.1, 0.25, 0.5, 0.75, 1.0)
COLOURS = {"white": (1.0, 1.0, 1.0), "grey": (0.5, 0.5, 0.5), "gold": (1.0, 0.6, 0.1)}
SIZE, SAMPLES = 96, 256


def sphere(metallic: float, roughness: float, colour: tuple[float, float, float], folder: Path) -> Path:
    """Write a smooth sphere with one material; return its path."""
    mesh = trimesh.creation.icosphere(subdivisions=4)
    material = trimesh.visual.material.PBRMaterial(
        baseColorFactor=[*colour, 1.0], metallicFactor=metallic, roughnessFactor=roughness
    )
    mesh.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(mesh.vertices), 2)), material=material)
    mesh.vertex_normals  # noqa: B018  computed, and therefore exported
    path = folder / f"{metallic:g}-{roughness:g}-{'-'.join(f'{c:g}' for c in colour)}.glb"
    mesh.export(path, include_normals=True)
    return path


def shot() -> Shot:
    """One view of the sphere, from slightly above."""
    cameras = orbit_cameras(
        np.radians([20.0]), np.radians(15.0), 3.0, fov_y=np.radians(40.0), width=SIZE, height=SIZE
    )
    return Shot(None, np.zeros(1), np.diag([0.7, 0.7, 0.7, 1.0]), cameras)


def linear_mean(frame: np.ndarray) -> np.ndarray:
    """Mean linear RGB [3] of the opaque pixels of a frame uint8 [H, W, 4]."""
    pixels = frame[frame[..., 3] == 255][:, :3] / 255.0
    return np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4).mean(axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.metals", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("metals.png"), help="the sheet")
    parser.add_argument("--json", type=Path, help="write the means of Cycles to this file")
    args = parser.parse_args()
    view, rows, reference, worst = shot(), [], {}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, colour in COLOURS.items():
            ours_row, theirs_row = [], []
            for metallic, roughness in itertools.product(METALLIC, ROUGHNESS):
                path = sphere(metallic, roughness, colour, Path(folder))
                ours = render_clip(gltf.load(path), view, RenderSettings(samples=4), backend="opengl").frames[
                    0, 0
                ]
                theirs = blender.render_clip(path, view, samples_per_pixel=SAMPLES).frames[0, 0]
                truth = linear_mean(theirs)
                ratio = linear_mean(ours) / truth
                reference[f"{name} {metallic:g} {roughness:g}"] = [round(float(value), 5) for value in truth]
                worst = max(worst, float(abs(ratio - 1.0).max()))
                print(
                    f"{name:6} metallic {metallic:g} roughness {roughness:<4g}",
                    *(f"{r:.3f}" for r in ratio),
                    flush=True,
                )
                ours_row.append(composite(ours, GREY)[..., :3])
                theirs_row.append(composite(theirs, GREY)[..., :3])
            rows += [np.concatenate(ours_row, axis=1), np.concatenate(theirs_row, axis=1)]
    print(f"largest deviation of a channel's mean: {worst:.1%}")
    Image.fromarray(np.concatenate(rows)).save(args.out)
    if args.json:
        args.json.write_text(json.dumps(reference, indent=1) + "\n")


if __name__ == "__main__":
    main()
