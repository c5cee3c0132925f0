"""The rasterising back ends, compared with images computed by hand: every test runs for each of them."""

from __future__ import annotations

import numpy as np
import pytest
import scenes
from reflection import albedo
from sample_assets import model, with_bundled
from sample_clips import psnr, silhouette_band
from scenes import (
    CLAMP,
    LINEAR,
    MIRROR,
    REPEAT,
    SQUARE,
    SQUARE_FACES,
    SQUARE_UV,
    add_mesh,
    add_square,
    add_texture,
    ball,
    decode,
    encode,
    lit,
    picture,
    render,
    shot,
    sphere,
    square,
    textured_square,
    unlit,
)
from tiny_gltf import TinyGltf, moving

from factory.clips.plan import ClipRecipe, plan_asset
from renderers import gltf
from renderers.meshes import (
    PICTURE_VERSIONS,
    WHITE,
    RenderError,
    RenderSettings,
    composite,
    cpu,
    environment,
    opengl,
    render_clip,
    renderer,
)
from renderers.meshes.closed import closed_triangles

BACKENDS = ("opengl", "cpu")
MODULES = {"opengl": opengl, "cpu": cpu}

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


@pytest.fixture(params=BACKENDS, autouse=True)
def backend(request, monkeypatch) -> str:
    """Name of the back end, which is also the one of `render` and `picture`."""
    monkeypatch.setattr(scenes, "BACKEND", request.param)
    return request.param


