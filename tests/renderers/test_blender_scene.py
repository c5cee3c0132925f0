"""The Blender back end draws the vertices of our evaluator in every frame. Skipped without `make blender`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sample_assets import COLLECTION, collected, model
from scenes import LINEAR, MIRROR, add_square, add_texture, lit, textured_square, unlit
from scenes import shot as make_shot
from tiny_gltf import CORNERS, FACES, TinyGltf, moving

from renderers import gltf
from renderers.cameras import orbit_cameras
from renderers.gltf.document import Document
from renderers.meshes import GREY, RenderedClip, RenderSettings, Shot, blender, blender_scene, render_clip

pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(blender.find() is None, reason="no Blender here: run `make blender`"),
]

MORPH_OVER_1 = Path(__file__).resolve().parents[1] / "assets" / "cases" / "gltf" / "morph_over_1.glb"
TOLERANCE = 1e-4  # relative to the diagonal of the bounding box
Case = Callable[[], bytes]


def tetrahedron(tiny: TinyGltf, **primitive) -> int:
    """Add a mesh that has normals, so that the reader keeps its four vertices."""
    primitive["attributes"] = {"NORMAL": tiny.accessor(CORNERS + 0.1)} | primitive.get("attributes", {})
    return tiny.mesh(**primitive)


def weights(values) -> bytes:
    """Two targets with weights [times, 2]."""
    rng = np.random.default_rng(1)
    tiny = TinyGltf()
    targets = [
        {"POSITION": tiny.accessor(rng.normal(size=(4, 3)))},
        {"POSITION": tiny.sparse(4, [1, 3], rng.normal(size=(2, 3)))},
    ]
    node = tiny.node(mesh=tetrahedron(tiny, targets=targets), weights=[2.5, -0.75])
    tiny.scene(node)
    tiny.animation((node, "weights", np.linspace(0, 2, len(values)), np.reshape(values, -1)))
    return tiny.glb()


def skin(binds: np.ndarray | None, scale=(1, 1, 1)) -> bytes:
    """Two joints with given inverse bind matrices, the root with a scale; both turn, each with its own weights."""
    rng = np.random.default_rng(3)
    tiny = TinyGltf()
    tiny.node(translation=[1, 0, 0], children=[1], scale=list(scale))
    tiny.node(translation=[0, 2, 0])
    share = rng.uniform(0.2, 0.8, 4)
    attributes = {
        "JOINTS_0": tiny.accessor([[0, 1, 0, 0]] * 4, "u1"),
        "WEIGHTS_0": tiny.accessor(np.stack([share, 1 - share, 0 * share, 0 * share], 1)),
    }
    body = tiny.node(mesh=tetrahedron(tiny, attributes=attributes), skin=tiny.skin([0, 1], binds))
    tiny.scene(0, body)
    tiny.animation(
        (0, "rotation", [0, 1, 2], [[0, 0, 0, 1], [0.6, 0, 0, 0.8], [0, 0.6, 0, 0.8]]),
        (1, "rotation", [0, 2], [[0, 0, 0, 1], [0, 0, 0.6, 0.8]]),
        (1, "translation", [0, 2], [[0, 2, 0], [0.5, 1, 0.3]]),
    )
    return tiny.glb()


def binds(kind: str) -> np.ndarray:
    """Inverse bind matrices [2, 4, 4] of which no pose of the joints is the inverse."""
    matrices = np.tile(np.eye(4), (2, 1, 1))
    if kind == "unrelated":
        matrices[:, :3, 3] = [[-3, 1, 2], [4, -2, 1]]
    elif kind == "sheared":
        matrices[0, 0, 1], matrices[1, 2, 0] = 0.8, -0.6
    elif kind == "mirrored":
        matrices[:, 0, 0] = -1
    elif kind == "scaled":
        matrices[0, :3, :3] *= 0.01
        matrices[1, :3, :3] = np.diag([3, 0.5, 1.5])
    return matrices


def mirrored(first, last, parent=(1, 1, 1)) -> bytes:
    """A single-sided tetrahedron whose scale changes, below a node with another scale."""
    tiny = TinyGltf()
    child = tiny.node(mesh=tiny.mesh(), scale=list(first))
    tiny.scene(tiny.node(scale=list(parent), children=[child]))
    tiny.animation(
        (child, "scale", [0, 2], [first, last]),
        (child, "rotation", [0, 2], [[0, 0, 0, 1], [0, 0.6, 0, 0.8]]),
    )
    return tiny.glb()


def mirrored_beside_plain() -> bytes:
    """Two nodes share a mesh; one of them becomes a reflection."""
    tiny = TinyGltf()
    mesh = tiny.mesh()
    nodes = [tiny.node(mesh=mesh), tiny.node(mesh=mesh, translation=[4, 0, 0])]
    tiny.scene(*nodes)
    tiny.animation((nodes[1], "scale", [0, 2], [[1, 1, 1], [1, 1, -1]]))
    return tiny.glb()


def repeated_vertices() -> bytes:
    """Equal vertices with different normals, vertices without triangle, a triangle twice, its back, degenerate ones."""
    positions = np.concatenate([CORNERS + 9, CORNERS, CORNERS])
    faces = np.concatenate([FACES + 4, FACES + 8, FACES[:1] + 4, FACES[:1, ::-1] + 4, [[5, 5, 6], [7, 7, 7]]])
    tiny = TinyGltf()
    normals = np.random.default_rng(5).normal(size=positions.shape)
    attributes = {"NORMAL": tiny.accessor(normals / np.linalg.norm(normals, axis=1, keepdims=True))}
    node = tiny.node(mesh=tiny.mesh(positions, faces, attributes=attributes))
    tiny.scene(node)
    tiny.animation((node, "translation", [0, 2], [[0, 0, 0], [1, 2, 3]]))
    return tiny.glb()


def strip_and_fan() -> bytes:
    """A strip, a fan and a list in one mesh, with one material each."""
    tiny = TinyGltf()
    for color in ([1, 0, 0], [0, 1, 0], [0, 0, 1]):
        tiny.add("materials", **lit(color))
    mesh = tiny.mesh(mode=5, material=0, faces=[0, 1, 2, 3])
    primitives = tiny.json["meshes"][mesh]["primitives"]
    for mode, material in ((6, 1), (4, 2)):
        other = tiny.mesh(CORNERS + mode, [0, 1, 2, 3, 1, 2], mode=mode, material=material)
        primitives += tiny.json["meshes"][other]["primitives"]
    tiny.scene(tiny.node(mesh=mesh))
    return tiny.glb()


CASES: dict[str, Case] = {
    "morph weight above 1": MORPH_OVER_1.read_bytes,
    "morph weights of 3.5 and -2": lambda: weights([[0, 0], [3.5, -2], [-2, 1.5]]),
    "morph weights above 10": lambda: weights([[1, 11], [14, 0]]),
    "morph weights below 0": lambda: weights([[-0.5, -12], [-1, 0]]),
    "no bind matrices": lambda: skin(None),
    "unrelated bind matrices": lambda: skin(binds("unrelated")),
    "sheared bind matrices": lambda: skin(binds("sheared")),
    "mirrored bind matrices": lambda: skin(binds("mirrored")),
    "scaled bind matrices below a scaled root": lambda: skin(binds("scaled"), (100, 100, 100)),
    "non-uniform scale of joints": lambda: skin(binds("identity"), (1, -2, 0.5)),
    "negative scale": lambda: mirrored((1, -1, 1), (-2, -1, 3), (-2, 2, 2)),
    "scale that becomes negative": lambda: mirrored((1, 1, 1), (-1, 1, 1)),
    "scale that ceases to be negative": lambda: mirrored((-1, 1, -1), (-1, 1, 1), (1, 1, 3)),
    "one of two nodes becomes a reflection": mirrored_beside_plain,
    "repeated vertices and triangles": repeated_vertices,
    "strip, fan and list": strip_and_fan,
}


def clip_of(
    asset: gltf.Asset, animation: int | None, frames: int = 4, views: int = 2, size: int = 96
) -> Shot:
    """Return a shot of a whole animation, framed for all of its frames."""
    times = np.zeros(1)
    if animation is not None:
        record = asset.animations[animation]
        times = np.linspace(record.start, record.end, frames)
    points = np.concatenate([asset.positions(animation, time)[asset.visible] for time in times])
    low, high = points.min(0).astype(float), points.max(0).astype(float)
    scale = 1 / np.linalg.norm(high - low)
    to_world = np.diag([scale, scale, scale, 1.0])
    to_world[:3, 3] = -scale * (low + high) / 2
    cameras = orbit_cameras(np.linspace(0.4, 3.5, views), 0.3, 3.0, fov_y=0.36, width=size, height=size)
    return Shot(animation, times, to_world, cameras)


def first_animation(asset: gltf.Asset) -> int | None:
    return 0 if asset.animations else None


def expected_corners(asset: gltf.Asset, shot: Shot, time: float) -> np.ndarray:
    """Return the corners of our evaluator [F, 3, 3]: all triangles that do not use a vertex twice, front first."""
    pose = asset.pose(shot.animation, float(time))
    world = pose.positions @ shot.asset_to_world[:3, :3].T + shot.asset_to_world[:3, 3]
    corners = []
    for primitive, flipped in zip(asset.primitives, pose.mirrored, strict=True):
        triangles = [
            (a, c, b) if flipped else (a, b, c)
            for a, b, c in primitive.triangles.tolist()
            if len({a, b, c}) == 3
        ]
        corners += [world[triangles]]
    return np.concatenate(corners)


def deviation(asset: gltf.Asset, shot: Shot) -> float:
    """Return the largest distance between a vertex that Blender draws and ours, in diagonals of the frame."""
    worst = 0.0
    for time, drawn in zip(shot.timestamps, blender.rendered_corners(asset, shot), strict=True):
        expected = expected_corners(asset, shot, time)
        assert drawn.shape == expected.shape
        diagonal = np.linalg.norm(np.ptp(expected.reshape(-1, 3), axis=0))
        worst = max(worst, float(np.linalg.norm(drawn - expected, axis=-1).max() / diagonal))
    return worst


def overlaps(a: RenderedClip, b: RenderedClip) -> np.ndarray:
    """Return the intersection over union of the silhouettes, per view and frame."""
    return (a.mask & b.mask).sum((2, 3)) / (a.mask | b.mask).sum((2, 3))


def write_sheet(path: Path, *clips: RenderedClip) -> None:
    """Write a PNG with one row per clip: views and frames side by side over grey."""
    rows = [np.concatenate(clip.over(GREY).reshape(-1, *clip.frames.shape[2:4], 3), 1) for clip in clips]
    Image.fromarray(np.concatenate(rows)).save(path)


@pytest.mark.parametrize("case", CASES)
def test_drawn_vertices_are_those_of_our_evaluator(case, record_property):
    asset = gltf.load(CASES[case]())
    shot = clip_of(asset, first_animation(asset))
    worst = deviation(asset, shot)
    record_property("deviation in diagonals", worst)
    assert worst < TOLERANCE
    if len(shot.timestamps) > 1:  # control: the frames differ by more than the tolerance
        still = replace(shot, timestamps=np.roll(shot.timestamps, 1))
        first, later = (expected_corners(asset, still, time) for time in still.timestamps[:2])
        assert np.abs(first - later).max() > 100 * TOLERANCE


@pytest.mark.parametrize("case", ["morph weight above 1", "morph weights above 10", "sheared bind matrices"])
def test_the_importer_of_blender_poses_these_cases_differently(case, tmp_path):
    """Control: a back end that draws what Blender's importer evaluates would fail the test above."""
    path = tmp_path / "case.glb"
    path.write_bytes(CASES[case]())
    asset = gltf.load(path)
    shot = clip_of(asset, 0)
    imported = blender.corner_positions(path, 0, shot.timestamps.tolist())
    worst = 0.0
    for index, time in enumerate(shot.timestamps):
        points = asset.positions(0, float(time))
        for part in asset.primitives:
            difference = points[part.triangles] - imported[part.node, part.index][index]
            worst = max(worst, np.abs(difference).max() / np.linalg.norm(np.ptp(points, axis=0)))
    assert worst > 100 * TOLERANCE


