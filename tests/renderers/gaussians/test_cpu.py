"""The CPU back end: agreement with the float64 reference, threads, compile cache and speed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from splat_scenes import FIELDS, KINDS, on_threshold, scene
from torch import Tensor

from renderers.gaussians import OUTPUTS, Gaussians, TensorCameras, checks, reference, render, set_threads
from renderers.gaussians.types import Scene

pytest.importorskip("numba", reason="numba is not installed")

OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 2e-5
SEEDS = 17  # times 12 kinds: 204 scenes


@pytest.fixture(autouse=True)
def _one_thread():
    set_threads(1)
    yield
    set_threads(None)


def _draw(gaussians: Gaussians, cameras: TensorCameras, options: dict, dtype: torch.dtype, weights: dict):
    """Return the outputs, the gradients of Σ weight · output with respect to every input, and the radii."""
    gaussians = Gaussians(
        **{k: None if v is None else v.detach().to(dtype, copy=True) for k, v in vars(gaussians).items()}
    )
    cameras = replace(
        cameras, viewmats=cameras.viewmats.detach().to(dtype, copy=True), Ks=cameras.Ks.to(dtype)
    )
    leaves = {k: v for k in FIELDS if (v := getattr(gaussians, k)) is not None} | {
        "viewmats": cameras.viewmats
    }
    options = dict(options)
    if options["background"] is not None:
        leaves["background"] = options["background"] = options["background"].to(dtype, copy=True)
    for leaf in leaves.values():
        leaf.requires_grad_()
    picture = render(gaussians, cameras, **options)
    sum((getattr(picture, k) * weights[k].to(dtype)).sum() for k in options["want"]).backward()
    gradients = {k: v.grad for k, v in leaves.items()} | {"means2d": picture.means2d.grad}
    return {k: getattr(picture, k).detach() for k in options["want"]}, gradients, picture.radii


def _checked(gaussians: Gaussians, cameras: TensorCameras, options: dict) -> Scene:
    options = {"sh_degree": None} | options
    if options["background"] is not None:
        options["background"] = options["background"].double()
    return checks.prepare(gaussians.to(torch.float64), cameras.to(torch.float64), **options)


def _errors(gaussians: Gaussians, cameras: TensorCameras, options: dict, seed: int) -> dict[str, float]:
    """Errors of the float32 back end relative to float64.

    Outputs: absolute, depth relative to the largest depth. Gradients: ‖difference‖ / ‖gradient‖ per input. Pixels on a
    threshold of the definition are excluded.
    """
    checked = _checked(gaussians, cameras, options)
    keep = ~on_threshold(checked)[..., None]
    generator = torch.Generator().manual_seed(seed)
    channels = {"rgb": checked.channels, "alpha": 1, "depth": 1, "normal": 3}
    weights = {
        k: keep * torch.randn(*keep.shape[:-1], channels[k], generator=generator) for k in options["want"]
    }
    expected, expected_gradients, radii = _draw(gaussians, cameras, options, torch.float64, weights)
    got, gradients, got_radii = _draw(gaussians, cameras, options, torch.float32, weights)
    assert torch.equal(radii, got_radii)
    errors = {}
    for name in expected:
        scale = expected[name].abs().max().clamp_min(1e-9).item() if name == "depth" else 1.0
        errors[name] = ((expected[name] - got[name]) * keep).abs().max().item() / scale
    for name, gradient in expected_gradients.items():
        norm = gradient.norm().item()
        difference = (gradient - gradients[name]).norm().item()
        assert np.isfinite(difference), name
        errors[f"gradient of {name}"] = difference / norm if norm > 0 else difference
    return errors


def _above_tolerance(errors: dict[str, float]) -> dict[str, float]:
    return {
        k: v
        for k, v in errors.items()
        if v > (GRADIENT_TOLERANCE if k.startswith("gradient") else OUTPUT_TOLERANCE)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_images_and_gradients_match_the_reference(kind: str) -> None:
    failures = {}
    drawn = 0
    for seed in range(SEEDS):
        gaussians, cameras, options = scene(kind, seed)
        errors = _errors(gaussians, cameras, options, seed)
        drawn += errors["gradient of means2d"] > 0
        if over := _above_tolerance(errors):
            failures[seed] = over
    assert not failures
    assert drawn == 0 if kind == "nothing" else drawn > SEEDS // 2


def test_the_comparison_detects_a_change_of_a_thousandth() -> None:
    """Control: a blur or a cloud 0.1 % larger exceeds the tolerance."""
    gaussians, cameras, options = scene("cloud", 3)
    weights = {k: torch.ones(()) for k in options["want"]}
    expected, _, _ = _draw(gaussians, cameras, options, torch.float64, weights)
    blurred, _, _ = _draw(gaussians, cameras, {**options, "eps2d": 0.3003}, torch.float32, weights)
    assert (expected["rgb"] - blurred["rgb"]).abs().max() > OUTPUT_TOLERANCE
    moved = replace(gaussians, means=gaussians.means * 1.001)
    shifted, _, _ = _draw(moved, cameras, options, torch.float32, weights)
    assert (expected["rgb"] - shifted["rgb"]).abs().max() > OUTPUT_TOLERANCE


def test_on_a_threshold_the_image_matches_one_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Splats whose centre has α = 1/255, and stacks that reach T = 1e-4, up to rounding.

    The float32 image equals that of the reference with its thresholds shifted by 2e-5 (relative) in one direction.
    """
    columns = 24
    means = torch.zeros(1, 5 * columns, 3)
    opacities = torch.empty(1, 5 * columns)
    for column in range(columns):
        means[0, column * 5 : column * 5 + 5, 0] = (column - columns / 2 + 0.5) / 16
        means[0, column * 5 : column * 5 + 5, 2] = 1.0 + torch.arange(5) / 10  # one behind the other
        opacities[0, column * 5 : column * 5 + 5] = torch.tensor(
            [0.9, 0.9, 0.9, 0.9, 0.5]
        )  # T = 1e-4 after four
        if column % 2:
            opacities[0, column * 5 : column * 5 + 5] = torch.tensor(
                [1 / 255, 1 / 255, 1 / 255, 1 / 255, 0.3]
            )
    means[..., :2] *= means[..., 2:]  # projected to the same pixel centres from every depth
    gaussians = Gaussians(
        means, torch.eye(4)[:1].expand(1, means.shape[1], 4), torch.full_like(means, 1e-4), opacities,
        colors=torch.rand(*means.shape, generator=torch.Generator().manual_seed(0)),
    )  # fmt: skip
    K = torch.tensor([[[[16.0, 0.0, 12.0], [0.0, 16.0, 0.5], [0.0, 0.0, 1.0]]]])
    cameras = TensorCameras(torch.eye(4)[None, None], K, columns, 1)
    sides = []
    for factor in (1 - 2e-5, 1 + 2e-5):
        monkeypatch.setattr(reference, "ALPHA_MIN", factor / 255)
        for other in (1 - 2e-5, 1 + 2e-5):
            monkeypatch.setattr(reference, "TRANSMITTANCE_MIN", other * 1e-4)
            sides.append(render(gaussians.to(torch.float64), cameras.to(torch.float64)).rgb)
    got = render(gaussians, cameras).rgb
    distance = torch.stack([(got - side).abs().amax(-1) for side in sides])
    assert distance.amin(0).max() < OUTPUT_TOLERANCE
    assert distance.amax(0).max() > 1e-3  # the two sides differ: these pixels are on a threshold


