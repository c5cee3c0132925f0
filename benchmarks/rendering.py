"""Rendering speed, compared with pyrender, with rasterising alone, and on Ray with plain processes.

    python -m benchmarks.rendering [raster] [cpu] [job] [ray] --assets FOLDER

raster  CPU time of the back ends opengl, cpu and pyrender on the same shots, alternating, one core, 256 px, 4 samples.
cpu     CPU time per view of the back end cpu and of opengl on five models and four creatures, alternating, one core, 4
        samples, and of cpu with 1 sample; --size and --frames change what is drawn.
job     fraction of a worker's time spent on rasterising when complete clips are produced: load, render, encode, row.
ray     the same clips with one Ray worker, with two, and with two plain processes without Ray.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

ONE_CORE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
os.environ.update(ONE_CORE)  # must be set before the imports below

from benchmarks.common import describe_machine  # noqa: E402
from cluster import Ledger, Record, Task, run, run_inline  # noqa: E402
from factory.assets.record import AssetRecord  # noqa: E402
from factory.clips.plan import ClipRecipe, plan_asset  # noqa: E402
from factory.clips.stage import RenderStage, asset_tasks  # noqa: E402
from factory.sources import open_source  # noqa: E402
from renderers import gltf  # noqa: E402
from renderers.meshes import RenderSettings, Shot, render_clip  # noqa: E402

MODELS = ("phoenix_bird.glb", "KayKit_Knight.glb", "Fox.glb")
MORE_MODELS = (*MODELS, "greenman.glb", "CesiumMan.glb")
CREATURES = ("kangaroo", "bird", "robot", "cat")
ROUNDS, FRAMES = 3, 16


def raster(assets: Path) -> None:
    """Compare the rasterisers on three models."""
    print(
        f"{'model':22}{'opengl':>10}{'no AA':>10}{'pyrender':>10}{'cpu':>10}  views/s;  "
        "opengl / pyrender, opengl / no AA, cpu / opengl"
    )
    for name in MODELS:
        asset = gltf.load(assets / name)
        clips, _ = plan_asset(asset, name, ClipRecipe())
        shot = clips[0].shot(ClipRecipe())
        shot = replace(shot, timestamps=shot.timestamps[:: 48 // FRAMES])
        contenders = {
            "opengl": ("opengl", RenderSettings(samples=4)),
            "no AA": ("opengl", RenderSettings(samples=1)),
            "pyrender": ("pyrender", RenderSettings(samples=4)),
            "cpu": ("cpu", RenderSettings(samples=4)),
        }
        rate = {label: 1 / each for label, each in _seconds_per_view(asset, shot, contenders).items()}
        print(
            f"{name:22}{rate['opengl']:10.0f}{rate['no AA']:10.0f}{rate['pyrender']:10.0f}"
            f"{rate['cpu']:10.0f}  ratio {rate['opengl'] / rate['pyrender']:.2f}, "
            f"{rate['opengl'] / rate['no AA']:.2f}, {rate['cpu'] / rate['opengl']:.2f}"
        )


def cpu(assets: Path, size: int, frames: int) -> None:
    """Compare the back ends cpu and opengl, and 4 samples with 1."""
    contenders = {
        "opengl": ("opengl", RenderSettings(samples=4)),
        "cpu": ("cpu", RenderSettings(samples=4)),
        "cpu, 1 sample": ("cpu", RenderSettings(samples=1)),
    }
    print(
        f"{size} px, {frames} frames, ms per view: opengl, cpu, cpu with 1 sample; opengl / cpu; 4 samples / 1"
    )
    ratios = []
    for name, asset in _assets(assets):
        recipe = ClipRecipe(resolution=size)
        clips, _ = plan_asset(asset, name, recipe)
        shot = clips[0].shot(recipe)
        shot = replace(shot, timestamps=shot.timestamps[:: 48 // frames])
        opengl, four, one = (1e3 * each for each in _seconds_per_view(asset, shot, contenders).values())
        ratios.append(opengl / four)
        print(f"{name:18}{opengl:8.3f}{four:8.3f}{one:8.3f}{ratios[-1]:8.2f}{four / one:8.2f}", flush=True)
    print(f"geometric mean {math.exp(sum(map(math.log, ratios)) / len(ratios)):.2f}, least {min(ratios):.2f}")


def _seconds_per_view(
    asset: gltf.Asset, shot: Shot, contenders: dict[str, tuple[str, RenderSettings]]
) -> dict[str, float]:
    """CPU time of each contender, the median of rounds in which they alternate."""
    seconds: dict[str, list[float]] = {label: [] for label in contenders}
    for round_number in range(ROUNDS + 1):
        for label, (backend, settings) in contenders.items():
            started = time.process_time()
            render_clip(asset, shot, settings, backend=backend)
            if round_number:  # the first round compiles shaders
                seconds[label].append(time.process_time() - started)
    views = len(shot.cameras) * len(shot.timestamps)
    return {label: median(times) / views for label, times in seconds.items()}


def _assets(folder: Path) -> Iterator[tuple[str, gltf.Asset]]:
    for name in MORE_MODELS:
        yield name, gltf.load(folder / name)
    for name in CREATURES:
        source = open_source(f"creatures://{name}?seed=1")
        (record,) = source.list()
        yield name, gltf.load(source.fetch(record), name=name)


def job(sources: list[str]) -> None:
    """Measure the fraction of the time spent on rasterising."""
    with tempfile.TemporaryDirectory() as out:
        parts: dict[str, float] = {}

        def add(_: Task, record: Record) -> None:
            for part, seconds in record.summary.get("seconds", {}).items():
                parts[part] = parts.get(part, 0.0) + seconds

        stage = RenderStage(ClipRecipe(max_animations=2))
        run_inline(stage, asset_tasks(_records(sources), stage), Ledger(out), on_resolved=add)
    total = sum(parts.values())
    listed = ", ".join(f"{part} {seconds / total:.2f}" for part, seconds in sorted(parts.items()))
    print(
        f"rate per core / rate of rasterising alone: {parts['render'] / total:.2f} ({listed}; {total:.0f} s)"
    )


def ray(sources: list[str]) -> None:
    """Compare Ray workers with plain processes."""
    stage = RenderStage(ClipRecipe(max_animations=4))
    walls = {}
    for label, workers in (("one Ray worker", 1), ("two Ray workers", 2)):
        with tempfile.TemporaryDirectory() as out:
            report = run(stage, asset_tasks(_records(sources), stage), Ledger(out), workers=workers)
            walls[label] = report.wall_s
    with tempfile.TemporaryDirectory() as out:
        # The best case without a dispatcher: each process renders every other clip and never waits.
        command = [sys.executable, "-m", "benchmarks.rendering", "_plain", "--source", *sources, "--out", out]
        started = time.perf_counter()
        processes = [subprocess.Popen([*command, "--part", str(part)]) for part in (0, 1)]
        failed = [process.wait() for process in processes]
        walls["two plain processes"] = time.perf_counter() - started
        if any(failed):
            raise SystemExit("a plain process failed; see its output above")
    for label, wall in walls.items():
        print(f"{label:22}{wall:8.1f} s")
    print(
        f"rate of two workers: {walls['two plain processes'] / walls['two Ray workers']:.2f} x two plain processes, "
        f"{walls['one Ray worker'] / walls['two Ray workers']:.2f} x one worker"
    )


def _plain(sources: list[str], out: str, part: int) -> None:
    """Plan all clips, which is quick, then render every other one without a dispatcher."""
    stage = RenderStage(ClipRecipe(max_animations=4))
    stage.setup()
    ledger = Ledger(out)
    clips = [clip for task in asset_tasks(_records(sources), stage) for clip in stage.process(task).follow_up]
    for clip in clips[part::2]:
        ledger.commit(clip, stage.process(clip))


def _records(sources: list[str]) -> Iterator[AssetRecord]:
    return (record for uri in sources for record in open_source(uri).list())


def main() -> None:
    """Run the selected parts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=["raster", "job", "ray"])
    parser.add_argument(
        "--assets", type=Path, help=f"folder with {', '.join(MORE_MODELS)}, for raster and cpu"
    )
    parser.add_argument(
        "--source", nargs="+", default=["creatures://kangaroo", "creatures://bird", "creatures://robot"]
    )
    parser.add_argument("--size", type=int, default=256, help="pixels per side, for cpu")
    parser.add_argument("--frames", type=int, default=FRAMES, help="for cpu; at most 48")
    parser.add_argument("--out")
    parser.add_argument("--part", type=int)
    args = parser.parse_args()
    if args.parts == ["_plain"]:
        _plain(args.source, args.out, args.part)
        return
    print(describe_machine())
    if "raster" in args.parts:
        if args.assets is None:
            raise SystemExit(f"raster: expected --assets, a folder with {', '.join(MODELS)}")
        raster(args.assets)
    if "cpu" in args.parts:
        if args.assets is None:
            raise SystemExit(f"cpu: expected --assets, a folder with {', '.join(MORE_MODELS)}")
        cpu(args.assets, args.size, args.frames)
    if "job" in args.parts:
        job(args.source)
    if "ray" in args.parts:
        ray(args.source)


if __name__ == "__main__":
    main()
