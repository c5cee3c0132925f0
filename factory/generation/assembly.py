"""Collect the kept videos of an object into a folder of motion videos, the layout that DIMO is trained from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cluster import task_key
from factory.generation.jobs import AssembleJob, ViewGeometry, key_of
from factory.generation.takes import Generation, TakeState
from factory.motion_videos.plan import MotionRecipe
from factory.motion_videos.run import SubjectVideos
from factory.motion_videos.stage import LEAST_MOTIONS, folder_of, provenance_of, slug
from factory.sources.opening import AssetCache

INDEX = "motions.json"
LEAST_VIEWS = 2  # a motion space cannot be trained from one view


@dataclass
class Assembly:
    """Which takes are assembled, and how.

    Attributes:
        videos: the result; `fault` says why nothing is assembled.
        jobs, keys: index of the take → payload and key of its task.
        names: index of the take → name of the motion.
        frames: T. resolution: side of the images.
    """

    videos: SubjectVideos
    jobs: dict[int, AssembleJob] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    frames: int = 0
    resolution: int = 0


def motion_file(name: str, key: str) -> str:
    """Name of a motion's files, without suffix."""
    return f"{slug(name)}-{key[:8]}"


def plan_assembly(generation: Generation) -> Assembly:
    """Choose the frames, size and names of the kept videos.

    All motions of a folder have the same number of frames and views and the same size. The number of frames and the
    size are the smallest of any kept video, and at most those of the recipe. Videos with another number of views than
    most are left out.
    """
    recipe, takes = generation.recipe, generation.takes
    videos = SubjectVideos(generation.still.name)
    videos.rejected.update(take.fault for take in takes if take.fault)
    assembly = Assembly(videos)
    kept = {index: take.final.summary for index, take in enumerate(takes) if take.kept and take.final}
    if not kept:
        videos.fault = f"none of {len(takes)} videos was kept: {_reasons(videos.rejected)}"
        return assembly
    views, _ = Counter(summary["views"] for summary in kept.values()).most_common(1)[0]
    if views < LEAST_VIEWS:
        videos.fault = (
            f"{len(kept)} videos were kept in {generation.folder}, each from one view, and a motion space needs "
            f"several: give a multi-view model with --views-model module:function, or a 3D model with --asset and an "
            f"MV-VDM, such as --video-model mvvdm/tiny"
        )
        return assembly
    same = {index: summary for index, summary in kept.items() if summary["views"] == views}
    if len(same) < len(kept):
        videos.rejected[f"another number of views than {views}"] += len(kept) - len(same)
    training = sum(not takes[index].heldout for index in same)
    if training < LEAST_MOTIONS:
        videos.fault = (
            f"{training} of {len(takes)} videos were kept to train on, and a motion space needs at least "
            f"{LEAST_MOTIONS}: {_reasons(videos.rejected)}"
        )
        return assembly
    assembly.frames = min(recipe.frames, *(summary["frames"] for summary in same.values()))
    assembly.resolution = min(
        recipe.resolution, *(max(summary["height"], summary["width"]) for summary in same.values())
    )
    for index, summary in same.items():
        _add(assembly, index, takes[index], summary["frames"])
    return assembly


def _add(assembly: Assembly, index: int, take: TakeState, frames: int) -> None:
    name, number = slug(take.text), 1
    while name in assembly.names.values():
        number += 1
        name = f"{slug(take.text)}-{number}"
    phases = np.arange(assembly.frames) / assembly.frames
    picked = tuple(int(frame) for frame in np.rint(phases * frames))
    video = take.final
    matte = take.views_matte or take.matte
    assert video is not None and matte is not None
    key = key_of("assemble", video.key, matte.key, json.dumps([picked, assembly.resolution]))
    file = f"{folder_of(assembly.videos.name)}/{motion_file(name, key)}"
    assembly.names[index], assembly.keys[index] = name, key
    assembly.jobs[index] = AssembleJob(take.final_folder, file, picked, assembly.resolution)


def _reasons(rejected: Counter[str]) -> str:
    """ "10 × motion, 3 × jumps; …" and how to keep more."""
    shown = ", ".join(f"{count} × {reason}" for reason, count in rejected.most_common(4)) or "no reason given"
    return f"{shown}. Raise --motions, or give other thresholds with --thresholds FILE --only judge"


