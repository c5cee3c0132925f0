"""Speed of the splat renderer on the CPU, compared with a tiled rasteriser in torch and with the peak of the core.

    python -m benchmarks.splats [--rounds 5] [--quick]

Scene: a ball of Gaussians, with log-normal sizes of about half their spacing, random shapes, opacities from 0.05 to
0.95, one view, float32, rgb on black. "forward" is `render` without gradients; "both" is forward and backward, with a
weighted sum of the pixels as loss and gradients of all five fields. One thread, process CPU time, medians over rounds
that alternate between the two renderers. The torch reference uses the tile size that was fastest in a prior test.

Two threads are measured on eight views, by the minimum wall time over the rounds and by the critical path. The latter
is also meaningful on a busy machine: the CPU times of all parallel parts, assigned to two cores in the order in which
the threads would take them, plus the serial remainder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import describe_machine
from renderers import simd
from renderers.cameras import orbit_cameras
from renderers.gaussians import Gaussians, TensorCameras, checks, cpu, kernels, render, set_threads

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
import tiled_torch

REFERENCE_TILES = (8, 12, 16)
BAR_RATIO, BAR_THREADS = 20.0, 1.5
CASES = ((64, 4000), (128, 4000), (128, 16000), (256, 16000))
SIZES, COUNTS = (64, 128, 256, 512), (1000, 4000, 16000, 64000)
# Arithmetic operations per lane (one splat and one pixel, up to three channels), without comparisons and selections.
FLOPS = {"draw": 35, "draw_backward": 63}


def ball(count: int, size: int, views: int = 1) -> tuple[Gaussians, TensorCameras]:
    """Create the scene and its cameras; `size` is the width and height of the images."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    radius = torch.rand(1, count, 1, generator=generator) ** (1 / 3)
    gaussians = Gaussians(
        torch.nn.functional.normalize(normal(1, count, 3), dim=-1) * radius,
        normal(1, count, 4),
        0.5 * count ** (-1 / 3) * torch.exp(0.5 * normal(1, count, 3)),
        0.05 + 0.9 * torch.rand(1, count, generator=generator),
        colors=torch.rand(1, count, 3, generator=generator),
    )
    azimuths = np.arange(views) * 2 * np.pi / views
    cameras = orbit_cameras(azimuths, 0.3, 3.2, fov_y=0.8, width=size, height=size)
    for leaf in vars(gaussians).values():
        if leaf is not None:
            leaf.requires_grad_()
    return gaussians, TensorCameras.from_cameras(cameras)


