"""Throughput and memory of a long run: two thousand distinct creatures through `factory.render`.

    python -m benchmarks.population --out FOLDER [--count 2000] [--resolution 64] [-- --num-frames 16 --fps 8 …]

Runs `python -m factory.render` as a user would (with the additional options after `--`), samples the memory of its
processes, opens the dataset, decodes every clip, and extrapolates the cost to 100 000 animations. If FOLDER is already
complete, only the measurement is repeated.

The run takes most of an hour, during which other load on a shared machine changes the rate more than the run itself.
`--paired` therefore renders the same additional creatures alternately into a copy of the full folder and into an empty
one, and compares the two.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import factory
from benchmarks.common import describe_machine
from factory.dataset.packing import TARGET_BYTES

PROJECTED = 100_000
_SAMPLE_S = 5.0


def run(out: Path, source: str, resolution: int, workers: int, options: Sequence[str] = ()) -> None:
    """Run the command, and sample its processes every few seconds to `samples.jsonl` in the output folder."""
    command = [sys.executable, "-P", "-m", "factory.render", "--source", source, "--out", str(out)]
    command += ["--resolution", str(resolution), "--workers", str(workers), *options]
    driver = psutil.Popen(command)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "samples.jsonl").open("a") as lines:
        while driver.poll() is None:
            if sample := _sample(driver):
                lines.write(json.dumps(sample) + "\n")
                lines.flush()
            time.sleep(_SAMPLE_S)
    if driver.returncode:
        raise SystemExit(f"factory.render failed with exit status {driver.returncode}; see its output above")


def _sample(driver: psutil.Process) -> dict[str, Any] | None:
    """Return resident bytes of the driver and of the child processes that render, and the driver's CPU seconds."""
    try:
        children = [p for p in driver.children(recursive=True) if "cluster.child" in " ".join(p.cmdline())]
        times = driver.cpu_times()
        return {
            "time": time.time(),
            "driver": driver.memory_info().rss,
            "children": [p.memory_info().rss for p in children],
            "driver_cpu_s": times.user + times.system,
        }
    except psutil.NoSuchProcess:
        return None


@dataclass(frozen=True)
class Clips:
    """Timing of the clips, from the markers of the ledger, in the order of completion.

    Attributes:
        finished: completion times, seconds since the epoch.
        seconds: worker-seconds of each clip.
        parts: "load", "plan", "render", "encode" → total worker-seconds.
        others: worker-seconds of the tasks that plan assets.
    """

    finished: np.ndarray
    seconds: np.ndarray
    parts: dict[str, float]
    others: float

    @staticmethod
    def read(out: Path) -> Clips:
        """Read the markers below `out`."""
        finished: list[float] = []
        seconds: list[float] = []
        parts: dict[str, float] = {}
        others = 0.0
        for marker in (out / "_factory/done").rglob("*.json"):
            record = json.loads(marker.read_bytes())
            for part, value in record["summary"]["seconds"].items():
                parts[part] = parts.get(part, 0.0) + value
            if record["files"]:
                finished.append(marker.stat().st_mtime)
                seconds.append(record["seconds"])
            else:
                others += record["seconds"]
        order = np.argsort(finished)
        return Clips(np.asarray(finished)[order], np.asarray(seconds)[order], parts, others)

    def rates(self, tenths: int = 10) -> np.ndarray:
        """Return clips per minute in each tenth of the clips."""
        edges = np.linspace(0, len(self.finished) - 1, tenths + 1).astype(int)
        return 60.0 * np.diff(edges) / np.diff(self.finished[edges])


def decode_all(out: Path) -> tuple[int, int]:
    """Return the number of clips of which every frame decodes and is not empty, and the number of distinct assets."""
    clips = factory.load_clips(str(out))
    whole, assets = 0, set()
    for clip in clips:
        alpha = clip.read().frames[..., 3]
        whole += bool(alpha.any(axis=(-1, -2)).all())
        assets.add(clip.metadata["asset_sha256"])
    return whole, len(assets)


