"""Render the gallery: an overview of species and seeds, a sheet of motions per species, and a README page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from factory.sources.creatures import catalogue as creatures
from factory.sources.creatures.motion import FPS, SECONDS
from renderers import fixed, gltf
from renderers.cameras import orbit_cameras, orbit_rotations
from renderers.meshes import WHITE, Shot, composite, render_clip

FOV_Y = np.radians(30.0)
SEEDS = range(6)
STRIPS, FRAMES = 6, 8
CELL, CAPTION = 104, 15
_INK = (60, 60, 64)


def write(out: Path) -> list[Path]:
    """Write `species.png` (unlabelled), one sheet per species, and README.md, and return their paths."""
    out.mkdir(parents=True, exist_ok=True)
    portraits, pages = [], []
    for species in creatures.species():
        seeds = [_turned(creatures.build(species, seed, []), [35.0])[0] for seed in SEEDS]
        portraits.append(_row(seeds))
        pages.append(_save(_sheet(species), out / f"{species}.png"))
    halves = -(-len(portraits) // 2)
    columns = [np.concatenate(portraits[:halves]), np.concatenate(portraits[halves:])]
    if len(portraits) % 2:
        columns[1] = np.concatenate([columns[1], np.full_like(portraits[0], 255)])
    everybody = out / "species.png"
    Image.fromarray(np.concatenate(columns, axis=1)).save(everybody, optimize=True)
    page = out / "README.md"
    page.write_text(_page(), encoding="utf-8")
    return [everybody, *pages, page]


def _sheet(species: str) -> Image.Image:
    """Draw a turntable of the portrait, then evenly spaced training motions captioned with their sentences."""
    motions = [motion for motion in creatures.motions(species) if motion.split == "train"]
    chosen = [motions[k] for k in np.linspace(0, len(motions) - 1, STRIPS).round().astype(int)]
    glb = creatures.build(species, 0, [motion.name for motion in chosen])
    sheet = Image.new("RGB", (FRAMES * CELL, CELL + STRIPS * (CELL + CAPTION)), WHITE)
    sheet.paste(Image.fromarray(_row(_turned(glb, np.linspace(0, 360, FRAMES, endpoint=False)))), (0, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for k, motion in enumerate(chosen):
        top = CELL + k * (CELL + CAPTION)
        draw.text((6, top), motion.sentence, fill=_INK, font=font)
        sheet.paste(Image.fromarray(_row(_strip(glb, k))), (0, top + CAPTION))
    return sheet


def _turned(glb: bytes, azimuths_deg: ArrayLike) -> np.ndarray:
    """Render the rest pose from several azimuths, uint8 [V, H, W, 3]."""
    return _render(glb, None, np.zeros(1), azimuths_deg)[:, 0]


def _strip(glb: bytes, animation: int) -> np.ndarray:
    """Render one animation at evenly spaced times, uint8 [T, H, W, 3]."""
    times = np.linspace(0, SECONDS - 1 / FPS, FRAMES)
    return _render(glb, animation, times, [35.0])[0]


def _render(glb: bytes, animation: int | None, times: np.ndarray, azimuths_deg: ArrayLike) -> np.ndarray:
    asset = gltf.load(glb, name="gallery")
    points = np.concatenate([asset.pose(animation, time).positions for time in times])
    centre = (points.min(0) + points.max(0)) / 2
    to_world = np.eye(4)
    to_world[:3, 3] = -centre
    azimuths, elevation = np.radians(np.asarray(azimuths_deg, float)), np.radians(12.0)
    seen = np.einsum("vij,nj->vni", orbit_rotations(azimuths, elevation), points - centre)
    half = 0.95 * fixed.tan(FOV_Y / 2)  # the smallest distance at which all points are in every view
    distance = float((np.abs(seen[..., :2]).max(-1) / half - seen[..., 2]).max())
    side = 2 * CELL
    cameras = orbit_cameras(azimuths, elevation, distance, fov_y=FOV_Y, width=side, height=side)
    clip = render_clip(asset, Shot(animation, times, to_world, cameras))
    frames = composite(clip.frames, WHITE).astype(np.float32)
    views, count = frames.shape[:2]
    halved = frames.reshape(views, count, CELL, 2, CELL, 2, 3).mean((3, 5))
    return halved.round().astype(np.uint8)


def _row(cells: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(cells), axis=1)


def _save(image: Image.Image, path: Path) -> Path:
    image.quantize(144, dither=Image.Dither.NONE).save(path, optimize=True)
    return path


def _page() -> str:
    lines = [
        "# Creatures",
        "",
        "Made by `python -m factory.sources.creatures gallery`; CC0, like all that the generator makes.",
        "Each row of the first picture is one species, its columns are seeds 0–5.",
        "",
        "![all species](species.png)",
    ]
    for species in creatures.species():
        motions = creatures.motions(species)
        lines += ["", f"## {species.capitalize()}", "", f"![{species}]({species}.png)", ""]
        for split, title in (("train", "Training"), ("heldout", "Held out")):
            said = "; ".join(motion.sentence for motion in motions if motion.split == split)
            lines += [f"{title}: {said}.", ""]
    return "\n".join(lines).rstrip() + "\n"