@pytest.mark.parametrize(
    "case",
    [
        "morph weight above 1",
        "scale that becomes negative",
        pytest.param("sheared bind matrices", marks=pytest.mark.slow),
        pytest.param("one of two nodes becomes a reflection", marks=pytest.mark.slow),
    ],
)
def test_silhouettes_are_those_of_opengl_in_every_frame(case, tmp_path):
    asset = gltf.load(CASES[case]())
    shot = clip_of(asset, first_animation(asset), size=128)
    ours = render_clip(asset, shot, RenderSettings(samples=16), backend="opengl")
    theirs = blender.render_clip(asset, shot, samples_per_pixel=16)
    write_sheet(tmp_path / "sheet.png", ours, theirs)
    assert overlaps(ours, theirs).min() > 0.97
    assert overlaps(replace(ours, frames=np.roll(ours.frames, 1, 1)), theirs).min() < 0.9  # frames differ


def every_feature() -> TinyGltf:
    """Squares with a texture of the second set, mirrored and transformed, vertex colours, a mask, glTF's default."""
    tiny = TinyGltf()
    pixels = np.array([[(220, 30, 30), (30, 200, 30)], [(40, 40, 210), (230, 230, 60)]], np.uint8)
    texture = {"index": add_texture(tiny, pixels, s=MIRROR), "texCoord": 1}
    texture["extensions"] = {"KHR_texture_transform": {"scale": [2, 1], "offset": [0.1, 0.0]}}
    second = unlit()
    second["pbrMetallicRoughness"]["baseColorTexture"] = texture
    mask = unlit(alphaMode="MASK", alphaCutoff=0.4)
    holes = np.dstack([np.full((2, 2, 3), 200), [[255, 0], [90, 255]]])
    mask["pbrMetallicRoughness"]["baseColorTexture"] = {"index": add_texture(tiny, holes)}
    colors = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 0, 1]])
    nodes = [
        add_square(tiny, second, translation=[-1.05, 1.05, 0]),
        add_square(tiny, unlit(0.8, 0.8, 0.8), colors=colors, translation=[1.05, 1.05, 0]),
        add_square(tiny, mask, translation=[-1.05, -1.05, 0]),
        add_square(tiny, unlit(0.1, 0.4, 0.7), translation=[1.05, -1.05, 0]),
    ]
    attributes = tiny.json["meshes"][0]["primitives"][0]["attributes"]
    attributes["TEXCOORD_1"] = attributes["TEXCOORD_0"]
    attributes["TEXCOORD_0"] = tiny.accessor(np.full((4, 2), 0.9))
    tiny.scene(*nodes)
    return tiny


