"""renderers.cameras, compared with projections computed by hand, one convention at a time."""

from __future__ import annotations

import numpy as np
import pytest

from renderers.cameras import (
    Cameras,
    intrinsics,
    mvvdm_camera_vectors,
    opengl_projection,
    orbit_cameras,
    orbit_rotations,
    to_opengl,
)

RIGHT_ANGLE = np.pi / 2


def camera(azimuth: float = 0.0, elevation: float = 0.0, distance: float = 2.0) -> Cameras:
    """Return one camera of 200 x 100 px with a vertical field of view of 90 degrees, i.e. a focal length of 50 px."""
    return orbit_cameras([azimuth], elevation, distance, fov_y=RIGHT_ANGLE, width=200, height=100)


def ring() -> Cameras:
    """Return views from all sides, not square, with an off-centre principal point and skew."""
    views = orbit_cameras(
        np.linspace(0, 6, 7), np.linspace(-1.4, 1.4, 7), 3.0, fov_y=0.7, width=320, height=200
    )
    K = views.K.copy()
    K[:, 0, 1] = 7.0
    K[:, 0, 2] += 11.0
    K[:, 1, 2] -= 5.0
    return Cameras(views.world_to_camera, K, 320, 200)


# --- golden projections ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("azimuth", "elevation", "point", "pixel", "depth"),
    [
        # In front, on +Z, 2 m away: +X is right, +Y is up; 50 px per metre at a depth of 1 m.
        (0, 0, (0, 0, 0), (100, 50), 2),
        (0, 0, (1, 0, 0), (125, 50), 2),
        (0, 0, (0, 1, 0), (100, 25), 2),
        (0, 0, (1, 1, 1), (150, 0), 1),
        # Azimuth increases towards +X: from +X, the front (+Z) is on the left.
        (RIGHT_ANGLE, 0, (0, 0, 1), (75, 50), 2),
        (RIGHT_ANGLE, 0, (1, 0, 0), (100, 50), 1),
        # From behind, +X is on the left.
        (np.pi, 0, (1, 0, 0), (75, 50), 2),
        # Elevation > 0 is above: from straight above, the front points down and +X to the right.
        (0, RIGHT_ANGLE, (0, 0, 1), (100, 75), 2),
        (0, RIGHT_ANGLE, (1, 0, 0), (125, 50), 2),
        (0, RIGHT_ANGLE, (0, 1, 0), (100, 50), 1),
        # From 30 degrees above, the ground in front of the object is low in the image and nearer:
        # up = (0, cos 30, -sin 30), so +Z is 0.5 below the centre and 2 - cos 30 away.
        (0, np.pi / 6, (0, 0, 1), (100, 50 + 50 * 0.5 / (2 - 0.8660254)), 2 - 0.8660254),
    ],
)
def test_golden_projections(azimuth, elevation, point, pixel, depth):
    pixels, depths = camera(azimuth, elevation).project(np.array(point, float))
    np.testing.assert_allclose(pixels[0], pixel, atol=1e-6)
    np.testing.assert_allclose(depths[0], depth, atol=1e-6)


def test_a_mirrored_azimuth_fails_the_golden_case():
    """Control: if azimuth increased towards -X, the front would be on the right from 90 degrees."""
    pixels, _ = camera(-RIGHT_ANGLE).project(np.array([0.0, 0, 1]))
    assert not np.allclose(pixels[0], (75, 50), atol=1)


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg", "position"),
    [
        (0, 0, (0, 0, 4)),
        (90, 0, (4, 0, 0)),
        (180, 0, (0, 0, -4)),
        (0, 90, (0, 4, 0)),
        (0, -30, (0, -2, 4 * 0.8660254)),
    ],
)
def test_orbit_positions(azimuth_deg, elevation_deg, position):
    cameras = camera(np.deg2rad(azimuth_deg), np.deg2rad(elevation_deg), 4.0)
    np.testing.assert_allclose(cameras.camera_to_world[0, :3, 3], position, atol=1e-6)


def test_orbit_cameras_are_upright_and_rigid():
    views = ring()
    rotations = views.world_to_camera[:, :3, :3]
    same = np.broadcast_to(np.eye(3), rotations.shape)
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), same, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
    right, down = views.camera_to_world[:, :3, 0], views.camera_to_world[:, :3, 1]
    np.testing.assert_allclose(right[:, 1], 0.0, atol=1e-12)  # the horizon is level
    assert (down[:, 1] < 0).all()
    np.testing.assert_allclose(rotations[2], orbit_rotations([2.0], np.linspace(-1.4, 1.4, 7)[2])[0])