def test_a_shared_field_equals_copies_for_every_scene() -> None:
    gaussians, cameras, _ = scene("cloud", 1)
    S = cameras.viewmats.shape[0] + 2
    views = TensorCameras(
        torch.cat([cameras.viewmats[:1]] * S) + 0.01 * torch.randn(S, 1, 1, 1), cameras.Ks[:1], cameras.width,
        cameras.height,
    )  # fmt: skip
    one = {k: None if v is None else v[:1].clone().requires_grad_() for k, v in vars(gaussians).items()}
    copies = {k: None if v is None else v.detach().repeat(S, *[1] * (v.ndim - 1)) for k, v in one.items()}
    expanded = {k: None if v is None else v.detach().clone().requires_grad_() for k, v in one.items()}
    pictures = []
    for fields in (
        one,
        copies,
        {k: None if v is None else v.expand(S, *v.shape[1:]) for k, v in expanded.items()},
    ):
        for value in copies.values():
            if value is not None:
                value.requires_grad_()
        picture = render(Gaussians(**fields), views)
        picture.rgb.square().sum().backward()
        pictures.append(picture.rgb)
    assert torch.equal(pictures[0], pictures[1]) and torch.equal(pictures[0], pictures[2])
    for name, value in one.items():
        if value is not None:
            torch.testing.assert_close(
                value.grad, copies[name].grad.sum(0, keepdim=True), rtol=1e-4, atol=1e-5
            )
            assert torch.equal(value.grad, expanded[name].grad)


