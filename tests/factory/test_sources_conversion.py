"""FBX and BLEND files become glTF. Truth: Blender itself writes the files. Skipped without it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from seeded_objaverse import seed_xl, xl_row
from sketchfab_server import SketchfabServer
from tiny_gltf import moving

from factory.sources import open_source
from renderers import gltf
from renderers.meshes import RenderError, blender

pytestmark = [
    pytest.mark.blender,
    pytest.mark.slow,
    pytest.mark.skipif(blender.find() is None, reason="no Blender here: run `make blender`"),
]

_EXPORT = """
import sys, bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[-3])
bpy.ops.export_scene.fbx(filepath=sys.argv[-2], bake_anim_simplify_factor=0.0)
text = bpy.data.texts.new("evil.py")
text.write("import pathlib; pathlib.Path(bpy.data.filepath + '.ran').write_text('x')")
text.use_module = True  # registered when the file is opened, if scripts may run
bpy.ops.wm.save_as_mainfile(filepath=sys.argv[-1])
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    """One moving tetrahedron as .glb, .fbx and .blend."""
    folder = tmp_path_factory.mktemp("files")
    found = {kind: folder / f"model.{kind}" for kind in ("glb", "fbx", "blend")}
    found["glb"].write_bytes(moving("translation", [0, 1], [[0, 0, 0], [2, 1, 0]]).glb())
    program = str(blender.find())
    script = folder / "export.py"
    script.write_text(_EXPORT)
    is_python = Path(program).name.startswith("python")
    start = [program, str(script)] if is_python else [program, "--background", "--python", str(script), "--"]
    subprocess.run([*start, *map(str, found.values())], check=True, capture_output=True, timeout=200)
    return found


@pytest.mark.parametrize("kind", ["fbx", "blend"])
def test_it_moves_as_it_did(files, kind, tmp_path, monkeypatch):
    data = files[kind].read_bytes()
    name = f"https://github.com/ada/m/blob/0123/model.{kind}"
    seed_xl(tmp_path, "github", [xl_row(name, data, kind)])
    with SketchfabServer() as server:
        for variable, value in server.variables(tmp_path).items():
            monkeypatch.setenv(variable, value)
        server.static[f"/raw.githubusercontent.com/ada/m/0123/model.{kind}"] = data
        (record,) = open_source("objaverse-xl://github").list()
        made = open_source(record.location).fetch(record)
        assert open_source(record.location).fetch(record) == made
    asset, before = gltf.load(made), gltf.load(files["glb"])
    assert len(asset.animations) == 1
    for time in (0.0, 0.5, 1.0):
        extent, wanted = (
            np.array([points.min(0), points.max(0)])
            for points in (asset.positions(0, time), before.positions(0, time))
        )
        np.testing.assert_allclose(extent, wanted, atol=0.03)  # Blender's keys fall on its own frames
    assert not list(files["blend"].parent.glob("*.ran"))


def test_what_is_no_such_file_is_an_error_that_says_what_blender_said(tmp_path):
    (tmp_path / "x").write_bytes(b"nothing of the kind")
    with pytest.raises(RenderError, match="exited with"):
        blender.convert(tmp_path / "x", "fbx", tmp_path / "out.glb")
    assert not (tmp_path / "out.glb").exists()