def centre(image: np.ndarray) -> np.ndarray:
    """Return a pixel near the centre, away from the diagonal of the square and from texel edges."""
    return image[image.shape[0] // 2 - 3, image.shape[1] // 2 + 5].astype(int)


def near(colour, expected, within: float = 1.0) -> bool:
    return bool(np.all(np.abs(np.asarray(colour, float) - expected) <= within))


# --- exact colours --------------------------------------------------------------------------------


@pytest.mark.parametrize("linear", [(0.2, 0.5, 0.8), (0.001, 0.003, 0.0), (1.0, 0.25, 0.0313)])
def test_factors_are_linear_and_images_srgb(linear):
    colour = centre(picture(square(unlit(*linear))))
    assert near(colour, [*encode(np.array(linear)), 255])
    assert not near(colour[:3], 255 * np.array(linear), 10) or max(linear) < 0.01  # control: not encoded


def test_texture_levels_are_preserved():
    """256 greys, each a texel of 8 x 8 px: stored and rendered sRGB-encoded."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    image = picture(textured_square(levels), width=128, height=128)
    assert near(image[4::8, 4::8, :3], levels)
    assert (image[..., 3] == 255).all()


def test_texture_factor_and_vertex_colour_multiply_in_linear_light():
    tiny = TinyGltf()
    material = unlit(0.5, 1.0, 0.8)
    texture = add_texture(tiny, np.full((4, 4, 3), (200, 100, 255)))
    material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": texture}
    tiny.scene(add_square(tiny, material, colors=np.tile(np.float32([0.6, 0.7, 0.25]), (4, 1))))
    expected = encode(decode(np.array([200, 100, 255])) * [0.5, 1.0, 0.8] * [0.6, 0.7, 0.25])
    assert near(centre(picture(tiny))[:3], expected)


def test_vertex_colours_are_linear_and_interpolated():
    """From black on the left to white on the right: (x + 0.5) / 32 at pixel x of 32."""
    ramp = np.array([[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]], np.float32)
    image = picture(square(unlit(), colors=ramp))
    expected = encode((np.arange(32) + 0.5) / 32)
    assert near(image[7, :, 0], expected)


# --- orientation ----------------------------------------------------------------------------------

QUARTERS = np.array([[RED, GREEN], [BLUE, YELLOW]], np.uint8)


def test_top_row_is_up_and_left_is_left():
    """Exact to the pixel, at odd and even sizes, for every number of samples."""
    for size in (31, 32):
        for samples in (1, 4, 16):
            image = picture(textured_square(QUARTERS), width=size, height=size, samples=samples)[..., :3]
            half = size // 2
            for rows, columns, colour in (
                (slice(0, half), slice(0, half), RED),
                (slice(0, half), slice(-half, None), GREEN),
                (slice(-half, None), slice(0, half), BLUE),
                (slice(-half, None), slice(-half, None), YELLOW),
            ):
                assert (image[rows, columns] == colour).all(), (size, samples, colour)


def test_pixels_match_projections():
    """A small square far from the centre of a non-square image, seen obliquely from above."""
    tiny = TinyGltf()
    place = np.array([0.2, 0.4, 0.3])
    tiny.scene(add_square(tiny, unlit(doubleSided=True), scale=[0.05] * 3, translation=place.tolist()))
    for width, height in ((96, 40), (40, 96)):
        view = shot([25.0, 200.0], 20.0, width=width, height=height)
        clip = render(tiny, view, samples=16)
        pixels, _ = view.cameras.project(place)
        for alpha, expected in zip(clip.frames[:, 0, ..., 3] / 255.0, pixels, strict=True):
            y, x = np.mgrid[:height, :width] + 0.5
            centroid = [(x * alpha).sum() / alpha.sum(), (y * alpha).sum() / alpha.sum()]
            np.testing.assert_allclose(centroid, expected, atol=0.1)


def test_frames_and_views_are_in_order():
    """A square that moves right by half its width per second moves left when seen from behind."""
    tiny = moving("translation", [0, 1], [[0, 0, 0], [1, 0, 0]])
    view = shot([0, 180], half_height=4.0, animation=0, times=(0.0, 0.5, 1.0), width=64, height=64)
    clip = render(tiny, view, samples=4)
    alpha = clip.frames[..., 3].astype(float)
    columns = (alpha.sum(2) * (np.arange(64) + 0.5)).sum(-1) / alpha.sum((2, 3))
    assert clip.frames.shape == (2, 3, 64, 64, 4)
    assert (np.diff(columns[0]) > 3).all()
    assert (np.diff(columns[1]) < -3).all()


# --- alpha modes ----------------------------------------------------------------------------------


def test_mask_applies_the_cutoff():
    levels = np.zeros((16, 16, 4), np.uint8)
    levels[..., 0] = 200
    levels[..., 3] = np.arange(256).reshape(16, 16)
    tiny = textured_square(levels)
    tiny.json["materials"][0] |= {"alphaMode": "MASK", "alphaCutoff": 0.6}
    alpha = picture(tiny, width=128, height=128)[4::8, 4::8, 3]
    assert (alpha == np.where(levels[..., 3] / 255 >= 0.6, 255, 0)).all()


def test_opaque_ignores_alpha():
    levels = np.full((4, 4, 4), 100, np.uint8)
    assert near(centre(picture(textured_square(levels))), [100, 100, 100, 255])


@pytest.mark.parametrize("samples", [1, 4, 16])
def test_blend_gives_straight_alpha(samples):
    colour = centre(picture(square(unlit(0.6, 0.2, 0.05, 0.5, alphaMode="BLEND")), samples=samples))
    assert near(colour, [*encode(np.array([0.6, 0.2, 0.05])), 127.5])


def two_layers(one_mesh: bool, front_alpha: float = 0.5, back_alpha: float = 0.5) -> TinyGltf:
    """A red square at z = +0.2 and a green one at z = -0.2, seen from both sides."""
    tiny = TinyGltf()
    red = unlit(1, 0, 0, front_alpha, alphaMode="BLEND", doubleSided=True)
    green = unlit(0, 1, 0, back_alpha, alphaMode="BLEND", doubleSided=True)
    if one_mesh:
        tiny.scene(
            add_mesh(
                tiny,
                np.concatenate([SQUARE + [0, 0, 0.2], SQUARE - [0, 0, 0.2]]),
                np.concatenate([SQUARE_FACES, SQUARE_FACES + 4]),
                unlit(alphaMode="BLEND", doubleSided=True),
                colors=np.repeat([[1, 0, 0, front_alpha], [0, 1, 0, back_alpha]], 4, axis=0),
            )
        )
    else:
        tiny.scene(
            add_square(tiny, red, translation=[0, 0, 0.2]), add_square(tiny, green, translation=[0, 0, -0.2])
        )
    return tiny


@pytest.mark.parametrize("one_mesh", [True, False])
def test_two_translucent_layers_from_both_sides(one_mesh):
    """Half red over half green: premultiplied (1/2, 1/4), alpha 3/4, i.e. straight (2/3, 1/3); and vice versa."""
    tiny = two_layers(one_mesh)
    front, back = (centre(picture(tiny, azimuth, half_height=0.8)) for azimuth in (0, 180))
    assert near(front, [170, 85, 0, 191.25])
    assert near(back, [85, 170, 0, 191.25])


@pytest.mark.parametrize("one_mesh", [True, False])
def test_a_translucent_layer_over_a_solid_one(one_mesh):
    tiny = two_layers(one_mesh, back_alpha=1.0)
    front, back = (centre(picture(tiny, azimuth, half_height=0.8)) for azimuth in (0, 180))
    assert near(front, [127.5, 127.5, 0, 255])
    assert near(back, [0, 255, 0, 255])


def test_a_stack_of_layers_of_one_mesh_from_any_side():
    """Five layers in arbitrary order in the file; the nearest has the largest weight."""
    depths = np.array([0.0, 0.4, -0.2, 0.2, -0.4])
    colours = np.eye(5)[:, :3] + np.array([0, 0, 0, 1, 0.5])[:, None]
    positions = np.concatenate([SQUARE + [0, 0, z] for z in depths])
    faces = np.concatenate([SQUARE_FACES + 4 * i for i in range(5)])
    tiny = TinyGltf()
    material = unlit(alphaMode="BLEND", doubleSided=True)
    colors = np.repeat(np.c_[np.clip(colours, 0, 1), np.full(5, 0.4)], 4, axis=0)
    tiny.scene(add_mesh(tiny, positions, faces, material, colors=colors))
    for azimuth, order in ((0, np.argsort(depths)), (180, np.argsort(-depths))):
        value, alpha = np.zeros(3), 0.0
        for layer in order:  # from far to near, in encoded values
            value = 0.4 * encode(np.clip(colours[layer], 0, 1)) + 0.6 * value
            alpha = 0.4 + 0.6 * alpha
        assert near(centre(picture(tiny, azimuth, half_height=0.6)), [*(value / alpha), 255 * alpha], 2)


def test_two_materials_that_interleave():
    """Red, green and red again, each half opaque: the nearest red has the largest weight, from both sides."""
    tiny = TinyGltf()
    red, green = (
        tiny.add("materials", **unlit(*c, 0.5, alphaMode="BLEND", doubleSided=True))
        for c in ((1, 0, 0), (0, 1, 0))
    )
    tiny.scene(
        add_square(tiny, red, translation=[0, 0, 0.3]),
        add_square(tiny, green),
        add_square(tiny, red, translation=[0, 0, -0.3]),
    )
    # Premultiplied: 1/2 + 1/8 red, 1/4 green, alpha 7/8.
    for azimuth in (0, 180):
        assert near(centre(picture(tiny, azimuth, half_height=0.6)), [182.1, 72.9, 0, 223.1], 3)


# --- faces ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("double_sided", [False, True])
def test_back_faces_are_culled_unless_double_sided(mirrored, double_sided):
    """A mirroring node reverses the winding, but not which side is the front."""
    scale = [-1, 1, 1] if mirrored else [1, 1, 1]
    tiny = TinyGltf()
    material = unlit(doubleSided=double_sided)
    material["pbrMetallicRoughness"]["baseColorTexture"] = {"index": add_texture(tiny, QUARTERS)}
    tiny.scene(add_square(tiny, material, scale=scale))
    front, back = picture(tiny, 0), picture(tiny, 180)
    assert tuple(front[4, 4, :3]) == (GREEN if mirrored else RED)
    assert (front[..., 3] == 255).all()
    assert (back[..., 3] == (255 if double_sided else 0)).all()
    if double_sided:
        assert tuple(back[4, 4, :3]) == (RED if mirrored else GREEN)


def test_both_sides_of_a_double_sided_face_are_lit_from_their_own_side():
    """The light is brightest from the front above: a face turned there is brighter than its back, which faces down.

    Single-sided faces with these orientations give the expected values.
    """
    up = [-0.5, 0, 0, 0.8660254]  # +Z to 60 degrees above the front
    sheet = square(lit((0.5, 0.5, 0.5), doubleSided=True), rotation=up)
    turned = square(
        lit((0.5, 0.5, 0.5)), rotation=[0.8660254, 0, 0, 0.5]
    )  # the same plane from the other side
    top, bottom = picture(sheet, 0, 60), picture(sheet, 180, -60)
    assert near(centre(bottom), centre(picture(turned, 180, -60)), 2)
    assert centre(top)[0] > centre(bottom)[0] + 30


# --- textures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"),
    [(REPEAT, "23 0123 0123 01"), (MIRROR, "10 0123 3210 01"), (CLAMP, "00 0123 3333 33")],
)
@pytest.mark.parametrize("axis", ["s", "t"])
@pytest.mark.parametrize("filter", ["nearest", "linear"])
def test_wrap_modes(mode, expected, axis, filter):
    """Four texels over coordinates -0.5 to 2.5: twelve bands of 8 px, read at their centres."""
    levels = np.array([40, 100, 160, 220], np.uint8)
    texels = levels[None, :, None].repeat(3, 2)
    uv = SQUARE_UV.copy()
    column = 0 if axis == "s" else 1
    if axis == "t":
        texels = texels.transpose(1, 0, 2)
    uv[:, column] = uv[:, column] * 3 - 0.5
    if filter == "linear":  # the value at a texel centre is that of the texel
        texels = texels.repeat(8, 0 if axis == "t" else 1)
    options = {axis: mode, "filter": LINEAR if filter == "linear" else 9728}
    image = picture(textured_square(texels, uv=uv, **options), width=96, height=96)
    line = image[5, 4::8, 0] if axis == "s" else image[4::8, 5, 0]
    bands = [int(np.abs(levels.astype(int) - value).argmin()) for value in line]
    assert "".join(map(str, bands)) == expected.replace(" ", "")
    assert near(line, levels[bands])


@pytest.mark.parametrize(
    ("transform", "corner"),
    [
        # Texels are RED GREEN / BLUE YELLOW; the upper left quarter of the square has (u, v) = (1/4, 1/4).
        ({}, RED),
        ({"offset": [0.5, 0]}, GREEN),
        ({"offset": [0, 0.5]}, BLUE),
        ({"scale": [3, 1]}, GREEN),  # u = 3/4
        ({"scale": [3, 3]}, YELLOW),
        # Coordinates rotate counter-clockwise on screen, v pointing down: (u, v) to (v, -u) = (1/4, 3/4).
        ({"rotation": np.pi / 2}, BLUE),
        ({"rotation": -np.pi / 2}, GREEN),
        # Scale first: (3/4, 1/4), rotated to (1/4, -3/4), translated to (3/4, -3/4).
        ({"scale": [3, 1], "rotation": np.pi / 2, "offset": [0.5, 0]}, GREEN),
    ],
)
def test_texture_transform(transform, corner):
    image = picture(textured_square(QUARTERS, transform=transform))
    assert tuple(image[8, 8, :3]) == corner


# --- light ----------------------------------------------------------------------------------------


def sphere_hits(view, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intersect the pixel-centre rays of view 0 with the unit sphere at the origin.

    Returns mask [H, W], unit normals [H, W, 3], unit directions to the eye [H, W, 3], depth [H, W].
    """
    cameras = view.cameras
    y, x = np.mgrid[:height, :width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(cameras.K[0]).T
    camera_to_world = cameras.camera_to_world[0]
    rays = rays @ camera_to_world[:3, :3].T  # depth 1 along the axis
    eye = camera_to_world[:3, 3]
    a, b, c = (rays * rays).sum(-1), rays @ eye, eye @ eye - 1
    root = b * b - a * c
    depth = (-b - np.sqrt(np.maximum(root, 0))) / a
    return root > 0, eye + rays * depth[..., None], -rays / np.sqrt(a)[..., None], depth


def test_diffuse_light_is_the_integral_of_the_environment():
    """A grey and a black sphere differ only in diffuse light: what the coat lets through, times irradiance over pi."""
    view = shot(30, 25, width=96, height=96, half_height=1.1)
    grey, black = (
        decode(render(ball(lit((level,) * 3)), view, samples=1).frames[0, 0, ..., :3]) for level in (0.5, 0.0)
    )
    hit, normals, to_eye, _ = sphere_hits(view, 96, 96)
    inside = hit & ((normals * to_eye).sum(-1) > 0.3)
    coat = albedo((normals * to_eye).sum(-1)[inside], 1.0, 0.04)
    measured = (grey - black)[inside] / (0.5 * (1.0 - coat))[:, None]
    # Directions distributed uniformly over the sphere (Fibonacci lattice), so that a mean is an integral.
    k = np.arange(4096)
    z = 1 - (2 * k + 1) / 4096
    turn = k * np.pi * (3 - np.sqrt(5))
    directions = np.stack([np.sqrt(1 - z * z) * np.cos(turn), np.sqrt(1 - z * z) * np.sin(turn), z], -1)
    light = environment.radiance(directions)
    cosine = np.maximum(normals[inside] @ directions.T, 0)
    integral = 4 * cosine @ light / 4096  # over pi
    error = np.abs(measured - integral) / integral
    assert error.mean() < 0.02
    assert error.max() < 0.06
    flat = np.broadcast_to(integral.mean(0), integral.shape)
    assert (np.abs(measured - flat) / flat).mean() > 0.1  # control: it is not constant


def test_a_mirror_reflects_the_environment():
    """A polished white metal sphere: each pixel is the radiance in the reflected direction."""
    view = shot(200, 10, width=96, height=96, half_height=1.1)
    image = render(ball(lit((1, 1, 1), metallic=1.0, roughness=0.0)), view).frames[0, 0, ..., :3]
    hit, normals, to_eye, _ = sphere_hits(view, 96, 96)
    facing = (normals * to_eye).sum(-1, keepdims=True)
    expected = encode(environment.radiance(2 * facing * normals - to_eye))
    inside = hit & (facing[..., 0] > 0.3)
    assert np.abs(image - expected)[inside].mean() < 3
    assert image[inside].min() > 60  # nothing is black
    assert image[inside].std() > 15  # and there is contrast


@pytest.mark.parametrize("roughness", [0.0, 0.3, 0.6, 1.0])
def test_metals_are_never_black(roughness):
    image = picture(
        ball(lit((0.9, 0.7, 0.3), metallic=1.0, roughness=roughness)), width=64, height=64, half_height=1.1
    )
    inside = image[..., 3] == 255
    assert image[inside][:, :2].min() > 50
    assert image[inside][:, 0].std() > 8
    assert image[inside][:, 0].mean() > image[inside][:, 2].mean() + 20  # gold


def test_rougher_metals_reflect_more_softly():
    spread = []
    for roughness in (0.1, 0.4, 0.8):
        image = picture(ball(lit((0.6,) * 3, 1.0, roughness)), 30, 20, width=64, height=64, half_height=0.7)
        spread.append(int(np.ptp(image[..., 1].astype(int))))
    assert spread[0] > spread[1] > spread[2]


def test_emission_is_added_in_linear_light():
    plain, glowing = (
        decode(centre(picture(square(lit((0.2, 0.2, 0.2), emissiveFactor=glow))))[:3])
        for glow in ([0, 0, 0], [0.5, 0.25, 0.0])
    )
    np.testing.assert_allclose(glowing - plain, [0.5, 0.25, 0.0], atol=0.006)


def test_emissive_strength_goes_past_one_and_saturates():
    material = lit((0, 0, 0), emissiveFactor=[0.5, 0.1, 0.0])
    material["extensions"] = {"KHR_materials_emissive_strength": {"emissiveStrength": 4.0}}
    colour = decode(centre(picture(square(material)))[:3])
    plain = decode(centre(picture(square(lit((0, 0, 0)))))[:3])
    assert colour[0] == 1.0
    np.testing.assert_allclose((colour - plain)[1:], [0.4, 0.0], atol=0.006)


def test_emissive_texture_occlusion_and_roughness_textures_are_read_from_their_channels():
    def with_textures(**slots) -> np.ndarray:
        tiny = TinyGltf()
        material = lit((0.5, 0.5, 0.5), metallic=1.0, roughness=1.0)
        for name, pixel in slots.items():
            info = {"index": add_texture(tiny, np.full((4, 4, 3), pixel))}
            if name == "metallicRoughnessTexture":
                material["pbrMetallicRoughness"][name] = info
            else:
                material[name] = info
            if name == "emissiveTexture":
                material["emissiveFactor"] = [1, 1, 1]
        tiny.scene(add_square(tiny, material))
        return centre(picture(tiny))

    # Blue is metallic, green is roughness, red is unused.
    dielectric = centre(picture(square(lit((0.5, 0.5, 0.5), 0.0, 0.6))))
    assert near(with_textures(metallicRoughnessTexture=(255, 153, 0)), dielectric)
    metal = centre(picture(square(lit((0.5, 0.5, 0.5), 1.0, 0.6))))
    assert near(with_textures(metallicRoughnessTexture=(0, 153, 255)), metal)
    assert np.abs(metal - dielectric).max() > 4
    assert near(with_textures(occlusionTexture=(0, 255, 255))[:3], 0)  # red is occlusion: no light
    assert near(with_textures(occlusionTexture=(255, 0, 0)), with_textures())
    glow = decode(with_textures(emissiveTexture=(188, 0, 0))[:3]) - decode(with_textures()[:3])
    np.testing.assert_allclose(glow, [decode(188), 0, 0], atol=0.006)


def test_normal_maps_tilt_the_surface():
    """A map that tilts all normals by 40 degrees to the right or up gives the same shading as tilted vertex normals.

    +v points down in the image, green points up.
    """
    s, c = np.sin(np.radians(40)), np.cos(np.radians(40))
    for lean, pixel in (((s, 0, c), (s, 0, c)), ((0, s, c), (0, s, c)), ((-s, 0, c), (-s, 0, c))):
        tiny = TinyGltf()
        texel = np.rint((np.array(pixel) * 0.5 + 0.5) * 255)
        material = lit((0.5, 0.5, 0.5))
        material["normalTexture"] = {"index": add_texture(tiny, np.full((4, 4, 3), texel))}
        tiny.scene(add_square(tiny, material))
        bent = TinyGltf()
        normals = np.broadcast_to(np.float32(lean), SQUARE.shape)
        bent.scene(add_mesh(bent, SQUARE, SQUARE_FACES, lit((0.5, 0.5, 0.5)), normals=normals))
        assert near(centre(picture(tiny)), centre(picture(bent)), 2)


# --- depth and normals ----------------------------------------------------------------------------


def test_depth_of_an_oblique_plane():
    """Depth is in metres of the world, along the optical axis; the asset is scaled by one half and moved."""
    matrix = np.diag([0.5, 0.5, 0.5, 1.0])
    matrix[:3, 3] = (0.1, -0.2, 0.3)
    tiny = square(unlit(doubleSided=True), scale=[3, 3, 3])
    view = shot(35, 20, width=48, height=32, half_height=0.5, asset_to_world=matrix)
    clip = render(tiny, view, depth=True, normals=True)
    y, x = np.mgrid[:32, :48] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(view.cameras.K[0]).T
    camera_to_world = view.cameras.camera_to_world[0]
    directions, eye = rays @ camera_to_world[:3, :3].T, camera_to_world[:3, 3]
    expected = (0.3 - eye[2]) / directions[..., 2]  # the plane z = 0.3
    np.testing.assert_allclose(clip.depth[0, 0], expected, rtol=1e-4)
    np.testing.assert_allclose(clip.normals[0, 0], np.broadcast_to([0, 0, 1], (32, 48, 3)), atol=1e-5)
    along_the_ray = expected * np.linalg.norm(rays, axis=-1)
    assert not np.allclose(clip.depth[0, 0], along_the_ray, rtol=1e-4)  # control


def test_depth_and_normals_of_a_sphere():
    view = shot(120, -15, width=64, height=64, half_height=1.2)
    clip = render(ball(lit((1, 1, 1))), view, depth=True, normals=True)
    hit, normals, to_eye, depth = sphere_hits(view, 64, 64)
    inside = hit & ((normals * to_eye).sum(-1) > 0.2)
    np.testing.assert_allclose(clip.depth[0, 0][inside], depth[inside], atol=2e-3)
    cosines = (clip.normals[0, 0] * normals).sum(-1)[inside]
    assert np.degrees(np.arccos(np.clip(cosines, -1, 1))).max() < 0.5
    outside = clip.frames[0, 0, ..., 3] == 0
    assert outside.any()
    assert not clip.depth[0, 0][outside].any()
    assert not clip.normals[0, 0][outside].any()
    assert (np.abs(np.linalg.norm(clip.normals[0, 0][~outside], axis=-1) - 1) < 1e-5).all()


def test_depth_and_normals_are_optional():
    clip = render(square(), shot())
    assert clip.depth is None and clip.normals is None


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_depth_tests_hold_at_any_scale(scale):
    """A green square behind a red one, at a hundredth of its size, stays behind at any scale."""
    tiny = TinyGltf()
    tiny.scene(
        add_square(tiny, unlit(0, 1, 0), translation=[0, 0, -0.01 * scale], scale=[scale] * 3),
        add_square(tiny, unlit(1, 0, 0), scale=[scale] * 3),
    )
    matrix = np.diag([1 / scale] * 3 + [1.0])
    image = picture(tiny, 20, half_height=0.9, asset_to_world=matrix)
    assert tuple(centre(image)) == (255, 0, 0, 255)


# --- samples --------------------------------------------------------------------------------------


def test_numbers_of_samples_agree_away_from_edges():
    from scipy.ndimage import binary_erosion

    tiny = ball(lit((0.7, 0.4, 0.2), 0.3, 0.5))
    view = shot(20, 20, width=64, height=64, half_height=1.2)
    one, four, sixteen = (render(tiny, view, samples=n).frames[0, 0].astype(int) for n in (1, 4, 16))
    inside = binary_erosion(sixteen[..., 3] == 255, iterations=2)
    assert np.abs(one - sixteen)[inside].max() <= 3
    assert np.abs(four - sixteen)[inside].max() <= 2
    # At edges alpha is the coverage, in steps of a quarter or of a sixteenth.
    for image, n in ((one, 1), (four, 4), (sixteen, 16)):
        levels = np.unique(image[..., 3])
        assert near(levels, np.rint(levels / 255 * n) / n * 255, 0.51)
        assert len(levels) > n / 2
    y, x = np.mgrid[: 64 * 8, : 64 * 8] / 8.0
    rim = np.hypot(
        x + 1 / 16 - 32, y + 1 / 16 - 32
    )  # the sphere projects to a disc of radius tan(asin(1 / 4)) * f
    radius = view.cameras.K[0, 0, 0] * np.tan(np.arcsin(1 / 4))
    coverage = (rim < radius).reshape(64, 8, 64, 8).mean((1, 3)) * 255
    assert np.abs(sixteen[..., 3] - coverage).mean() < np.abs(one[..., 3] - coverage).mean() / 2
    assert np.abs(sixteen[..., 3] - coverage).max() < 40


def test_invalid_numbers_of_samples_are_rejected():
    with pytest.raises(ValueError, match="1, 4 or 16, got 8"):
        RenderSettings(samples=8)


# --- real models, and surfaces that are skipped -----------------------------------------------------


def asset_shot(name: str, size: int, frames: int = 2, views: int = 4, index: int | None = None):
    """Return a model, and a shot of a few frames and views of its first planned clip."""
    asset = gltf.load(model(name))
    recipe = ClipRecipe(resolution=size, views=views, num_frames=48, max_animations=1)
    plans, _ = plan_asset(asset, name, recipe)
    planned = plans[index or 0].shot(recipe)
    chosen = planned.timestamps[np.linspace(5, 43, frames).astype(int)]
    return asset, type(planned)(planned.animation, chosen, planned.asset_to_world, planned.cameras)


def white_view(targets_class):
    """Return a subclass of `Targets` that clears to opaque white: a direct render over white."""

    class OnWhite(targets_class):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            clear = self.view.clear
            self.view.clear = lambda *rgba, depth: clear(1.0, 1.0, 1.0, 1.0, depth=depth)

    return OnWhite


@pytest.mark.parametrize("name", with_bundled("Fox.glb", "phoenix_bird.glb", "KayKit_Knight.glb"))
def test_composited_equals_a_direct_render_on_white(name, backend, monkeypatch):
    """>= 38 dB in a 2-px band around the silhouette; interpreting the same pixels as premultiplied fails."""
    asset, view = asset_shot(name, 128, frames=2, views=4)
    clip = render_clip(asset, view, backend=backend)
    if backend == "opengl":
        monkeypatch.setattr(opengl.renderer, "Targets", white_view(opengl.renderer.Targets))
    else:
        monkeypatch.setattr(cpu.renderer, "CLEAR", np.ones(4, np.float32))
    direct = render_clip(asset, view, backend=backend).frames
    assert direct[..., 3].min() >= 253  # opaque up to rounding
    for frames, truth in zip(clip.frames, direct[..., :3], strict=True):
        band = silhouette_band(frames[..., 3])
        partly = (frames[..., 3] > 0) & (frames[..., 3] < 255) & band
        assert partly.any()
        assert psnr(composite(frames, WHITE), truth, band) >= 38.0
        alpha = frames[..., 3:].astype(float) / 255
        premultiplied = np.clip(frames[..., :3] + 255 * (1 - alpha), 0, 255)
        assert psnr(premultiplied, truth, band) < 38.0


@pytest.mark.parametrize(
    "name",
    with_bundled(
        "phoenix_bird.glb", "KayKit_Knight.glb", "Fox.glb", "CesiumMilkTruck.glb", "Quaternius_robot.glb"
    ),
)
def test_skipped_surfaces_are_invisible(name, backend, monkeypatch):
    """Back faces of closed parts are not drawn; drawing them gives the same image."""
    asset, view = asset_shot(name, 128, frames=2, views=4)
    culled = render_clip(asset, view, backend=backend).frames
    call_closed(backend, monkeypatch, False)
    everything = render_clip(asset, view, backend=backend).frames
    assert differing(culled, everything) <= 1e-3


def test_treating_all_parts_as_closed_changes_the_image(backend, monkeypatch):
    """Control: the knight's cape is open."""
    asset, view = asset_shot("knight.glb", 128, frames=2, views=4)
    right = render_clip(asset, view, backend=backend).frames
    call_closed(backend, monkeypatch, True)
    assert differing(right, render_clip(asset, view, backend=backend).frames) > 1e-3


def box_with_a_lid(lid_opens: float) -> TinyGltf:
    """Return a double-sided closed cube whose top face has its own vertices and is lifted by a morph target."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32) / 2
    sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (0, 2, 6, 4), (1, 5, 7, 3)]
    quads = [*sides, (8, 9, 10, 11)]
    faces = np.array([f for a, b, c, d in quads for f in ((a, b, c), (a, c, d))])
    points = np.concatenate([corners, corners[[2, 3, 7, 6]]])
    lift = np.zeros_like(points)
    lift[8:, 1] = lid_opens
    tiny = TinyGltf()
    target = {"POSITION": tiny.accessor(lift)}
    mesh = tiny.mesh(
        points, faces, material=tiny.add("materials", **unlit(doubleSided=True)), targets=[target]
    )
    tiny.scene(tiny.node(mesh=mesh))
    tiny.animation((0, "weights", [0, 1], [0, 1]))
    return tiny


def test_a_box_is_closed_until_its_lid_opens():
    """Faces that only touch at rest do not bound a volume once they separate in a pose of the clip."""
    for lift, closed in ((0.0, True), (3.0, False)):
        asset = gltf.load(box_with_a_lid(lift).glb())
        assert np.all(closed_triangles(asset))  # at rest
        poses = [asset.positions(0, t) for t in (0.0, 0.5, 1.0)]
        assert np.all(np.concatenate(closed_triangles(asset, poses)) == closed)


def test_an_open_box_shows_its_inside(backend, monkeypatch):
    view = shot(0, 60, half_height=1.5, width=64, height=64, animation=0, times=(0.0, 1.0))
    frames = render(box_with_a_lid(3.0), view).frames
    call_closed(backend, monkeypatch, False)
    assert differing(frames, render(box_with_a_lid(3.0), view).frames) == 0


def test_inside_out_and_open_surfaces_are_not_closed():
    points, faces = sphere(8)
    one_turned = np.concatenate([faces[:9], faces[9:10, ::-1], faces[10:]])
    twice = np.concatenate([faces, faces])
    for triangles, closed in (
        (faces, True), (twice, True), (faces[:, ::-1], False), (faces[:-9], False), (one_turned, False),
    ):  # fmt: skip
        tiny = TinyGltf()
        tiny.scene(add_mesh(tiny, points, triangles, unlit()))
        assert np.all(np.concatenate(closed_triangles(gltf.load(tiny.glb()))) == closed)
    for scale in ([-1, 1, 1], [1, 1, 1]):  # a mirrored ball is closed and points outwards, too
        tiny = TinyGltf()
        tiny.scene(add_mesh(tiny, points, faces, unlit(), scale=scale))
        assert np.concatenate(closed_triangles(gltf.load(tiny.glb()))).all()


def call_closed(backend: str, monkeypatch, closed: bool) -> None:
    """Make the back end treat all triangles as closed, or all as open."""

    def judge(asset: gltf.Asset, *_: object) -> list[np.ndarray]:
        return [np.full(len(primitive.triangles), closed) for primitive in asset.primitives]

    monkeypatch.setattr(MODULES[backend].scene, "closed_triangles", judge)


def differing(a: np.ndarray, b: np.ndarray) -> float:
    """Return the fraction of pixels whose values differ by more than 2 of 255."""
    return float((np.abs(a.astype(int) - b).max(-1) > 2).mean())


def test_rendering_is_deterministic():
    tiny, view = two_layers(False), shot([0, 100, 200], 15, width=40, height=24)
    first = render(tiny, view, samples=4, depth=True)
    render(ball(lit((1, 0, 0))), shot(width=16, height=16))  # another clip in between
    again = render(tiny, view, samples=4, depth=True)
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.depth, again.depth)


def test_the_renderer_has_a_name(backend, monkeypatch):
    clip = render(square(), shot())
    assert clip.renderer == renderer(backend).name
    assert clip.renderer.startswith({"opengl": "opengl 2 (", "cpu": "cpu 1"}[backend])
    # A renderer lives as long as its process: its name is read from the table of versions each time.
    monkeypatch.setitem(PICTURE_VERSIONS, backend, "99")
    assert render(square(), shot()).renderer.startswith(f"{backend} 99")
    with pytest.raises(
        RenderError, match=r"unknown renderer .*'vulkan': expected one of opengl, pyrender, blender, cpu"
    ):
        renderer("vulkan")
