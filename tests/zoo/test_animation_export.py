"""Models to animate, and their motion written into files: compared with `GraphMotion.move`, and with the input."""

import json

import numpy as np
import pytest
import trimesh
from gltf_validator import validator
from graph_motions import MODELS, animated, crowded, graph_motion
from tiny_gltf import CORNERS, FACES, TinyGltf, split_glb

from renderers.gltf import load
from renderers.meshes import RenderError, blender
from zoo.__main__ import main
from zoo.animate3d.animation import Animation
from zoo.animate3d.loading import load_model
from zoo.errors import ModelError


def posed(animation: Animation, data: bytes, time: float) -> dict[tuple[str, int], np.ndarray]:
    """Corners of the triangles of a file at a time, by name of the node and number of the part with that name."""
    asset = load(data)
    positions = asset.positions(len(asset.animations) - 1, time)
    return corners(asset, positions)


def corners(asset, positions) -> dict[tuple[str, int], np.ndarray]:
    result: dict = {}
    for part in asset.primitives:
        number = sum(name == part.name for name, _ in result)
        triangles = positions[part.triangles]
        # The first corner and the order are free: a reflection is written as the reverse order.
        result[part.name, number] = np.sort(triangles.reshape(len(triangles), 3, 3), axis=1)
    return result


@pytest.mark.parametrize("form", ["skin", "morph"])
@pytest.mark.parametrize("name", MODELS)
def test_the_file_moves_as_the_motion(tmp_path, name, form):
    animation = animated(name)
    path = animation.save(tmp_path / "out.glb", as_=form, tolerance=0.0)
    (report,) = validator()([path])
    assert (report["errors"], report["warnings"]) == (0, 0), report["messages"]
    diagonal = animation.model.diagonal()
    expected = animation.vertices()
    for frame in (0, 3, 6, 9, 12):
        mine = posed(animation, path.read_bytes(), float(animation.motion.times[frame]))
        theirs = corners(animation.model.asset, expected[frame])
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert np.abs(mine[key] - theirs[key]).max() <= 1e-5 * diagonal


@pytest.mark.parametrize("form", ["skin", "morph"])
@pytest.mark.parametrize("name", MODELS)
def test_normals_point_outward_on_the_same_side(name, form):
    animation = animated(name)
    still, moving = animation.model.asset, load(animation.glb(form, tolerance=0.0)[0])
    for asset, index in ((still, None), (moving, len(moving.animations) - 1)):
        pose = asset.pose(index, 0.0)
        faces = []
        for part, mirrored in zip(asset.primitives, pose.mirrored, strict=True):
            a, b, c = (pose.positions[part.triangles[:, i]] for i in range(3))
            front = np.cross(b - a, c - a) * (-1 if mirrored else 1)
            faces.append((part.name, np.median((front * pose.normals[part.triangles[:, 0]]).sum(1)) > 0))
        if asset is still:
            expected = sorted(faces)
    assert sorted(faces) == expected


@pytest.mark.parametrize("form", ["skin", "morph"])
@pytest.mark.parametrize("name", MODELS)
def test_everything_else_in_the_file_stays(name, form):
    animation = animated(name)
    before, chunk = split_glb(animation.model.glb)
    after, result = split_glb(animation.glb(form)[0])
    assert result[: before["buffers"][0]["byteLength"]] == chunk[: before["buffers"][0]["byteLength"]]
    for key in set(before) - {"nodes", "meshes", "scenes", "animations", "buffers"}:
        kept = after[key][: len(before[key])] if isinstance(before[key], list) else after[key]
        assert kept == before[key], key
    free = ("mesh", "skin", "weights")
    for old, new in zip(before["nodes"], after["nodes"], strict=False):
        assert {k: v for k, v in old.items() if k not in free} == {
            k: v for k, v in new.items() if k not in free
        }
    for old, new in zip(before.get("animations", []), after["animations"], strict=False):
        assert [c["target"]["path"] for c in old["channels"]] == [
            c["target"]["path"] for c in new["channels"]
        ]
    assert len(after["animations"]) == len(before.get("animations", [])) + 1