@pytest.mark.parametrize("kind", ["cloud", "cover", "crowd"])
def test_results_are_bit_identical_for_any_number_of_threads(kind: str) -> None:
    results = []
    for threads in (1, 2, 3, 8):
        set_threads(threads)
        gaussians, cameras, options = scene(kind, 4)
        options = {**options, "want": OUTPUTS}
        shape = (*cameras.viewmats.shape[:2], cameras.height, cameras.width, 1)
        weights = {k: torch.linspace(-1, 1, int(np.prod(shape))).reshape(shape) for k in OUTPUTS}
        outputs, gradients, _ = _draw(gaussians, cameras, options, torch.float32, weights)
        results.append({**outputs, **{f"gradient of {k}": v for k, v in gradients.items()}})
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


def test_scenes_and_views_of_a_batch_are_independent() -> None:
    """Every image of a batch is bit-identical to the image rendered alone."""
    gaussians, cameras, options = scene("cloud", 5)
    together = render(gaussians, cameras, **options)
    for s in range(cameras.viewmats.shape[0]):
        for c in range(cameras.viewmats.shape[1]):
            alone = Gaussians(**{k: None if v is None else v[s : s + 1] for k, v in vars(gaussians).items()})
            view = TensorCameras(
                cameras.viewmats[s : s + 1, c : c + 1],
                cameras.Ks[s : s + 1, c : c + 1],
                cameras.width,
                cameras.height,
            )
            background = options["background"]
            picture = render(
                alone, view, **{**options, "background": None if background is None else background[s, c]}
            )
            assert torch.equal(picture.rgb[0, 0], together.rgb[s, c])


def test_backward_can_run_twice() -> None:
    gaussians, cameras, options = scene("opaque", 4)
    gaussians.means.requires_grad_()
    loss = render(gaussians, cameras, **options).rgb.square().sum()
    (first,) = torch.autograd.grad(loss, gaussians.means, retain_graph=True)
    (second,) = torch.autograd.grad(loss, gaussians.means)
    assert first.any() and torch.equal(first, second)


def test_a_forked_child_can_render() -> None:
    """A forked child (a data loader worker) has no threads of the pool and must not wait for them."""
    set_threads(2)
    gaussians, cameras, options = scene("cloud", 2)
    expected = render(gaussians, cameras, **options).rgb
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(render(gaussians, cameras, **options).rgb, expected) else 1)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0
            return
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    pytest.fail("the child process did not finish rendering")


_COMPILE_ONE = """
import sys
import numpy as np
from renderers.gaussians import kernels
assert kernels.__file__.startswith(sys.argv[1]), kernels.__file__
kernels.count_slots(0, 1, np.zeros((1, 1, 2), np.float32), np.ones((1, 1, 2), np.int32), 1, 1, np.zeros(1, np.int64))
print(kernels.count_slots.stats.cache_path)
print(sum(kernels.count_slots.stats.cache_hits.values()))
"""


