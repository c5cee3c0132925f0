"""Depth, normals, flow and tracks, compared with closed forms, with rays cast by Embree, and with each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import scenes
from scenes import REPEAT, SQUARE, SQUARE_FACES, add_mesh, add_square, add_texture, render, shot, unlit
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation, Slerp
from tiny_gltf import TinyGltf

from factory.clips.plan import ClipRecipe, plan_asset
from factory.sources.creatures import build
from renderers import gltf
from renderers.meshes import RenderSettings, Shot, render_clip
from renderers.meshes.clip import RenderedClip

EVERYTHING = {"depth": True, "normals": True, "flow": True, "tracks": 500}
TIMES = (0.0, 0.25, 0.5, 0.75, 1.0)
# Accelerating rotation about an oblique axis: every frame moves differently.
TURNS = Rotation.from_rotvec(np.outer([0.0, 4.0, 12.0, 26.0, 45.0], [0.6, 0.8, 0.0]), degrees=True)


@pytest.fixture(scope="module", params=("opengl", "cpu"), autouse=True)
def backend(request) -> Iterator[str]:
    """Name of the back end, which is also the one of `render`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "BACKEND", request.param)
        yield request.param


# --- a rotating cube, in closed form ------------------------------------------------------------


@pytest.fixture(scope="module")
def cube(backend) -> tuple[RenderedClip, Shot]:
    """Render a cube of 1 m that rotates in front of two cameras."""
    tiny = TinyGltf()
    corners, faces = [], []
    for axis in range(3):
        for side in (-1, 1):
            u, v = (
                np.roll(np.eye(3), axis + 1, axis=0)[:2]
                if side > 0
                else np.roll(np.eye(3), axis + 1, 0)[1::-1]
            )
            faces += [[len(corners) + i for i in triangle] for triangle in ((0, 1, 2), (0, 2, 3))]
            centre = side * np.cross(u, v) * side
            corners += [0.5 * (centre + a * u + b * v) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    node = add_mesh(tiny, corners, faces, unlit())
    tiny.scene(node)
    tiny.animation((node, "rotation", TIMES, TURNS.as_quat()))
    view = shot([20, 200], 25, width=96, height=64, half_height=0.9, animation=0, times=TIMES)
    return render(tiny, view, **EVERYTHING), view


def cube_hits(view: Shot, v: int, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Intersect pixel-centre rays with the cube (slabs): hit [H, W], points and normals [H, W, 3], rim [H, W]."""
    cameras, turn = view.cameras, TURNS[t]
    y, x = np.mgrid[: cameras.height, : cameras.width] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(cameras.K[v]).T
    rays = rays @ cameras.camera_to_world[v, :3, :3].T @ turn.as_matrix()  # to the axes of the cube
    eye = turn.inv().apply(cameras.camera_to_world[v, :3, 3])
    low, high = np.sort([(-0.5 - eye) / rays, (0.5 - eye) / rays], axis=0)
    near, far = low.max(-1), high.min(-1)
    axis = low.argmax(-1)
    normals = np.eye(3)[axis] * -np.sign(np.take_along_axis(rays, axis[..., None], -1))
    rim = np.abs(far - near) < 0.02  # rays that graze an edge: hit or miss depends on rounding
    return (
        near < far,
        turn.apply((eye + rays * near[..., None]).reshape(-1, 3)).reshape(*x.shape, 3),
        turn.apply(normals.reshape(-1, 3)).reshape(*x.shape, 3),
        rim,
    )


def test_depth_normals_and_flow_of_a_rotating_cube(cube):
    clip, view = cube
    for v in range(2):
        for t in range(len(TIMES)):
            hit, points, normals, rim = cube_hits(view, v, t)
            assert ((clip.depth[v, t] > 0) == hit)[~rim].all()
            inside = hit & ~rim
            pixels, depth = view.cameras.project(points)
            np.testing.assert_allclose(clip.depth[v, t][inside], depth[v][inside], atol=1e-5)
            # On an edge between two faces, rounding decides which one is hit.
            agree = (clip.normals[v, t][inside] * normals[inside]).sum(-1) > 0.99999
            assert agree.mean() > 0.99
            if t + 1 < len(TIMES):
                step = TURNS[t + 1] * TURNS[t].inv()
                moved, _ = view.cameras.project(step.apply(points[inside]))
                expected = moved[v] - pixels[v][inside]
                np.testing.assert_allclose(clip.flow[v, t][inside], expected, atol=1e-3)
                assert np.isnan(clip.flow[v, t][~hit & ~rim]).all()
                if t:  # control: the flow of the previous frame
                    assert np.nanmax(np.abs(clip.flow[v, t - 1][inside] - expected)) > 0.5


def test_tracks_of_a_rotating_cube(cube):
    """A point on a convex body is hidden exactly if its face is turned away."""
    clip, view = cube
    points, eyes = clip.tracks.points.astype(np.float64), view.cameras.camera_to_world[:, :3, 3]
    assert points.shape == (len(TIMES), 500, 3)
    own = TURNS[0].inv().apply(points[0])
    np.testing.assert_allclose(np.abs(own).max(-1), 0.5, atol=1e-6)
    outward = np.eye(3)[np.abs(own).argmax(-1)] * np.sign(own)
    for t in range(len(TIMES)):
        np.testing.assert_allclose(TURNS[t].apply(own), points[t], atol=1e-6)
        faces = np.einsum("pi,vpi->vp", TURNS[t].apply(outward), eyes[:, None] - points[t]) > 0
        assert (clip.tracks.visible[:, t] == faces).mean() > 0.97
    assert clip.tracks.visible[:, 0].any(axis=0).all()
    pixels, depth = view.cameras.project(points)
    np.testing.assert_array_equal(clip.tracks.pixels, pixels)
    np.testing.assert_array_equal(clip.tracks.depth, depth)
    assert (clip.tracks.visible[:, 0] == clip.tracks.visible[:, -1]).mean() < 0.95  # control


def test_points_match_the_image_between_keys():
    """Between two keys the points are where spherical interpolation puts them."""
    tiny = TinyGltf()
    node = add_square(tiny, unlit(doubleSided=True))
    tiny.scene(node)
    tiny.animation((node, "rotation", TIMES, TURNS.as_quat()))
    clip = render(tiny, shot(animation=0, times=(0.0, 0.6)), **EVERYTHING)
    turn = Slerp(TIMES, TURNS)(0.6)
    np.testing.assert_allclose(clip.tracks.points[1], turn.apply(clip.tracks.points[0]), atol=1e-5)


# --- which surface is visible, and which of its points are tracked -----------------------------------------


def test_points_are_distributed_by_area_over_the_visible_surface():
    """A small and a large square side by side; a third one behind the large one is never visible."""
    tiny = TinyGltf()
    small = add_square(tiny, unlit(), translation=[-0.7, 0, 0], scale=[0.2, 0.2, 1])
    large = add_square(tiny, unlit(), translation=[0.3, 0, 0], scale=[0.6, 0.6, 1])
    hidden = add_square(tiny, unlit(), translation=[0.3, 0, -0.3], scale=[0.5, 0.5, 1])
    tiny.scene(small, large, hidden)
    settings = {"tracks": 4000}
    clip = render(tiny, shot(), **settings)
    points = clip.tracks.points[0]
    assert len(points) == 4000 and (points[:, 2] == 0).all()
    on_large = points[:, 0] > -0.4
    assert abs(on_large.mean() - 0.9) < 0.02  # 0.36 of 0.40
    assert np.abs(points[on_large].mean(0) - [0.3, 0, 0]).max() < 0.02
    assert np.array_equal(render(tiny, shot(), **settings).tracks.points, clip.tracks.points)
    assert not np.array_equal(
        render(tiny, shot(), track_seed=1, **settings).tracks.points, clip.tracks.points
    )


@pytest.mark.parametrize(("alpha", "first"), [(0.3, False), (0.7, True)])
def test_the_surface_is_the_first_that_is_half_opaque(alpha, first):
    tiny = TinyGltf()
    pane = add_square(tiny, unlit(1, 1, 1, alpha, alphaMode="BLEND"), translation=[0, 0, 0.5])
    tiny.scene(pane, add_square(tiny, unlit()))
    clip = render(tiny, shot(times=(0.0, 0.0)), **EVERYTHING)
    np.testing.assert_allclose(clip.depth[0, 0, 8:-8, 8:-8], 3.5 if first else 4.0, rtol=1e-5)
    np.testing.assert_allclose(clip.tracks.points[..., 2], 0.5 if first else 0.0, atol=1e-6)
    assert (clip.flow == 0).all()


def test_transparent_parts_are_not_tracked():
    """The left half of the square's texture is transparent."""
    pixels = np.full((4, 4, 4), 255, np.uint8)
    pixels[:, :2, 3] = 0
    tiny = TinyGltf()
    material = unlit(alphaMode="MASK")
    material["pbrMetallicRoughness"]["baseColorTexture"] = {
        "index": add_texture(tiny, pixels, s=REPEAT, t=REPEAT)
    }
    tiny.scene(add_square(tiny, material))
    clip = render(tiny, shot(), tracks=300, depth=True)
    assert len(clip.tracks.points[0]) == 300 and (clip.tracks.points[0, :, 0] >= 0).all()
    assert (clip.depth[0, 0, :, :16] == 0).all() and (clip.depth[0, 0, :, 16:] > 0).all()


def test_a_point_is_hidden_while_an_object_passes_in_front():
    tiny = TinyGltf()
    screen = add_square(tiny, unlit(), scale=[0.25, 2, 1], translation=[-3, 0, 1])
    tiny.scene(add_square(tiny, unlit()), screen)
    tiny.animation((screen, "translation", [0.0, 1.0], [[-3, 0, 1], [0, 0, 1]]))
    clip = render(tiny, shot(animation=0, times=(0.0, 1.0), width=64, height=64), tracks=1000)
    assert clip.tracks.visible[0, 0].all()
    x = clip.tracks.points[
        1, :, 0
    ]  # the screen's shadow: its edges at 0.25 m are seen at 0.25 * 4 / 3 on the wall
    sure = np.abs(np.abs(x) - 1 / 3) > 1.5 / 32
    assert (clip.tracks.visible[0, 1] == (np.abs(x) > 1 / 3))[sure].all()


def test_an_invisible_surface_has_no_points():
    tiny = TinyGltf()
    node = add_square(tiny, unlit())
    tiny.scene(node)
    tiny.animation((node, "scale", [0.0, 1.0], [[0, 0, 0], [1, 1, 1]]))
    clip = render(tiny, shot(animation=0, times=(0.0, 1.0)), **EVERYTHING)
    assert clip.tracks.points.shape == (2, 0, 3) and clip.tracks.visible.shape == (1, 2, 0)
    assert np.isnan(clip.flow).all() and not clip.depth[0, 0].any() and clip.depth[0, 1].all()


def test_points_that_move_behind_the_camera_have_no_flow():
    tiny = TinyGltf()
    node = add_mesh(tiny, SQUARE, SQUARE_FACES, unlit())
    tiny.scene(node)
    tiny.animation((node, "translation", [0.0, 1.0], [[0, 0, 0], [0, 0, 9]]))
    clip = render(tiny, shot(animation=0, times=(0.0, 1.0)), flow=True, depth=True)
    assert clip.depth[0, 0].all() and np.isnan(clip.flow).all()


def test_default_settings_keep_their_stored_form():
    """Keys and rows of existing datasets depend on them."""
    assert RenderSettings().hash() == "4c418bbfae8bf243"
    assert RenderSettings().to_dict() == {"samples": 4, "depth": False, "normals": False}
    settings = RenderSettings(flow=True, tracks=64, track_seed=3)
    assert settings.hash() != RenderSettings().hash() and RenderSettings(**settings.to_dict()) == settings
    with pytest.raises(ValueError, match="tracks"):
        RenderSettings(tracks=-1)


# --- a creature -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def creature(backend) -> tuple[gltf.Asset, Shot, RenderedClip]:
    """Render a moving kangaroo, 3 views of 6 frames."""
    asset = gltf.load(build("kangaroo", 1))
    recipe = ClipRecipe(resolution=128, num_frames=6, fps=12, views=3)
    view = plan_asset(asset, "test", recipe)[0][0].shot(recipe)
    return asset, view, render_clip(asset, view, RenderSettings(samples=1, **EVERYTHING), backend=backend)


def flow_error(clip: RenderedClip, flow: np.ndarray) -> np.ndarray:
    """Return the distance in pixels between the tracked motion of visible points and the flow at their pixels.

    Points near silhouettes are excluded: the four pixels around them show another surface, or several.
    """
    errors = []
    for v in range(len(clip.depth)):
        for t in range(len(flow[v])):
            seen = clip.tracks.visible[v, t]
            here, there = clip.tracks.pixels[v, t][seen], clip.tracks.pixels[v, t + 1][seen]
            corner = np.floor(here - 0.5).astype(int)
            x, y = (corner[:, i, None] + np.array(o) for i, o in ((0, (0, 1, 0, 1)), (1, (0, 0, 1, 1))))
            inside = ((x >= 0) & (x < clip.depth.shape[3]) & (y >= 0) & (y < clip.depth.shape[2])).all(1)
            x, y = x.clip(0, clip.depth.shape[3] - 1), y.clip(0, clip.depth.shape[2] - 1)
            depth, normals = clip.depth[v, t, y, x], clip.normals[v, t, y, x]
            smooth = np.einsum("pci,pdi->pcd", normals, normals).min((1, 2)) > 0.8
            same = inside & (depth > 0).all(1) & smooth & (np.ptp(depth, axis=1) < 0.04)
            same &= np.abs(depth.mean(1) - clip.tracks.depth[v, t][seen]) < 0.01
            read = [map_coordinates(flow[v, t, ..., i], (here - 0.5)[same].T[::-1], order=1) for i in (0, 1)]
            errors.append(np.linalg.norm(np.stack(read, -1) - (there - here)[same], axis=-1))
    return np.concatenate(errors)


def test_projected_tracks_match_the_flow(creature):
    _, _, clip = creature
    errors = flow_error(clip, clip.flow)
    print(
        f"{len(errors)} points, 99.9 %: {np.percentile(errors, 99.9):.4f} px, largest {errors.max():.4f} px"
    )
    assert len(errors) > 1500 and np.percentile(errors, 99.9) < 0.1
    assert np.percentile(errors, 99) < 0.05
    late = np.roll(clip.flow, 1, axis=1)  # control: the flow of the previous frame
    assert np.nanmedian(flow_error(clip, late)) > 0.2


def rays_at(view: Shot, v: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the camera centre, and rays [n, 3] of depth 1 through pixels [n, 2]."""
    camera_to_world = view.cameras.camera_to_world[v]
    rays = np.concatenate([pixels, np.ones((len(pixels), 1))], 1) @ np.linalg.inv(view.cameras.K[v]).T
    return camera_to_world[:3, 3], rays @ camera_to_world[:3, :3].T


def cast(asset: gltf.Asset, view: Shot, t: int, eye: np.ndarray, rays: np.ndarray) -> np.ndarray:
    """Return distances along rays [n, 3], in units of their length, to the surface of frame t; inf for misses."""
    trimesh = pytest.importorskip("trimesh")
    pytest.importorskip("embreex", reason="casts the rays")
    points = asset.pose(view.animation, float(view.timestamps[t])).positions.astype(np.float64)
    world = points @ view.asset_to_world[:3, :3].T + view.asset_to_world[:3, 3]
    mesh = trimesh.Trimesh(
        world, np.concatenate([part.triangles for part in asset.primitives]), process=False
    )
    where, index, _ = mesh.ray.intersects_location(
        np.broadcast_to(eye, rays.shape), rays, multiple_hits=False
    )
    distance = np.full(len(rays), np.inf)
    distance[index] = np.linalg.norm(where - eye, axis=1) / np.linalg.norm(rays[index], axis=1)
    return distance


def test_depth_of_a_creature_matches_ray_casting(creature):
    asset, view, clip = creature
    y, x = np.mgrid[:128, :128] + 0.5
    pixels = np.stack([x.ravel(), y.ravel()], 1)
    for v, t in ((0, 0), (1, 3), (2, 5)):
        expected = cast(asset, view, t, *rays_at(view, v, pixels)).reshape(128, 128)
        ours = clip.depth[v, t]
        assert ((ours > 0) == np.isfinite(expected)).mean() > 0.9995
        both = (ours > 0) & np.isfinite(expected)
        error = np.abs(ours[both] - expected[both])
        print(f"view {v}, frame {t}: 99.5 % within {np.percentile(error, 99.5):.1e} m of {both.sum()} pixels")
        assert np.percentile(error, 99.5) < 1e-4
        late = np.abs(clip.depth[v, t - 1][both] - expected[both])  # control: another frame
        assert np.percentile(late, 99.5) > 0.01


def test_visibility_of_a_creature_matches_ray_casting(creature):
    """Few points differ: those near silhouettes, where the pixel centre may show another surface."""
    asset, view, clip = creature
    agree, turned = [], []
    for v in range(3):
        for t in (0, 2, 5):
            pixels, depth = clip.tracks.pixels[v, t], clip.tracks.depth[v, t]
            truth = cast(asset, view, t, *rays_at(view, v, pixels)) > depth - 2e-3
            agree.append((truth == clip.tracks.visible[v, t]).mean())
            turned.append((truth == clip.tracks.visible[(v + 1) % 3, t]).mean())  # control
    print(f"visibility as by rays: {np.mean(agree):.4f}, least {np.min(agree):.4f}")
    assert np.mean(agree) > 0.98 and np.min(agree) > 0.965
    assert np.mean(turned) < 0.8