@pytest.mark.parametrize("name", ["rigged", "bent", "greenman"])
def test_by_default_the_animations_of_a_rigged_file_go_on_working(name):
    animation = animated(name)
    assert animation.form() == "morph"
    before, after = animation.model.asset, load(animation.glb()[0])
    for index, each in enumerate(before.animations):
        time = each.start + 0.4 * each.duration
        assert np.abs(before.positions(index, time) - after.positions(index, time)).max() < 1e-6


@pytest.mark.parametrize("form", ["skin", "morph"])
def test_key_frames_are_left_out_within_the_tolerance(form):
    animation = animated("crowded").resample(60)
    exact, _ = animation.glb(form, tolerance=0.0)
    reduced, _ = animation.glb(form, tolerance=2e-3)
    assert len(reduced) < 0.6 * len(exact)
    assert 1e-5 < animation.error(form, tolerance=2e-3) <= 2e-3
    assert animation.error(form, tolerance=0.0) < 1e-6


def test_an_own_animation_that_rests_half_way_goes_on_working():
    """Two hops: at rest in the first, the middle and the last key."""
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.mesh())
    tiny.scene(node)
    heights = [[0.0, y, 0.0] for y in (0, 1, 0, 1, 0)]
    tiny.animation((node, "translation", [0.0, 0.25, 0.5, 0.75, 1.0], heights))
    still = load_model(tiny.glb(), name="hops")
    animation = Animation(still, graph_motion(still.asset), "wave")
    assert animation.form() == "morph"
    after = load(animation.glb()[0])
    assert np.abs(still.asset.positions(0, 0.25) - after.positions(0, 0.25)).max() < 1e-6


def test_fewer_influences_are_measured():
    animation = animated("crowded", influences=7)
    assert animation.error("skin", tolerance=0.0, influences=8) < 1e-6
    assert animation.error("skin", tolerance=0.0, influences=4) > 1e-3


def test_trim_loop_and_resample():
    animation = animated("crowded")
    part = animation.trim(0.3, 1.1)
    assert part.duration == pytest.approx(0.8)
    assert np.allclose(part.vertices(np.array([0.2])), animation.vertices(np.array([0.5])))
    loop = animation.loop(0.4)
    assert loop.duration == pytest.approx(1.1)
    assert np.abs(loop.vertices()[0] - loop.vertices()[-1]).max() < 1e-9
    assert len(animation.resample(24).motion.times) == 37
    with pytest.raises(ValueError, match="expected start before end"):
        animation.trim(1.0, 0.5)
    with pytest.raises(ValueError, match="crossfade_s"):
        animation.loop(1.0)


def test_npz_and_ply(tmp_path):
    animation = animated("crowded")
    with np.load(animation.save(tmp_path / "a.npz")) as arrays:
        assert np.allclose(arrays["vertices"], animation.vertices(), atol=1e-6)
        assert arrays["triangles"].max() < arrays["vertices"].shape[1]
    assert len(list(animation.save(tmp_path / "b.ply").iterdir())) == 13
    with pytest.raises(ValueError, match="saved as one of"):
        animation.save(tmp_path / "c.obj")
    with pytest.raises(TypeError, match=r"not an option of \.npz"):
        animation.save(tmp_path / "c.npz", as_="skin")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b"]


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_triangles_of_mirrored_nodes_face_outward(tmp_path, scale):
    """The volume of a box is the sum of signed tetrahedra: inside out, it is -2. The motion bends the box."""
    box = trimesh.creation.box((1.0, 1.0, 2.0))
    scene = trimesh.Scene()
    scene.add_geometry(box, transform=np.diag([scale, 1.0, 1.0, 1.0]))
    model = load_model(scene.export(file_type="glb"), name="box")
    animation = Animation(model, graph_motion(model.asset), "wave")
    with np.load(animation.save(tmp_path / "a.npz")) as arrays:
        corners = arrays["vertices"][0][arrays["triangles"]]
    saved = trimesh.load(animation.save(tmp_path / "a.ply") / "000.ply", process=False)
    for triangles in (corners, saved.triangles):
        assert np.linalg.det(np.asarray(triangles, np.float64)).sum() / 6 > 1.0


