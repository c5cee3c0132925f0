"""The same clip, to the last byte, for every family of processors that the libraries distinguish."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from arm import needs_arm, run_on_arm

WITHOUT_FMA = "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F,-AVX,-FMA4"
SETTINGS = {
    "a Haswell": {"OPENBLAS_CORETYPE": "Haswell", "MENAGERIE_KERNELS": "x86-64-v3"},
    "an old processor": {
        "OPENBLAS_CORETYPE": "Prescott", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
        "GLIBC_TUNABLES": WITHOUT_FMA, "MENAGERIE_KERNELS": "x86-64",
    },
}  # fmt: skip
CHILD = """
import hashlib, sys, warnings
warnings.simplefilter("ignore")  # features that this NumPy does not know
import numpy as np
from factory.assets.record import AssetRecord
from factory.clips.jobs import ClipJob
from factory.clips.plan import ClipRecipe, plan_asset
from factory.clips.stage import RenderStage
from factory.sources import creatures
from renderers import gltf

recipe = ClipRecipe(views=2, num_frames=4, fps=4, resolution=64)
stage = RenderStage(recipe=recipe, backend="cpu")
for name in sys.argv[1:]:
    data = creatures.build(name, 1, [motion.name for motion in creatures.motions(name)[:1]])
    asset = gltf.load(data)
    clips, _ = plan_asset(asset, name, recipe)
    poses = [asset.pose(0, time) for time in np.linspace(0, asset.animations[0].end, 7)]
    posed = b"".join(array.tobytes() for pose in poses for array in (pose.positions, pose.normals))
    record = AssetRecord(
        uid=name, source="creatures", location=name, fingerprint=name, title=name, author="", licence="CC0-1.0"
    )
    (row,) = stage._render(asset, ClipJob(record, clips[0]), "0" * 64, name, 0.0).files.values()
    for part in (data, posed, row):
        print(name, hashlib.sha256(part).hexdigest())
"""


def digests(species: tuple[str, ...], settings: dict[str, str]) -> list[str]:
    """Digests of the file, the poses and the encoded row of a clip of each species, made in a child process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    command = [sys.executable, "-P", "-c", CHILD, *species]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def compare(species: tuple[str, ...]) -> None:
    expected = digests(species, {})  # as this processor has them
    assert len(expected) == 3 * len(species)
    for name, settings in SETTINGS.items():
        assert digests(species, settings) == expected, name


@pytest.mark.slow
@needs_arm
def test_clips_are_the_same_on_arm(tmp_path):
    """Generated files, poses, images, videos: everything in the rows, without numba."""
    species = ("drop", "kangaroo")
    assert run_on_arm(CHILD, *species, folder=tmp_path).splitlines() == digests(species, {})


def test_a_clip_is_the_same_on_other_processors():
    compare(("drop",))


@pytest.mark.slow
def test_clips_of_more_species_are_the_same_on_other_processors():
    compare(("kangaroo", "fox", "jellyfish", "snake"))