def test_materials_match_opengl(tmp_path):
    """Unlit colours are equal up to noise: texture sets, transforms, wrapping, vertex colours, masks."""
    asset = gltf.load(every_feature().glb())
    shot = make_shot(distance=8.0, half_height=2.2, width=96, height=96)
    ours = render_clip(asset, shot, RenderSettings(samples=16), backend="opengl")
    theirs = blender.render_clip(asset, shot, samples_per_pixel=16)
    write_sheet(tmp_path / "sheet.png", ours, theirs)
    assert overlaps(ours, theirs).min() > 0.98
    both = (ours.frames[..., 3] == 255) & (theirs.frames[..., 3] == 255)
    difference = np.abs(ours.frames[..., :3][both].astype(int) - theirs.frames[..., :3][both]).max(-1)
    assert np.mean(difference > 12) < 0.05, "texel borders may differ, areas may not"


def test_a_file_that_the_importer_of_blender_refuses_is_drawn(tmp_path):
    """Only materials reach the importer: unknown required extensions, nulls and texture sets do not stop it."""
    tiny = every_feature()
    tiny.json["extensionsUsed"] = ["KHR_xmp_json_ld", "KHR_materials_variants", "KHR_materials_unlit"]
    tiny.json["extensionsRequired"] = ["KHR_xmp_json_ld"]
    tiny.json["materials"][0] |= {"normalTexture": None, "name": None, "doubleSided": None}
    tiny.json["materials"][0]["extras"] = {"anything": [1, None]}
    asset = gltf.load(tiny.glb())
    document = Document.open(tiny.glb(), "case", gltf.Limits())
    glb = blender_scene.materials_glb(document, [0, None], [False, True])
    assert [material.name for material in gltf.load(glb).materials] == ["material 0", "material 1"]
    shot = make_shot(distance=8.0, half_height=2.2)
    assert blender.render_clip(asset, shot, samples_per_pixel=1).mask.mean() > 0.5