def test_intrinsics_of_a_field_of_view():
    """At 90 degrees the focal length is half the image height."""
    K = intrinsics(RIGHT_ANGLE, 640, 480)
    np.testing.assert_allclose(K, [[240, 0, 320], [0, 240, 240], [0, 0, 1]])


def test_projection_keeps_the_shape_of_its_points():
    points = np.zeros((5, 4, 3))
    pixels, depth = ring().project(points)
    assert pixels.shape == (7, 5, 4, 2)
    assert depth.shape == (7, 5, 4)


def test_views_are_selected_by_index_list_and_slice():
    views = ring()
    for choice, expected in ((3, [3]), ([1, 5], [1, 5]), (slice(0, 7, 3), [0, 3, 6])):
        chosen = views[choice]
        np.testing.assert_array_equal(chosen.K, views.K[expected])
        np.testing.assert_array_equal(chosen.world_to_camera, views.world_to_camera[expected])
        assert (chosen.width, chosen.height) == (320, 200)


def test_matrices_of_wrong_shape_are_rejected():
    with pytest.raises(ValueError, match=r"same V.*\(2, 4, 4\) and \(3, 3, 3\)"):
        Cameras(np.zeros((2, 4, 4)), np.zeros((3, 3, 3)), 8, 8)


# --- other conventions ----------------------------------------------------------------------------


def test_opengl_camera_is_y_up_and_looks_along_minus_z():
    matrix = to_opengl(camera().world_to_camera[0])
    np.testing.assert_allclose(matrix @ [1, 2, 0.5, 1], [1, 2, -1.5, 1], atol=1e-12)


def test_opengl_round_trip():
    views = ring().world_to_camera
    np.testing.assert_array_equal(to_opengl(to_opengl(views)), views)
    assert not np.allclose(to_opengl(views), views)


def test_opengl_projection_and_K_put_a_point_on_the_same_pixel():
    views, near, far = ring(), 0.5, 9.0
    points = np.random.default_rng(0).uniform(-0.8, 0.8, (100, 3))
    pixels, depth = views.project(points)
    clip = opengl_projection(views, near, far) @ to_opengl(views.world_to_camera)
    homogeneous = np.einsum("vij,nj->vni", clip, np.c_[points, np.ones(100)])
    device = homogeneous[..., :3] / homogeneous[..., 3:]
    # OpenGL's window: x right, y up, -1..1 over the image.
    window = (device[..., :2] * [1, -1] + 1) / 2 * [320, 200]
    np.testing.assert_allclose(window, pixels, atol=1e-9)
    np.testing.assert_allclose(homogeneous[..., 3], depth, atol=1e-9)
    expected = (far + near - 2 * far * near / depth) / (far - near)
    np.testing.assert_allclose(device[..., 2], expected, atol=1e-9)


def test_opengl_depth_range_ends_at_near_and_far():
    projection = opengl_projection(camera(), 0.5, 9.0)[0]
    for distance, value in ((0.5, -1.0), (9.0, 1.0)):
        clip = projection @ [0, 0, -distance, 1]
        assert clip[2] / clip[3] == pytest.approx(value)


@pytest.mark.parametrize("azimuth_deg", [0, 90, 180, 270, 17])
@pytest.mark.parametrize("elevation_deg", [15, 0, 29])
def test_mvvdm_vector_matches_the_published_formula(azimuth_deg, elevation_deg):
    """camera_to_world in a z-up world: columns right, up, -forward, position on the unit sphere (MVDream)."""
    a, e = np.deg2rad([azimuth_deg, elevation_deg])
    position = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    forward = -position
    right = np.cross(forward, [0, 0, 1])
    right /= np.linalg.norm(right)
    expected = np.eye(4)
    expected[:3] = np.stack([right, np.cross(right, forward), -forward, position], 1)
    for distance in (3.0, 0.7):
        vector = mvvdm_camera_vectors(camera(a, e, distance))
        assert vector.shape == (1, 16)
        np.testing.assert_allclose(vector[0].reshape(4, 4), expected, atol=1e-7)


def test_mvvdm_vector_by_hand():
    """Elevation 15 degrees, azimuth 0: on +x, slightly up; orthonormal, right-handed."""
    matrix = mvvdm_camera_vectors(camera(0.0, np.deg2rad(15)))[0].reshape(4, 4)
    np.testing.assert_allclose(matrix[:3, 3], [0.9659, 0, 0.2588], atol=1e-4)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1.0)
    np.testing.assert_allclose(matrix[:3, 0], [0, 1, 0], atol=1e-12)  # looking along -x, +y is right