def motion_cameras(
    geometry: ViewGeometry, height: int, width: int, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cameras of the assembled frames: world_to_camera [V, 4, 4] and K [V, 3, 3].

    Frames are padded to squares and resized; the focal length in pixels follows. The world is scaled so that the
    images cover as much of it as those of rendered motion videos (`MotionRecipe`), for which DIMO's rates are chosen:
    with focal length f and side R in pixels, a camera at distance d covers d·R/(2f) to each side of its centre.
    """
    recipe = MotionRecipe()
    focal = height / 2 / np.tan(np.radians(geometry.fov_y_deg) / 2) * resolution / max(height, width)
    reach = np.tan(np.radians(recipe.fov_y_deg) / 2) * recipe.distance
    cameras = geometry.cameras(resolution, resolution, distance=float(reach * 2 * focal / resolution))
    K = np.array([[focal, 0, resolution / 2], [0, focal, resolution / 2], [0, 0, 1]])
    return cameras.world_to_camera, np.repeat(K[None], len(geometry), 0)


def write_index(generation: Generation, assembly: Assembly, root: Path) -> None:
    """Write `motions.json` once all motions are assembled, and complete `assembly.videos`."""
    from zoo.dimo.data import MotionVideos

    videos = assembly.videos
    done = {}
    for index in assembly.jobs:
        take = generation.takes[index]
        if take.assembled is not None and take.assembled.status == "done":
            done[index] = take
        elif take.assembled is not None:
            videos.quarantined[take.text] = take.assembled.reason
    if sum(not take.heldout for take in done.values()) < LEAST_MOTIONS:
        cause = next(iter(videos.quarantined.values()), "")
        videos.fault = f"{len(videos.quarantined)} motions could not be assembled: {cause}"
        return
    folder = root / folder_of(videos.name)
    cameras = []
    for take in done.values():
        assert take.final is not None and take.geometry is not None
        size = take.final.summary["height"], take.final.summary["width"]
        cameras.append(motion_cameras(take.geometry, *size, assembly.resolution))
    first = next(iter(done.values()))
    assert first.geometry is not None
    MotionVideos(
        folder=folder,
        object=videos.name,
        names=tuple(assembly.names[index] for index in done),
        sentences=tuple(take.text for take in done.values()),
        splits=tuple("heldout" if take.heldout else "train" for take in done.values()),
        files=tuple(Path(assembly.jobs[index].file).name for index in done),
        frames=assembly.frames,
        resolution=assembly.resolution,
        phases=tuple(np.arange(assembly.frames) / assembly.frames),
        world_to_camera=np.stack([each[0] for each in cameras]),
        K=np.stack([each[1] for each in cameras]),
        train_views=tuple(range(len(first.geometry))),
        heldout_views=(),
        provenance=_provenance(generation, done),
    ).write()
    videos.folder = folder
    videos.motions, videos.heldout = len(done), sum(take.heldout for take in done.values())
    splits = json.dumps([[assembly.names[index], take.heldout] for index, take in done.items()])
    videos.key = task_key("generated", splits, *(assembly.keys[index] for index in done))


def remove_stale(folder: Path, keep: Collection[str]) -> list[str]:
    """Remove the motions of an earlier run that this run does not keep, so that no model is trained with them.

    Only a folder whose index says that its motions were generated is changed.

    Args:
        folder: of the motion videos.
        keep: files that stay, names without suffix; without any, the index is removed too.

    Returns:
        Names of the removed files.
    """
    index = folder / INDEX
    if not index.is_file() or "generated" not in json.loads(index.read_text()).get("provenance", {}):
        return []
    if not keep:
        index.unlink()
    stale = sorted(file for file in folder.glob("*.npy") if file.stem not in keep)
    for file in stale:
        file.unlink()
    return [file.name for file in stale]


def _provenance(generation: Generation, done: dict[int, TakeState]) -> dict[str, Any]:
    """Source, author and licence of the object, and what generated the videos."""
    still, recipe = generation.still, generation.recipe
    record, sha256 = still.record, still.record.fingerprint.partition(":")[2]
    if still.is_model:
        asset, sha256 = AssetCache().open(record)
        record = record.completed(asset.metadata)
    first = next(iter(done.values()))
    assert first.final is not None and first.geometry is not None
    lengths = [
        take.final.summary["frames"] / take.final.summary["fps"] for take in done.values() if take.final
    ]
    generated = {
        "video_model": recipe.video_model.to_json(),
        "views_model": recipe.views_model.to_json(),
        "model": first.final.summary["provenance"],
        "prompts": sorted({take.origin for take in done.values()}),
        "views": first.geometry.to_json(),
        "thresholds": recipe.thresholds.to_json(),
        "prompted": len(generation.takes),
        "kept": len(generation.kept),
    }
    values = provenance_of({**record.to_json(), "asset_sha256": sha256})
    values |= {"generated": generated, "seconds": round(float(np.mean(lengths)), 3)}
    # The ledger's records are sorted by key: sorting here too gives a resumed run the same bytes.
    return json.loads(json.dumps(values, sort_keys=True))