def test_textures_without_an_image_are_left_out():
    tiny = TinyGltf()
    good = add_texture(tiny, np.full((2, 2, 3), 90), filter=LINEAR)
    broken = tiny.add("images", bufferView=tiny.view(b"no image"), mimeType="image/png")
    bad = tiny.add("textures", source=broken)
    material = lit([1, 1, 1])
    material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": good}
    coat = {
        "clearcoatFactor": 0.5,
        "clearcoatTexture": {"index": bad},
        "clearcoatNormalTexture": {"index": 9},
    }
    material["extensions"] = {"KHR_materials_clearcoat": coat}
    tiny.scene(add_square(tiny, material))
    document = Document.open(tiny.glb(), "case", gltf.Limits())
    root = Document.open(blender_scene.materials_glb(document, [0], [False]), "out", gltf.Limits()).json
    assert root["materials"][0]["extensions"]["KHR_materials_clearcoat"] == {"clearcoatFactor": 0.5}
    assert root["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] == {"index": 0}
    assert root["textures"] == [{"sampler": 0, "source": 0}, {}]
    assert len(root["images"]) == 1


def test_poses_are_read_from_the_asset_not_from_its_file(tmp_path):
    """A damaged animation in the file does not matter once the asset has been loaded."""
    path = tmp_path / "case.glb"
    path.write_bytes(moving("translation", [0, 2], [[0, 0, 0], [1, 2, 3]]).glb())
    asset = gltf.load(path)
    other = moving("translation", [0, 2], [[0, 0, 0], [9, 9, 9]])
    other.json["animations"][0]["samplers"][0]["input"] = 999
    path.write_bytes(other.glb())
    assert deviation(asset, clip_of(asset, 0)) < TOLERANCE


def test_images_are_those_that_the_reader_decoded(tmp_path):
    """A file whose image is gone after loading keeps its colours."""
    pixels = np.full((2, 2, 3), (10, 200, 60), np.uint8)
    tiny = textured_square(pixels)
    Image.fromarray(pixels).save(tmp_path / "texture.png")
    tiny.json["images"] = [{"uri": "texture.png"}]
    path = tmp_path / "square.glb"
    path.write_bytes(tiny.glb())
    asset = gltf.load(path)
    (tmp_path / "texture.png").unlink()
    frame = blender.render_clip(asset, make_shot(), samples_per_pixel=1).frames[0, 0]
    assert np.abs(frame[8:24, 8:24, :3].astype(int) - (10, 200, 60)).max() <= 3


def test_far_from_the_origin_silhouettes_are_those_of_opengl():
    tiny = TinyGltf()
    node = tiny.node(mesh=tiny.mesh(), translation=[3000, 100, -7000])
    tiny.scene(node)
    asset = gltf.load(tiny.glb())
    to_world = np.eye(4)
    to_world[:3, 3] = [-3000.5, -101, 6998.5]
    shot = make_shot(30, 10, width=96, height=96, distance=8, half_height=2.5, asset_to_world=to_world)
    ours = render_clip(asset, shot, RenderSettings(samples=16), backend="opengl")
    theirs = blender.render_clip(asset, shot, samples_per_pixel=16)
    assert ours.mask.mean() > 0.05 and overlaps(ours, theirs).min() > 0.95


# --- real models ----------------------------------------------------------------------------------

REAL = collected(*sorted(str(path.relative_to(COLLECTION)) for path in COLLECTION.glob("*.gl*")))
REAL += collected("01_cs_rotate/01_cs_rotate.gltf", "03_all_animations/03_all_animations.gltf")


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_models(name, tmp_path, record_property):
    asset = gltf.load(model(name))
    shot = clip_of(asset, first_animation(asset), frames=3, size=128)
    worst = deviation(asset, shot)
    ours = render_clip(asset, shot, RenderSettings(samples=16), backend="opengl")
    theirs = blender.render_clip(asset, shot, samples_per_pixel=16)
    write_sheet(tmp_path / "sheet.png", ours, theirs)
    record_property("deviation in diagonals, worst overlap", [worst, float(overlaps(ours, theirs).min())])
    assert worst < TOLERANCE
    assert overlaps(ours, theirs).min() > 0.97