@pytest.mark.parametrize("suffix", ["usda", "usdc", "usdz"])
def test_usd_has_the_vertices_and_the_textures(tmp_path, suffix):
    usd = pytest.importorskip("pxr.Usd")
    geometry = pytest.importorskip("pxr.UsdGeom")
    animation = animated("crowded")
    path = animation.save(tmp_path / f"out.{suffix}")
    stage = usd.Stage.Open(str(path))
    meshes = [geometry.Mesh(prim) for prim in stage.Traverse() if prim.IsA(geometry.Mesh)]
    scale = stage.GetTimeCodesPerSecond()
    for frame in (0, 3, 6, 9, 12):
        code = animation.motion.times[frame] * scale
        points = np.concatenate([np.array(mesh.GetPointsAttr().Get(code)) for mesh in meshes])
        apart = np.abs(points - animation.vertices()[frame]).max()
        assert apart <= 1e-5 * animation.model.diagonal()
    document, chunk = split_glb(animation.model.glb)
    views = [document["bufferViews"][image["bufferView"]] for image in document["images"]]
    images = [chunk[view["byteOffset"] :][: view["byteLength"]] for view in views]
    if suffix == "usdz":
        data = path.read_bytes()  # a package is not compressed
        assert all(image in data for image in images)
    else:
        files = sorted((tmp_path / "out_textures").iterdir())
        assert [file.read_bytes() for file in files] == images


def test_mesh_files(tmp_path):
    (tmp_path / "m.mtl").write_text("newmtl red\nKd 1 0 0\n")
    lines = [f"v {x} {y} {z}" for x, y, z in CORNERS]
    lines += [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES]
    (tmp_path / "m.obj").write_text("\n".join(["mtllib m.mtl", "usemtl red", *lines]))
    header = "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    header += "element face 4\nproperty list uchar int vertex_indices\nend_header\n"
    rows = [" ".join(map(str, row)) for row in CORNERS] + [f"3 {a} {b} {c}" for a, b, c in FACES]
    (tmp_path / "m.ply").write_text(header + "\n".join(rows) + "\n")
    for name in ("m.obj", "m.ply"):
        model = load_model(tmp_path / name)
        asset = model.asset
        found = asset.positions(None, 0)[np.concatenate([part.triangles for part in asset.primitives])]
        assert np.array_equal(np.sort(found.reshape(-1, 9), 0), np.sort(CORNERS[FACES].reshape(-1, 9), 0)), (
            name
        )
    assert load_model(tmp_path / "m.obj").asset.materials


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.glb", b"", "the file is empty"),
        ("a.xyz", b"1", "expected a model as one of"),
        (
            "a.ply",
            b"ply\nformat ascii 1.0\nproperty float f_dc_0\nproperty float opacity\nend_header\n",
            "splats",
        ),
        ("a.obj", b"v 0 0 0\nv 1 0 0\n", "no triangles"),
        ("a.obj", b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "NaN or infinite"),
        ("a.stl", b"nothing of the kind", "no triangles"),
        ("a.glb", b"not a model", "not a glTF file"),
        ("a.jpg", b"\xff\xd8\xff\xe0", "got '.jpg', a JPEG picture; it contains no model"),
        ("a.zip", b"PK\x03\x04" + bytes(30), "got '.zip', a zip archive; unpack it"),
        ("a.obj", b"glTF\x02\0\0\0", "expected OBJ, but this is a .glb file: rename it"),
        ("a.stl", b"<!DOCTYPE html><html>404</html>", "expected STL, but this is an HTML page.*download"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(tmp_path, name, data, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path / name)
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path / "missing.glb")


def test_a_file_that_blender_cannot_read_gets_a_sentence(tmp_path, monkeypatch):
    """Not Blender's traceback, and no temporary path. The output is Blender 4.5's."""

    def fail(file, *_, **__):
        place = "/tmp/menagerie-blender-1/asset.fbx"
        raise RenderError(
            f"blender: {place}: exited with 1; its output ends with:\n  Error: ASCII FBX files are not supported "
            f"'{place}'\n  Traceback (most recent call last):\n    File \"child.py\", line 320, in <module>\n"
            f"  RuntimeError: Error: ASCII FBX files are not supported '{place}'\n"
        )

    monkeypatch.setattr(blender, "convert", fail)
    (tmp_path / "a.fbx").write_bytes(b"; FBX 7.4.0 project file\n")
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "a.fbx")
    assert str(caught.value) == (
        "a.fbx: cannot be converted to glTF: Blender says: ASCII FBX files are not supported; export it again, "
        "or as .glb"
    )
    (tmp_path / "a.fbx").write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match=r"a.fbx: expected FBX, but this is an HTML page.*download"):
        load_model(tmp_path / "a.fbx")
    (tmp_path / "a.usd").write_bytes(b"PXR-USDC")
    with pytest.raises(ModelError, match=r"a.usd: cannot be converted to glTF: Blender says"):
        load_model(tmp_path / "a.usd")