def test_the_compile_cache_works_with_a_read_only_installation(tmp_path: Path) -> None:
    """If the package folder is not writable, machine code is cached in NUMBA_CACHE_DIR or the user's cache folder.

    A second process loads it from there; the notice about compiling is printed by the first process only.
    """
    package = tmp_path / "install" / "renderers"
    source = Path(find_spec("renderers").origin).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "gaussians" / "__pycache__").write_text("a file where numba would create its cache folder")

    def run(**environment: str) -> tuple[Path, int, str]:
        base = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
        base |= {"PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-P", "-c", _COMPILE_ONE, str(package)]
        done = subprocess.run(
            command, env={**base, **environment}, capture_output=True, text=True, check=True
        )
        folder, hits = done.stdout.split("\n")[:2]
        return Path(folder), int(hits), done.stderr

    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": str(tmp_path / "home" / ".cache")}
    folder, hits, stderr = run(**home)
    assert folder.is_relative_to(tmp_path / "home" / ".cache") and hits == 0
    assert stderr.count("compiling the CPU kernels") == 1 and stderr.count("\n") == 1
    assert run(**home) == (folder, 1, "")
    folder, hits, _ = run(**home, NUMBA_CACHE_DIR=str(tmp_path / "chosen"))
    assert folder.is_relative_to(tmp_path / "chosen") and hits == 0


def test_machine_code_of_another_version_of_any_source_file_is_not_used(tmp_path: Path) -> None:
    """The folder and the stamp of cached kernels follow the content of the source files."""
    from renderers.gaussians import kernels

    install = tmp_path / "install"
    package = install / "renderers"
    source = Path(find_spec("renderers").origin).parent
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from renderers.gaussians import kernels; print(*kernels.draw._cache._impl.locator.sources, sep='\\n')\n"
    code += (
        "print(kernels.draw.stats.cache_path); print(kernels.draw._cache._impl.locator.get_source_stamp())"
    )

    def stamp() -> tuple[list[str], str, str]:
        environment = {**os.environ, "PYTHONPATH": str(install), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-P", "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        *files, folder, digest = done.stdout.split()
        return files, folder, digest

    files, folder, digest = stamp()
    assert digest == kernels.draw._cache._impl.locator.get_source_stamp()  # the same content elsewhere
    assert {Path(file).name for file in files} == {"kernels.py", "layout.py", "simd.py", "types.py"}
    seen = {(folder, digest)}
    for file in files:
        with open(file, "a") as stream:
            stream.write("# another version\n")
        seen.add(stamp()[1:])
    assert len({folder for folder, _ in seen}) == len({digest for _, digest in seen}) == 5


def _cloud(number: int, size: int) -> tuple[Gaussians, TensorCameras]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    direction = torch.nn.functional.normalize(normal(1, number, 3), dim=-1)
    gaussians = Gaussians(
        direction * torch.rand(1, number, 1, generator=generator) ** (1 / 3),
        normal(1, number, 4),
        0.5 * number ** (-1 / 3) * torch.exp(0.5 * normal(1, number, 3)),
        0.05 + 0.9 * torch.rand(1, number, generator=generator),
        colors=torch.rand(1, number, 3, generator=generator),
    )
    focal = 1.2 * size
    K = torch.tensor([[[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]]])
    viewmat = torch.eye(4)
    viewmat[2, 3] = 3.2
    return gaussians, TensorCameras(viewmat[None, None], K, size, size)


def _fastest(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return min(times)


def test_speed_relative_to_tiled_torch() -> None:
    """At least 12 times as fast as tiled torch, forward and backward; benchmarks/splats.py measures about 35."""
    import tiled_torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    gaussians, cameras = _cloud(2000, 64)
    leaves = [v.requires_grad_() for v in vars(gaussians).values() if v is not None]
    weight = torch.rand(64, 64, 3)

    def ours() -> None:
        torch.autograd.grad((render(gaussians, cameras).rgb * weight).sum(), leaves)

    def twin() -> None:
        checked = checks.prepare(gaussians, cameras, None, False, None, 0.3, ("rgb",))
        torch.autograd.grad((tiled_torch.draw(checked) * weight).sum(), leaves)

    try:
        ours()
        ratio = max(_fastest(twin, 1) / _fastest(ours, 5) for _ in range(3))
    finally:
        torch.set_num_threads(threads)
    assert ratio > 12