def workloads(
    gaussians: Gaussians, cameras: TensorCameras, *, with_reference: bool = False
) -> dict[str, Callable[[], None]]:
    """Return the functions to time, by name; "both" is forward and backward."""
    leaves = [leaf for leaf in vars(gaussians).values() if leaf is not None]
    weight = torch.rand(cameras.height, cameras.width, 3)

    def reference(tile: int) -> Tensor:
        return tiled_torch.draw(checks.prepare(gaussians, cameras, None, False, None, 0.3, ("rgb",)), tile)

    def ours() -> Tensor:
        return render(gaussians, cameras, want=("rgb",)).rgb

    def forward(draw: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                draw()

        return run

    def both(draw: Callable[[], Tensor]) -> Callable[[], None]:
        def run() -> None:
            torch.autograd.grad((draw() * weight).sum(), leaves)

        return run

    runs = {"forward": forward(ours), "both": both(ours)}
    for name, kind in (("reference forward", forward), ("reference both", both)):
        candidates = [kind(partial(reference, tile)) for tile in REFERENCE_TILES] if with_reference else []
        if candidates:
            runs[name] = min(candidates, key=milliseconds)
    return runs


def milliseconds(run: Callable[[], None], clock: Callable[[], float] = time.process_time) -> float:
    """Return the duration of one call."""
    begin = clock()
    run()
    return 1e3 * (clock() - begin)


@kernels.kernel
def _multiply_add(values, rounds):
    """Ten independent chains of fused multiply-adds, enough to saturate the vector units."""
    m, c = simd.load(values, 0), simd.load(values, 16)
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = a8 = a9 = c
    for _ in range(rounds):
        a0, a1, a2, a3, a4 = a0 * m + c, a1 * m + c, a2 * m + c, a3 * m + c, a4 * m + c
        a5, a6, a7, a8, a9 = a5 * m + a0, a6 * m + a1, a7 * m + a2, a8 * m + a3, a9 * m + a4
    simd.store(values, 32, a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9)


def peak() -> float:
    """Measure the current float32 GFLOP/s of this core."""
    values = np.full(48, 0.5, np.float32)
    _multiply_add(values, 10)
    rounds = 2_000_000
    return (
        rounds
        * 10
        * simd.LANES
        * 2
        / min(milliseconds(lambda: _multiply_add(values, rounds)) for _ in range(5))
        / 1e6
    )


class TimedKernel:
    """Wraps a kernel, and records the times of its calls and the arguments of the last one."""

    times: dict[str, list[float]] = defaultdict(list)
    arguments: dict[str, tuple] = {}

    def __init__(self, name: str) -> None:
        self.name, self.kernel = name, getattr(cpu.kernels, name)

    def __call__(self, *arguments: object) -> None:
        self.arguments[self.name] = arguments
        self.times[self.name].append(milliseconds(lambda: self.kernel(*arguments)))


STAGES = ("project", "count_slots", "sort", "draw", "draw_backward", "gather", "project_backward")


def stages(run: Callable[[], None], rounds: int) -> tuple[dict[str, float], int]:
    """Return the milliseconds of each kernel in one forward and backward run, and the number of pixel blocks drawn."""
    timed_kernels = {name: TimedKernel(name) for name in STAGES}
    TimedKernel.times.clear()
    try:
        for name, timed in timed_kernels.items():
            setattr(cpu.kernels, name, timed)
        for _ in range(rounds):
            run()
    finally:
        for name, timed in timed_kernels.items():
            setattr(cpu.kernels, name, timed.kernel)
    tile_start, _, masks = TimedKernel.arguments["draw"][5:8]
    drawn = masks[: tile_start.ravel()[-1]]
    pairs = int(np.unpackbits(drawn.view(np.uint8)).sum())
    return {name: sum(TimedKernel.times[name]) / rounds for name in STAGES}, pairs


def critical_path(run: Callable[[], None], threads: int) -> float:
    """Return the milliseconds that `run` would take on `threads` otherwise idle cores."""
    saved, spread_out = cpu.parallel_for, [0.0, 0.0]

    def spread(function: Callable[..., None], count: int, *arguments: object) -> None:
        busy = [0.0] * threads
        for first, last in cpu.parts(count, max(1, min(threads, count))):
            took = milliseconds(lambda first=first, last=last: function(first, last, *arguments))
            busy[busy.index(min(busy))] += took
        spread_out[0] += sum(busy)
        spread_out[1] += max(busy)

    cpu.parallel_for = spread
    try:
        all_work = milliseconds(run)
    finally:
        cpu.parallel_for = saved
    return all_work - spread_out[0] + spread_out[1]


def compare_with_reference(rounds: int, ceiling: float) -> None:
    """Print the times of our renderer and of the torch reference, and how much of the peak the kernels reach."""
    print(
        "px   N       forward      both |  torch forward      both | ratio forward  both |  of the peak: draw  backward"
    )
    lowest = float("inf")
    for size, count in CASES:
        runs = workloads(*ball(count, size), with_reference=True)
        for run in runs.values():
            run()
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                repeats = 1 if name.startswith("reference") else 6
                times[name] += [milliseconds(run) for _ in range(repeats)]
        ms = {name: statistics.median(values) for name, values in times.items()}
        ratios = ms["reference forward"] / ms["forward"], ms["reference both"] / ms["both"]
        lowest = min(lowest, *ratios)
        kernel_ms, pairs = stages(runs["both"], rounds)
        used = {k: pairs * simd.LANES * flops / kernel_ms[k] / 1e6 / ceiling for k, flops in FLOPS.items()}
        print(
            f"{size:3}  {count:5}  {ms['forward']:8.2f}  {ms['both']:8.2f} |  {ms['reference forward']:13.1f}  "
            f"{ms['reference both']:8.1f} | {ratios[0]:13.1f}  {ratios[1]:4.1f} | {used['draw']:18.0%}  "
            f"{used['draw_backward']:8.0%}   ms"
        )
    print(f"lowest ratio to the tiled torch reference: {lowest:.1f} (target {BAR_RATIO:.0f})")


def print_size_table(rounds: int) -> None:
    """Print the times for all sizes and counts, and the time of each kernel for one of them."""
    print("\nms per image, one thread, forward / forward + backward")
    print("px    " + "".join(f"{count:>18}" for count in COUNTS))
    for size in SIZES:
        cells = []
        for count in COUNTS:
            runs = workloads(*ball(count, size))
            runs["both"]()
            forward = statistics.median(milliseconds(runs["forward"]) for _ in range(rounds))
            both = statistics.median(milliseconds(runs["both"]) for _ in range(rounds))
            cells.append(f"{forward:8.2f} / {both:7.2f}")
        print(f"{size:3}²  " + "".join(f"{cell:>18}" for cell in cells))

    runs = workloads(*ball(16000, 128))
    kernel_ms, _ = stages(runs["both"], rounds)
    listed = ", ".join(f"{k} {v:.2f}" for k, v in kernel_ms.items())
    print(f"\nms per kernel at 128² / 16000: {listed}")


def compare_threads(rounds: int) -> None:
    """Print how much faster two threads are than one."""
    print()
    for size, count in CASES[1:]:
        runs = workloads(*ball(count, size, views=8))
        for name in ("forward", "both"):
            walls: dict[int, list[float]] = {1: [], 2: []}
            paths: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(rounds + 1):
                for threads in (1, 2):
                    set_threads(threads)
                    walls[threads].append(milliseconds(runs[name], time.perf_counter))
                    set_threads(1)
                    paths[threads].append(critical_path(runs[name], threads))
            print(
                f"speed-up with two threads, {size}² / {count}, {name}: "
                f"{statistics.median(paths[1]) / statistics.median(paths[2]):.2f} by the critical path "
                f"(target {BAR_THREADS}), {min(walls[1]) / min(walls[2]):.2f} by wall time"
            )


def main() -> None:
    """Run the measurements and print them with their targets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="only the four sizes that have a target")
    options = parser.parse_args()
    torch.set_num_threads(1)
    set_threads(1)
    ceiling = peak()
    compare_with_reference(options.rounds, ceiling)
    if not options.quick:
        print_size_table(options.rounds)
    compare_threads(options.rounds)
    print(f"\npeak of this core {ceiling:.0f} GFLOP/s float32 (fused multiply-adds on {simd.LANES} lanes)")
    print(f"{describe_machine()}; load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