def test_a_folder_is_refused_and_a_model_in_it_named(tmp_path):
    with pytest.raises(
        ModelError, match="is a folder, expected the file of a 3D model; it contains no model"
    ):
        load_model(tmp_path)
    (tmp_path / "dragon.glb").touch()
    with pytest.raises(ModelError, match=r"give one inside it, such as .*dragon\.glb"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("materials", "texture", "note"),
    [
        (False, None, "materials are left out: my m.mtl is not beside the model"),
        (True, None, "a texture is left out: red.tga is not beside the model"),
        (
            True,
            b"version https://git-lfs",
            "a texture is left out: red.tga cannot be decoded; store it as PNG",
        ),
    ],
)
def test_what_is_missing_of_an_obj_is_said(tmp_path, capsys, materials, texture, note):
    lines = [f"v {x} {y} {z}" for x, y, z in CORNERS] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES]
    (tmp_path / "m.obj").write_text("\n".join(["mtllib my m.mtl", "usemtl red", *lines]))
    if materials:
        (tmp_path / "my m.mtl").write_text("newmtl red\nmap_Kd red.tga\n")
    if texture is not None:
        (tmp_path / "red.tga").write_bytes(texture)
    assert any(note in each for each in load_model(tmp_path / "m.obj").notes)
    assert (
        main(["stills", str(tmp_path / "m.obj"), "--resolution", "16", "--out", str(tmp_path / "stills")])
        == 0
    )
    assert f"zoo: {note}" in capsys.readouterr().err


def test_the_command_says_what_is_missing_of_a_model(tmp_path, capsys, monkeypatch):
    lines = [f"v {x} {y} {z}" for x, y, z in CORNERS] + [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in FACES]
    (tmp_path / "m.obj").write_text("\n".join(["mtllib m.mtl", "usemtl red", *lines]))
    model = load_model(tmp_path / "m.obj")
    moving = Animation(model, graph_motion(model.asset, frames=3))
    monkeypatch.setattr("zoo.animate3d.api.animate", lambda *_, **__: moving)
    assert main(["animate", str(tmp_path / "m.obj"), "nods", "--out", str(tmp_path / "o.npz")]) == 0
    assert "zoo: materials are left out: m.mtl is not beside the model" in capsys.readouterr().err


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("copies", [1, 200])
def test_any_scale_and_many_parts(scale, copies):
    tiny = TinyGltf()
    mesh = tiny.mesh(CORNERS[:3] * scale, FACES[:1] % 3)
    tiny.scene(*(tiny.node(mesh=mesh, name=f"{n}", translation=[n * scale, 0, 0]) for n in range(copies)))
    model = load_model(tiny.glb())
    animation = Animation(model, graph_motion(model.asset, frames=5))
    assert animation.error("skin", tolerance=0.0) < 1e-5
    assert animation.error("morph", tolerance=0.0) < 1e-5


def test_the_json_of_a_gltf_with_files_beside_it_is_moved_inside(tmp_path):
    tiny = crowded()
    document = tiny.json | {"buffers": [{"byteLength": len(tiny.binary), "uri": "data.bin"}]}
    (tmp_path / "data.bin").write_bytes(tiny.binary)
    (tmp_path / "a.gltf").write_text(json.dumps(document))
    inside, chunk = split_glb(load_model(tmp_path / "a.gltf").glb)
    assert chunk[: len(tiny.binary)] == bytes(tiny.binary)
    assert {k: v for k, v in inside.items() if k != "buffers"} == {
        k: v for k, v in json.loads(json.dumps(tiny.json)).items() if k != "buffers"
    }