def measure(out: Path) -> bool:
    """Print the figures and their targets; whether all targets are met."""
    clips = Clips.read(out)
    (run_file,) = (out / "_factory/runs").glob("*.json")
    run_report = json.loads(run_file.read_bytes())
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    count, workers, wall = len(clips.seconds), run_report["workers"], run_report["wall_s"]

    rates = clips.rates()
    steadiness = rates[-1] / rates[0]
    # Relative to the middle of the run: packing the first shard, before half of the clips, raises memory a last time.
    edges = clips.finished[np.linspace(0, count - 1, 11).astype(int)]
    middle, last = ([s for s in samples if edges[k] <= s["time"] <= edges[k + 1]] for k in (5, 9))
    growth = {name: _resident(last, name) / _resident(middle, name) for name in ("driver", "children")}
    peak = max(s["driver"] + sum(s["children"]) for s in samples) / 2**20

    ledger = sum(run_report["busy_s"].values()) - clips.seconds.sum() - clips.others
    driver = samples[-1]["driver_cpu_s"]  # everything it does: listing, dispatch, packing shards
    overhead = clips.parts["plan"] + ledger + driver
    share = overhead / (workers * wall)
    whole, assets = decode_all(out)

    worker_s = (workers * wall) / count
    shards = [file.stat().st_size for file in (out / "data").rglob("*.parquet")]
    markers = sum(1 for _ in (out / "_factory").rglob("*.json"))
    a_clip = sum(shards) / count
    shard_files = PROJECTED * a_clip / TARGET_BYTES
    print(describe_machine())
    parts = ", ".join(f"{name} {seconds / count:.3f}" for name, seconds in sorted(clips.parts.items()))
    print(
        f"clips          {count} of {run_report['tally']['assets']} assets, {wall / 60:.1f} min, {workers} workers"
    )
    print(f"worker-s/clip  {worker_s:.2f}: {parts}")
    print(f"clips/min      by tenths: {' '.join(f'{rate:.1f}' for rate in rates)}")
    print(
        f"last / first   {steadiness:.3f}   (target 0.9; affected by other load on the machine, see --paired)"
    )
    growth_by_process = ", ".join(f"{name} {ratio:.3f}" for name, ratio in growth.items())
    print(f"memory         last tenth / sixth tenth: {growth_by_process} (target 1.1); {peak:.0f} MiB peak")
    print(
        f"bookkeeping    {100 * share:.2f} % of worker time: plan {clips.parts['plan']:.0f} s, ledger {ledger:.0f} s, "
        f"CPU time of the driver {driver:.0f} s   (target 5 %)"
    )
    print(f"decoded        {whole} of {count} clips complete, {assets} distinct assets")
    print(
        f"bytes          {sum(shards) / 2**20:.0f} MiB in {len(shards)} shards, {a_clip / 2**10:.0f} KiB per clip"
    )
    print(
        f"{PROJECTED} would take {PROJECTED * worker_s / 3600:.0f} core-hours, {PROJECTED * a_clip / 1e9:.1f} GB, "
        f"{np.ceil(shard_files):.0f} shards and {PROJECTED / count * markers:.0f} small ledger files"
    )
    return (
        max(growth.values()) <= 1.1
        and share <= 0.05
        and whole == count
        and assets == run_report["tally"]["assets"]
    )


def paired(out: Path, resolution: int, workers: int, rounds: int = 3, count: int = 48) -> bool:
    """Compare clips per minute into a full and an empty folder, alternating; whether the ratio meets its target."""
    rates: dict[str, list[float]] = {"full": [], "empty": []}
    source = f"creatures://*?seed=900&count={count}&motions=1"  # not in the population
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        for turn in range(rounds):
            for kind in ("full", "empty") if turn % 2 else ("empty", "full"):
                folder = Path(scratch, f"{kind}-{turn}")
                if kind == "full":
                    shutil.copytree(out, folder)
                run(folder, source, resolution, workers)
                newest = Clips.read(folder).finished[-count:]
                rates[kind].append(60.0 * (count - 1) / (newest[-1] - newest[0]))
                shutil.rmtree(folder)
    ratio = float(np.median(rates["full"]) / np.median(rates["empty"]))
    listed = "; ".join(
        f"{kind} {' '.join(f'{rate:.1f}' for rate in values)}" for kind, values in rates.items()
    )
    print(f"paired         {listed} clips/min: full / empty {ratio:.3f}   (target 0.9)")
    return ratio >= 0.9


def _resident(samples: list[dict[str, Any]], name: str) -> float:
    """Return the mean number of resident bytes per process."""
    return float(np.mean([np.mean(sample[name]) for sample in samples if sample[name]]))


def main() -> int:
    """Run, measure, print; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.population")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument(
        "--paired", action="store_true", help="also compare with an empty folder (ten more minutes)"
    )
    parser.add_argument("options", nargs="*", help="after --: additional options of factory.render")
    args = parser.parse_args()
    if not (args.out / "README.md").exists():
        run(
            args.out,
            f"creatures://*?count={args.count}&motions=1",
            args.resolution,
            args.workers,
            args.options,
        )
    passed = measure(args.out)
    if args.paired:
        passed = paired(args.out, args.resolution, args.workers) and passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
