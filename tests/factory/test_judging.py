"""Judges of generated videos: each measure on arrays with known values, and known faults in rendered motions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from factory.generation.judging import (
    Thresholds,
    decide,
    faults,
    foreground_masks,
    judge_video,
    judge_views,
    measure_video,
    measure_views,
)
from factory.generation.judging.camera import ANGLES
from factory.generation.judging.flow import CommonMotion, dense_flow, opencv
from factory.generation.judging.measures import MEASURES, averaged_score, score_of_views
from factory.generation.judging.video import JudgedVideo
from factory.sources import creatures
from renderers.cameras import Cameras, orbit_cameras
from renderers.gltf import load
from renderers.meshes import RenderSettings, Shot, renderer

T, SIDE, GREY = 9, 64, 127


def texture(side: int = 3 * SIDE, seed: int = 0) -> np.ndarray:
    """Smooth noise, uint8 [side, side, 3]."""
    noise = np.random.default_rng(seed).normal(0, 1, (side, side, 3)).astype(np.float32)
    noise = opencv().GaussianBlur(noise, (0, 0), 2.0)
    return np.clip(127 + 50 * noise / noise.std(), 0, 255).astype(np.uint8)


def scene(
    matrices: np.ndarray,
    radius: float = 14.0,
    side: int = SIDE,
    background: np.ndarray | None = None,
    aspect: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """A textured disc or ellipse, moved by affine maps [T, 2, 3] about the frame's centre: frames and masks."""
    cv2 = opencv()
    surface = texture(3 * side)
    frames, masks = [], []
    c = (side - 1) / 2
    y, x = np.mgrid[:side, :side] - c
    for t, matrix in enumerate(matrices):
        A, b = matrix[:, :2], matrix[:, 2]
        full = np.concatenate([A, (b + c - A @ np.full(2, 1.5 * side))[:, None]], 1)
        image = cv2.warpAffine(surface, full, (side, side), flags=cv2.INTER_LINEAR)
        inverse = np.linalg.inv(A)
        u, v = np.einsum("ij,jhw->ihw", inverse, np.stack([x - b[0], y - b[1]]))
        mask = (u / aspect) ** 2 + v**2 <= radius**2
        behind = np.full_like(image, GREY) if background is None else background[t]
        frames.append(np.where(mask[..., None], image, behind))
        masks.append(mask)
    return np.stack(frames), np.stack(masks)


def moving(dx: float = 0.0, dy: float = 0.0, frames: int = T, **options) -> tuple[np.ndarray, np.ndarray]:
    """The disc moves by (dx, dy) pixels per frame, so that it passes the centre in the middle."""
    matrices = np.repeat(np.eye(3)[None, :2], frames, 0)
    matrices[:, :, 2] = (np.arange(frames)[:, None] - frames // 2) * np.array([dx, dy])
    return scene(matrices, **options)


def size(masks: np.ndarray) -> float:
    return float(np.sqrt(np.median(masks.sum((1, 2)))))


# --- motion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [(1.0, 0.0), (0.0, -2.0), (3.0, 1.0)])
def test_a_translation_has_its_flow(step):
    frames, masks = moving(*step)
    scores = measure_video(frames, masks)
    length = np.hypot(*step)
    assert scores["motion"] == pytest.approx(length * (T - 1) / size(masks), rel=0.05)
    assert scores["pan"] == pytest.approx(length * (T - 1) / SIDE, rel=0.15)
    assert scores["jump"] == pytest.approx(0, abs=0.01)
    assert scores["zoom"] < 0.01 and scores["roll"] < 0.01
    assert scores["cut"] < 1.2 and scores["mirrored"] < 1.2


def test_motion_does_not_depend_on_the_number_of_frames():
    """The same path in 9 and in 49 frames, of which 15 steps are followed."""
    short, long = (measure_video(*moving(24 / (n - 1), frames=n))["motion"] for n in (9, 49))
    assert long == pytest.approx(short, rel=0.1)


def test_a_frozen_video_with_noise_does_not_move():
    frames, masks = moving()
    noisy = np.clip(frames + np.random.default_rng(0).normal(0, 1.5, frames.shape), 0, 255).astype(np.uint8)
    assert measure_video(frames, masks)["motion"] < 1e-3
    assert measure_video(noisy, masks)["motion"] < 0.5 * Thresholds().min_motion


def test_flow_of_a_far_displacement_needs_the_masks():
    frames, _ = moving(24.0, frames=2, radius=9)
    before, after = frames.mean(-1).astype(np.uint8)
    centre = (SIDE // 2, SIDE // 2 - 24)
    assert dense_flow(before, after, (24, 0))[centre] == pytest.approx((24, 0), abs=0.3)
    assert measure_video(*moving(24.0, frames=2, radius=9))["motion"] == pytest.approx(
        24 / size(moving(24.0, frames=2, radius=9)[1]), rel=0.05
    )


@pytest.mark.parametrize("end", [T, 5])
def test_a_jump_has_its_length(end):
    """For good and for a single frame, on top of a steady motion."""
    matrices = np.repeat(np.eye(3)[None, :2], T, 0)
    matrices[:, 0, 2] = np.arange(T) - 4.0
    matrices[4:end, 1, 2] += 8.0
    frames, masks = scene(matrices)
    assert measure_video(frames, masks)["jump"] == pytest.approx(8 / size(masks), rel=0.15)


def test_a_hop_is_no_jump():
    """Free fall at a low frame rate: each step differs from both of its neighbours, but several do."""
    matrices = np.repeat(np.eye(3)[None, :2], T, 0)
    matrices[2:7, 1, 2] = -4 * (4 - (np.arange(-2, 3)) ** 2)
    assert measure_video(*scene(matrices))["jump"] < 0.05


def hopping(speeds: tuple[float, ...], radius: float = 14.0) -> tuple[np.ndarray, np.ndarray]:
    """A disc that moves up and down with these speeds, in its sizes per frame, downwards positive."""
    matrices = np.repeat(np.eye(3)[None, :2], len(speeds) + 1, 0)
    matrices[1:, 1, 2] = np.cumsum(speeds) * size(moving(0.0)[1]) * radius / 14
    return scene(matrices, radius=radius)


# Two hops of a rendered kangaroo at 8 frames per second: the landing takes one step.
HOPS = (0.06, 0.02, -0.24, -0.07, 0.08, 0.32, -0.02, -0.06, 0.07, 0.01, -0.24, -0.11, 0.07, 0.36, -0.02)


def test_hops_of_a_creature_at_a_low_frame_rate_are_no_jump():
    """What falls continues its acceleration; a displacement as large as the landing alone does not."""
    assert measure_video(*hopping(HOPS, radius=8))["jump"] < Thresholds().max_jump
    jumps = tuple(speed if abs(speed) > 0.3 else 0.02 for speed in HOPS)
    assert measure_video(*hopping(jumps, radius=8))["jump"] > 4 * Thresholds().max_jump


def test_the_tolerance_of_a_jump_grows_with_the_motion():
    """The same displacement on top of a motion that trembles by half as much, and of a steady one."""
    trembling = np.tile([0.1, -0.1], 7)
    steady = np.zeros(14)
    steady[7] = trembling[7] = 0.35
    rough, smooth = (
        measure_video(*hopping(tuple(speeds), radius=8))["jump"] for speeds in (trembling, steady)
    )
    assert smooth > 0.3 and rough < smooth - 0.15
    # Two steps up and two down: around the displacement no step is sudden, but the speed changes in half of them.
    swaying = np.resize([0.1, 0.1, -0.1, -0.1], 14)
    swaying[7] = 0.35
    assert measure_video(*hopping(tuple(swaying), radius=8))["jump"] < smooth - 0.25


def test_a_small_gesture_moves_and_noise_does_not():
    """A part of the object moves by an eighth of its length, in a video of any length."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    bump = 3 * np.exp(-((x - 32) ** 2 + (y - 22) ** 2) / (2 * 5.0**2))
    for frames_count in (9, 49):
        frames, masks = moving(0.0, frames=frames_count)
        noise = np.random.default_rng(0).normal(0, 1.5, frames.shape)
        noisy = np.clip(frames + noise, 0, 255).astype(np.uint8)
        assert measure_video(noisy, masks)["motion"] < Thresholds().min_motion
        raised = noisy.copy()
        later = frames_count // 2
        raised[later:] = [
            opencv().remap(frame, x, y + bump, opencv().INTER_LINEAR) for frame in noisy[later:]
        ]
        assert measure_video(raised, masks)["motion"] > 2 * Thresholds().min_motion


def test_a_cut_and_a_mirror_image_are_seen():
    frames, masks = moving(1.0)
    other, other_masks = moving(1.0, radius=18)
    other = np.where(other_masks[..., None], 255 - other, other)
    cut = np.concatenate([frames[:4], other[4:]]), np.concatenate([masks[:4], other_masks[4:]])
    flipped = [np.concatenate([each[:4], each[4:, :, ::-1]]) for each in (frames, masks)]
    clean, cut, flipped = (measure_video(*each) for each in ((frames, masks), cut, flipped))
    assert clean["cut"] < 1.2 < 3 < cut["cut"]
    assert clean["mirrored"] < 1 < 3 < flipped["mirrored"]
    assert cut["mirrored"] < 0.7 * flipped["mirrored"]


# --- camera ----------------------------------------------------------------------------------------------


def test_zoom_and_roll_have_their_amounts():
    matrices = np.repeat(np.eye(3)[None, :2], T, 0)
    scales = 1.4 ** np.linspace(0, 1, T)
    matrices[:, :, :2] *= scales[:, None, None]
    zoom = measure_video(*scene(matrices))
    assert zoom["zoom"] == pytest.approx(np.log(1.4), rel=0.2)  # flow is smoothed at the edge
    angles = np.linspace(0, 0.7, T)
    matrices[:, :, :2] = np.array(
        [[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]]
    ).transpose(2, 0, 1)
    # An ellipse: the edge of a disc does not turn.
    roll = measure_video(*scene(matrices, radius=11, aspect=2.0))
    frames, masks = scene(matrices, radius=11, aspect=2.0)
    common = JudgedVideo.of(frames, masks, None).object_motion
    assert abs(common.mean(common.angle)) == pytest.approx(0.7, rel=0.25)
    turns = np.sort(np.abs(common.turns) / common.durations)[1:-1].mean() * common.durations.sum()
    assert turns == pytest.approx(0.7, rel=0.35)  # flow is smoothed at the edges of the halves, too
    moving_share = (1 - common.still.max()) ** 0.25
    assert roll["roll"] == pytest.approx(np.sqrt(abs(common.mean(common.angle)) * turns) * moving_share)
    assert 0 < common.still.max() < 0.25  # around the centre
    assert roll["zoom"] < 0.02 and zoom["roll"] < 0.02


def rotations(angles: np.ndarray) -> np.ndarray:
    matrices = np.zeros((len(angles), 2, 3))
    cos, sin = np.cos(angles), np.sin(angles)
    matrices[:, :, :2] = np.array([[cos, -sin], [sin, cos]]).transpose(2, 0, 1)
    return matrices


@pytest.mark.parametrize("side", [SIDE, 3 * SIDE])
@pytest.mark.parametrize("degrees", [-40, 25])
def test_the_last_frame_has_its_rotation_against_the_first(side, degrees):
    angles = np.radians(np.linspace(0, degrees, T))
    scores = measure_video(*scene(rotations(angles), 0.2 * side, side, aspect=1.5))
    assert 0.8 * abs(angles[-1]) < scores["final_roll"] <= abs(angles[-1])
    assert scores["final_roll"] > Thresholds().max_final_roll
    assert scores["final_pan"] < 0.01


def test_an_object_that_ends_as_it_began_was_not_rolled_by_a_camera():
    """It tilts steadily by 60° in four of five steps, and back in the last one."""
    tilted = np.radians(np.concatenate([np.linspace(0, 60, 13), [40, 20, 0]]))
    further = np.radians(np.linspace(0, 70, 16))
    returns, rolls = (measure_video(*scene(rotations(each), aspect=1.5)) for each in (tilted, further))
    assert returns["roll"] < Thresholds().max_roll / 2 and returns["final_roll"] < 0.02
    assert rolls["roll"] > 2 * Thresholds().max_roll and rolls["final_roll"] > 0.8


def test_an_object_that_turns_round_is_not_rotated_in_the_end():
    """Another side of it is seen, which some angle fits best by chance, but not well."""
    frames, masks = moving(0.0)
    frames, masks = (np.concatenate([each[:4], each[4:, ::-1]]) for each in (frames, masks))
    ending = JudgedVideo.of(frames, masks, None).ending
    differences = [ending.turned(angle) for angle in ANGLES]
    best = abs(ANGLES[np.argmin(differences)])
    assert best > 2 * Thresholds().max_final_roll
    assert measure_video(frames, masks)["final_roll"] < 0.3 * best


@pytest.mark.parametrize("side", [SIDE, 3 * SIDE])
def test_an_object_that_walks_past_is_seen_from_another_side_in_the_end(side):
    """It becomes larger and narrower on its way, which a panning camera does not do."""
    panned = np.repeat(np.eye(3)[None, :2], 16, 0)
    panned[:, 0, 2] = np.linspace(-0.13, 0.13, 16) * side
    walked = panned.copy()
    walked[:, 0, 0], walked[:, 1, 1] = np.linspace(1, 0.9, 16), np.linspace(1, 1.3, 16)
    pan, walk = (measure_video(*scene(each, 0.2 * side, side)) for each in (panned, walked))
    assert 0.2 < pan["final_pan"] <= 0.26
    assert walk["final_pan"] < Thresholds().max_final_pan < pan["final_pan"]


def test_a_step_that_follows_no_common_motion_counts_less():
    """The mean rate of 0.1 and 0.3 per frame, in steps of 2 and 1 frames with shares 0.9 and 0.1."""
    zeros = np.zeros(2)
    common = CommonMotion(
        np.zeros((2, 2)),
        zeros,
        zeros,
        np.array([0.9, 0.1]),
        np.array([2.0, 1.0]),
        zeros,
        np.zeros((2, 2)),
        zeros,
    )
    mean = common.mean(np.array([0.2, 0.3]))
    assert mean == pytest.approx(3 * (0.9 * 0.2 + 0.1 * 0.3) / (0.9 * 2 + 0.1 * 1))
    assert common.mean(np.array([[0.2, 0.0], [0.1, 0.0]])) == pytest.approx([0.3, 0.0])


def test_a_gesture_is_no_pan():
    """All of the object moves in two of five steps: the middle three of the steps' speeds are slow."""
    matrices = np.repeat(np.eye(3)[None, :2], 16, 0)
    matrices[:, 0, 2] = np.clip(np.arange(16) - 6.0, 0, 3) * 4
    gesture, steady = measure_video(*scene(matrices)), measure_video(*moving(0.8, frames=16))
    assert gesture["pan"] < 0.03 < 0.15 < steady["pan"]


def test_an_object_that_darts_while_it_drifts_counts_as_drifting():
    """The fastest of five steps is left out; nothing stands still, so that no other factor hides it."""
    speeds = np.full(16, 0.3)  # pixels per frame
    speeds[0], speeds[7:10] = 0.0, 4.0
    matrices = np.repeat(np.eye(3)[None, :2], 16, 0)
    matrices[:, 0, 2] = np.cumsum(speeds) - 12
    video = scene(matrices)
    assert JudgedVideo.of(*video, None).object_motion.still.max() == 0
    drift, path = (measure_video(*moving(speed, frames=16))["pan"] for speed in (0.3, speeds.sum() / 15))
    assert path > 3 * drift
    assert measure_video(*video)["pan"] == pytest.approx(drift, rel=0.1)


def test_what_stands_still_shows_that_the_camera_does():
    """The upper part of an object leans over a base that stands, steadily; a camera moves the base, too."""
    frames, masks = moving(0.0, frames=16)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    lean = np.clip((38 - y) / 10, 0, 1)
    leaning = [opencv().remap(f, x - t * lean, y, opencv().INTER_LINEAR) for t, f in enumerate(frames)]
    shifted = [opencv().remap(m.astype(np.uint8), x - t * lean, y, 0) > 0 for t, m in enumerate(masks)]
    grey = np.full_like(frames, GREY)
    leaning = np.where(np.stack(shifted)[..., None], np.stack(leaning), grey)
    common = JudgedVideo.of(leaning, np.stack(shifted), None).object_motion
    assert common.still.max() > 0.15 and np.abs(common.base).max() < 0.5
    limit = Thresholds().max_pan
    assert measure_video(leaning, np.stack(shifted))["pan"] < limit / 2
    assert measure_video(*moving(1.4, frames=16))["pan"] > limit


def test_flow_of_a_textured_background_does_not_reach_into_the_object():
    """A nearly uniform object that moves before a still wall: its flow is seen once the wall is one colour."""
    wall = np.repeat(texture(SIDE, seed=1)[None], T, 0)
    frames, masks = moving(2.0, background=wall)
    frames = np.where(masks[..., None], frames // 16 + 120, frames).astype(np.uint8)
    video = JudgedVideo.of(frames, masks, None)
    assert video.isolated is not video and (video.isolated.frames[~masks] == 127).all()
    before, plain = JudgedVideo.of(*moving(2.0), None), moving(2.0)[0]
    assert before.isolated is before and (before.frames == plain).all()
    scores = measure_video(frames, masks)
    assert scores["motion"] == pytest.approx(2 * (T - 1) / size(masks), rel=0.15)
    assert scores["mask_consistency"] > 0.97 and scores["cut"] < 0.2  # 0.87 and 0.67 with the wall's flow


def test_a_mirrored_video_of_a_nearly_symmetric_object_is_seen():
    """A disc with small differences between its halves, 4 of 255 steps: less than its motion changes a pixel."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    centres = np.arange(T) * 1.5 - 6  # it moves, so that frames differ more by its place than by its halves
    dx = x[None] - centres[:, None, None]
    masks = dx**2 + y[None] ** 2 < 16**2
    rings = 150 + 30 * np.cos(np.hypot(dx, y) / 2)
    sides = np.where(dx > 0, 4.0, -4.0) * np.cos(y / 3)
    frames = np.where(masks[..., None], (rings + sides)[..., None], GREY).repeat(3, -1)
    frames = np.clip(frames + np.random.default_rng(0).normal(0, 1, frames.shape), 0, 255).astype(np.uint8)
    flipped, there = (np.concatenate([each[:4], each[4:, :, ::-1]]) for each in (frames, masks))
    assert measure_video(frames, masks)["mirrored"] < Thresholds().max_mirrored
    assert measure_video(flipped, there)["mirrored"] > 1.2 * Thresholds().max_mirrored


def test_the_background_tells_the_camera_from_the_object():
    wall = texture(2 * SIDE, seed=1)
    still = np.repeat(wall[None, :SIDE, :SIDE], T, 0)
    panned = np.stack([wall[:SIDE, 2 * t : 2 * t + SIDE] for t in range(T)])
    scores = measure_video(*moving(2.0, background=still))
    assert scores["background_motion"] < 0.01 and scores["pan"] is None and scores["zoom"] is None
    scores = measure_video(*moving(0.0, background=panned))
    assert scores["background_motion"] == pytest.approx(2 * (T - 1) / SIDE, rel=0.1)
    assert measure_video(*moving(2.0))["background_motion"] is None


# --- appearance ------------------------------------------------------------------------------------------


def test_flicker_is_its_amplitude_and_a_slow_change_is_none():
    frames, masks = moving(1.0)

    def lit(gains: np.ndarray) -> dict:
        scaled = np.where(
            masks[..., None], np.clip(0.6 * frames * gains[:, None, None, None], 0, 255), frames
        )
        return measure_video(scaled.astype(np.uint8), masks)

    turns = np.where(np.arange(T) % 2, 1.2, 0.8)
    assert lit(turns)["flicker"] == pytest.approx(0.2, rel=0.1)
    assert lit(np.linspace(0.7, 1.3, T))["flicker"] < 0.01


def test_a_video_that_becomes_twice_as_bright_has_its_difference_of_lightness():
    """Uniform grey: L* of sRGB 60 is 25.3, of 120 is 50.4 (CIE 1976)."""
    frames = np.full((T, SIDE, SIDE, 3), 60, np.uint8)
    frames[3:] = 120
    masks = moving()[1]
    scores = measure_video(frames, masks)
    assert scores["color_change"] == pytest.approx(0.4 * (50.43 - 25.31), rel=0.02)
    assert scores["color_step"] == pytest.approx(scores["color_change"])
    slow = np.repeat(np.linspace(60, 120, T).astype(np.uint8), SIDE * SIDE * 3).reshape(T, SIDE, SIDE, 3)
    assert measure_video(slow, masks)["color_step"] < 0.2 * scores["color_step"]


def test_the_shape_is_compared_as_proportions():
    masks = np.zeros((T, SIDE, SIDE), bool)
    masks[0, 20:30, 20:40] = True
    masks[1:, 20:30, 10:50] = True
    frames = np.where(masks[..., None], 200, GREY).repeat(3, -1).astype(np.uint8)
    # The area and the longer axis double: (ln 2 / 2, ln 2, 0).
    assert measure_video(frames, masks)["shape_change"] == pytest.approx(
        np.log(2) * np.hypot(0.5, 1), rel=0.01
    )
    assert measure_video(frames[1:], masks[1:])["shape_change"] == pytest.approx(0)


def test_the_first_frame_is_compared_with_the_picture():
    frames, masks = moving(1.0)
    frames = np.minimum(frames, 200)
    assert measure_video(frames, masks, frames[0])["first_frame"] == 0
    assert measure_video(frames, masks, frames[0] + 51)["first_frame"] == pytest.approx(0.2, abs=1e-3)
    assert measure_video(frames, masks)["first_frame"] is None


def test_blur_loses_sharpness():
    frames, masks = moving(1.0)
    blurred = frames.copy()
    for t in range(1, T):
        blurred[t] = opencv().GaussianBlur(frames[t], (0, 0), 2.5)
    assert abs(measure_video(frames, masks)["sharpness_loss"]) < 0.05
    assert measure_video(blurred, masks)["sharpness_loss"] > 0.4


# --- framing ---------------------------------------------------------------------------------------------


def test_contact_with_the_border_is_a_length():
    masks = np.zeros((T, SIDE, SIDE), bool)
    masks[:, 20:36, 20:36] = True
    masks[-1] = np.roll(masks[0], -20, axis=1)
    frames = np.where(masks[..., None], 200, GREY).repeat(3, -1).astype(np.uint8)
    assert measure_video(frames, masks)["border_contact"] == pytest.approx(16 / 16)
    # An object that is cut off from the beginning has not left the frame.
    assert measure_video(frames[-1:].repeat(T, 0), masks[-1:].repeat(T, 0))["border_contact"] == 0


def test_an_empty_frame_is_seen_and_the_rest_is_unmeasured_not_rejected():
    frames, _ = moving(1.0)
    frames[4] = GREY
    masks = foreground_masks(frames, GREY)
    assert not masks[4].any() and masks[3].any()
    verdict = judge_video(frames, masks, None, Thresholds())
    assert verdict.scores["least_visible"] == 0 and "least_visible" in verdict.failed
    assert {"jump", "cut", "flicker", "zoom", "first_frame"} <= set(verdict.unmeasured)
    assert not set(verdict.failed) & set(verdict.unmeasured)


def test_a_video_of_nothing_has_no_scores():
    frames = np.full((T, SIDE, SIDE, 3), GREY, np.uint8)
    noise = np.random.default_rng(0).normal(0, 2, frames.shape)
    for background in (GREY, None):
        masks = foreground_masks(np.clip(frames + noise, 0, 255).astype(np.uint8), background)
        assert not masks.any()
    scores = measure_video(frames, masks)
    measured = {name for name, score in scores.items() if score is not None}
    assert measured == {"overlay", "bands"}


def test_masks_that_lose_the_object_are_inconsistent():
    frames, masks = moving(1.0)
    assert measure_video(frames, masks)["mask_consistency"] > 0.9
    lossy = masks.copy()
    lossy[1::2, :, : SIDE // 2] = False
    share = masks[0, :, SIDE // 2 :].sum() / masks[0].sum()
    assert measure_video(frames, lossy)["mask_consistency"] == pytest.approx(share, abs=0.3)
    assert measure_video(frames, lossy)["mask_consistency"] < 0.75


def test_static_text_and_bands_have_their_area():
    frames, masks = moving(1.0)
    assert measure_video(frames, masks)["overlay"] == 0 == measure_video(frames, masks)["bands"]
    frames[:, 2:6, 4:24] = 255
    scores = measure_video(frames, masks)
    assert scores["overlay"] == pytest.approx(4 * 20 / SIDE**2) and scores["bands"] == 0
    frames, masks = moving(1.0)
    frames[:, -5:] = 0
    assert measure_video(frames, masks)["bands"] == pytest.approx(5 / SIDE)
    wall = np.repeat(texture(SIDE, seed=1)[None], T, 0)
    frames, masks = moving(1.0, background=wall)
    assert measure_video(frames, masks)["overlay"] is None
    frames[:, :, :3] = 0
    assert measure_video(frames, masks)["bands"] == pytest.approx(3 / SIDE)


def test_a_large_video_is_judged_as_a_small_one():
    small, large = (measure_video(*moving(k * 1.0, radius=k * 14, side=k * SIDE)) for k in (4, 8))
    for name in ("motion", "pan", "least_visible", "mask_consistency"):
        assert large[name] == pytest.approx(small[name], rel=0.06), name


# --- decisions -------------------------------------------------------------------------------------------


def test_a_limit_itself_passes_and_a_missing_score_is_not_rejected():
    thresholds = Thresholds(min_motion=0.5, max_jump=0.25, max_cut=None)
    verdict = decide(
        {"motion": 0.5, "jump": 0.25, "cut": 99.0, "zoom": None, "pan": float("nan"), "new": 1.0}, thresholds
    )
    assert verdict.kept and verdict.failed == () and verdict.unmeasured == ("zoom", "pan")
    assert verdict.scores["pan"] is None and verdict.scores["new"] == 1.0
    verdict = decide({"jump": 0.26, "motion": 0.49}, thresholds)
    assert not verdict.kept and verdict.failed == ("motion", "jump")
    assert decide(json.loads(json.dumps(verdict.to_json()))["scores"], Thresholds(min_motion=0.1)).failed == (
        "jump",
    )
    with pytest.raises(TypeError, match=r"decide: scores\['jump'\]: expected a finite number"):
        decide({"jump": "high"}, thresholds)


def test_thresholds_are_a_file_that_can_be_edited(tmp_path):
    file = tmp_path / "thresholds.json"
    thresholds = Thresholds(max_jump=0.5, max_roll=None)
    thresholds.save(file)
    assert Thresholds.load(file) == thresholds == Thresholds.from_json(thresholds.to_json())
    file.write_text('{"max_jump": 0.5}')
    assert Thresholds.load(file) == Thresholds(max_jump=0.5)
    for text, reason in (
        (
            '{"max_jumps": 1}',
            r"thresholds.json: Thresholds: no threshold 'max_jumps'; expected some of min_motion",
        ),
        ('{"max_jump": -1}', r"Thresholds.max_jump: expected at least 0, got -1"),
        ('{"max_jump": NaN}', r"Thresholds.max_jump: expected a finite number, got nan"),
        ('{"max_jump": "1"}', r"Thresholds.max_jump: expected a finite number, got '1'"),
        ("[1]", r"expected an object with thresholds by name, got \[1\]"),
        ("max_jump = 1", r"thresholds.json: expected JSON with thresholds"),
    ):
        file.write_text(text)
        with pytest.raises((ValueError, TypeError), match=reason):
            Thresholds.load(file)
    with pytest.raises(FileNotFoundError, match="no such file; expected JSON with thresholds"):
        Thresholds.load(tmp_path / "other.json")


def test_every_threshold_has_a_measure_and_every_measure_a_threshold():
    frames, masks = moving(1.0)
    scores = measure_views(frames[None], masks[None])
    # "answers" is that of a vision-language model, where one is chosen.
    assert {field.partition("_")[2] for field in Thresholds().to_json()} == {*scores, "answers"}
    assert set(MEASURES) < set(measure_video(frames, masks)) < set(scores)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"frames": np.zeros((T, 8, 8, 3))}, "measure_video: frames: expected an array uint8"),
        (
            {"frames": np.zeros((T, 8, 8, 4), np.uint8)},
            r"frames: expected an array uint8 \[T, H, W, 3\], got one of",
        ),
        (
            {"frames": np.zeros((1, 8, 8, 3), np.uint8), "masks": np.zeros((1, 8, 8), bool)},
            "at least 2 frames",
        ),
        ({"masks": np.zeros((T, 8, 8), np.uint8)}, "measure_video: masks: expected an array bool"),
        (
            {"masks": np.zeros((T, 8, 9), bool)},
            r"masks: .* of shape \[9, 8, 8\], got one of shape \[9, 8, 9\]",
        ),
        ({"still": np.zeros((9, 8, 3), np.uint8)}, "measure_video: still: expected"),
        ({"still": "otter.png"}, "measure_video: still: expected an array uint8"),
    ],
)
def test_wrong_arrays_are_refused(change, reason):
    good = {"frames": np.zeros((T, 8, 8, 3), np.uint8), "masks": np.zeros((T, 8, 8), bool), "still": None}
    measure_video(**good)
    with pytest.raises((TypeError, ValueError), match=reason):
        measure_video(**{**good, **change})


# --- views -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values", "score"),
    [
        ("jump", [0.1], 0.1),
        ("jump", [0.1, 0.3], 0.3),  # one of two views is half of them
        ("jump", [0.1, 0.3, 0.2, 0.05], 0.2),  # two of four
        ("jump", [0.1, 0.7, 0.2, 0.05], 0.4),  # one view, by more than 1.75 times
        ("jump", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], 0.5),  # four of eight
        ("color_change", [1.0, 2.0, 3.5], 2.0),  # three of three, or one by far
        ("sharpness_loss", [0.1, 0.2, 0.3, 0.4], 0.4),  # any
        ("motion", [0.7, 1.0, 0.8, 0.9], 1.0),  # the object stands still in all views …
        ("motion", [0.02, 1.0, 0.6, 0.7], 0.035),  # … or in one by far
        ("least_visible", [0.9, 0.8, 1.0, 1.0], 0.9),  # two of four
        ("least_visible", [0.9, 0.0, 1.0, 1.0], 0.0),  # one view that the object leaves
        ("cut", [], None),
    ],
)
def test_the_score_of_views_is_that_of_the_share_of_them_that_must_show_a_fault(name, values, score):
    result = score_of_views(name, values)
    assert result == (None if score is None else pytest.approx(score))
    assert score_of_views(name, values[::-1]) == result


def test_what_an_object_does_in_the_world_cancels_in_opposite_views():
    """An object that glides is seen to go left by one camera and right by the opposite one; a panning camera is not."""
    right, left = moving(2.0), moving(-2.0)
    pan = measure_video(*right)["pan"]
    glides = measure_views(*(np.stack(each) for each in zip(right, left, strict=True)))
    panned = measure_views(*(np.stack(each) for each in zip(right, right, strict=True)))
    assert panned["pan"] == pytest.approx(pan) and glides["pan"] == pytest.approx(pan / 3, rel=0.02)
    assert averaged_score([np.array([0.3]), np.array([-0.3]), np.array([0.3]), np.array([-0.3])]) == 0.3 / 3
    assert averaged_score(
        [np.array([0.3]), np.array([0.3]), np.array([0.3]), np.array([-0.1])]
    ) == pytest.approx(0.2)
    assert averaged_score([np.array([3.0, 4.0]), np.array([3.0, 4.0])]) == 5.0


def test_what_one_of_four_views_shows_by_accident_is_no_fault():
    """A false alarm of one view that is not far beyond the limit does not throw a motion out."""
    limit = Thresholds().max_jump
    assert decide({"jump": score_of_views("jump", [1.5 * limit, 0.0, 0.0, 0.0])}, Thresholds()).kept
    assert not decide(
        {"jump": score_of_views("jump", [1.5 * limit, 1.2 * limit, 0.0, 0.0])}, Thresholds()
    ).kept
    assert not decide({"jump": score_of_views("jump", [1.8 * limit, 0.0, 0.0, 0.0])}, Thresholds()).kept


def test_views_disagree_by_the_height_that_one_moves_alone():
    frames, masks = moving(1.0)
    matrices = np.repeat(np.eye(3)[None, :2], T, 0)
    matrices[:, 0, 2] = np.arange(T) - 4
    matrices[:, 1, 2] = [0, 0, 0, 9, -9, 9, 0, 0, 0]
    hop, hop_masks = scene(matrices)
    together = measure_views(np.stack([frames] * 3), np.stack([masks] * 3))
    alone = measure_views(np.stack([frames, frames, hop]), np.stack([masks, masks, hop_masks]))
    assert together["view_height"] == 0 == together["view_color"]
    assert measure_views(np.stack([hop] * 3), np.stack([hop_masks] * 3))["view_height"] == 0
    # Symmetric about the middle: the parabola takes about a tenth.
    assert alone["view_height"] == pytest.approx(9 / size(masks), rel=0.15)
    # One view of three: a lone view counts beyond 1.75 times the limit.
    assert (
        alone["jump"] == pytest.approx(measure_video(hop, hop_masks)["jump"] / 1.75) and alone["jump"] > 0.15
    )
    # A view that the object approaches: steadily down.
    nearer, nearer_masks = moving(1.0, 1.5)
    views = np.stack([frames, frames, nearer]), np.stack([masks, masks, nearer_masks])
    assert measure_views(*views)["view_height"] < 0.05
    assert measure_views(frames[None], masks[None])["view_height"] is None


def test_views_disagree_on_colours_that_one_changes_alone():
    frames, masks = moving(1.0)
    red = frames.copy()
    red[4:, ..., 1:] //= 3
    verdict = judge_views(
        np.stack([frames, frames, red]), np.stack([masks] * 3), np.stack([frames[0]] * 3), Thresholds()
    )
    assert verdict.scores["view_color"] > 15 and "view_color" in verdict.failed
    assert measure_views(np.stack([red] * 3), np.stack([masks] * 3))["view_color"] == pytest.approx(
        0, abs=1e-6
    )


# --- known motions with known faults -----------------------------------------------------------------------

MOTIONS = [("fox", "barks"), ("kangaroo", "waves-its-left-paw")]


def render(species: str, motion: str, azimuths: list[float]) -> tuple[np.ndarray, Cameras]:
    """Videos [V, 16, 64, 64, 4] of a creature, with MV-VDM's length and size, and their cameras."""
    asset = load(creatures.build(species, 5, [motion]), name=species)
    times = np.arange(16) / 8
    points = np.concatenate([asset.positions(0, time)[asset.visible] for time in times]).astype(np.float64)
    low, high = points.min(0), points.max(0)
    to_world = np.eye(4) / np.linalg.norm(high - low)
    to_world[:3, 3] = -(low + high) / 2 * to_world[0, 0]
    to_world[3, 3] = 1
    cameras = orbit_cameras(
        np.radians(azimuths), np.radians(10), 2.0, fov_y=np.radians(32), width=64, height=64
    )
    shot = Shot(0, times, to_world, cameras)
    return renderer("cpu").render_clip(asset, shot, RenderSettings(samples=4)).frames, cameras


@pytest.fixture(scope="module")
def clips() -> list[np.ndarray]:
    return [render(*motion, [40.0, 160.0])[0] for motion in MOTIONS]


def on_grey(frames: np.ndarray) -> np.ndarray:
    alpha = frames[..., 3:] / 255
    noise = np.random.default_rng(0).normal(0, 1, frames[..., :3].shape)
    return np.clip(frames[..., :3] * alpha + GREY * (1 - alpha) + noise, 0, 255).round().astype(np.uint8)


def judged(frames: np.ndarray, still: np.ndarray | None = None):
    video = on_grey(frames)
    return judge_video(video, foreground_masks(video, GREY), still, Thresholds())


# What must notice a fault; others may, too.
NOTICED_BY = {
    "frozen": "motion",
    "jumping": "jump",
    "flickering": "flicker",
    "other object": "color_change",
    "leaving": "border_contact",
    "inverted": "color_step",
    "camera": "zoom",
    "cut": "cut",
    "mirrored": "mirrored",
    "blurred": "sharpness_loss",
    "text": "overlay",
    "bands": "bands",
}


@pytest.mark.parametrize("index", range(len(MOTIONS)))
def test_known_motions_are_kept(clips, index):
    verdict = judged(clips[index][0], on_grey(clips[index][0, 0]))
    assert verdict.kept, verdict
    assert set(verdict.unmeasured) == {"background_motion"}


@pytest.mark.parametrize("index", range(len(MOTIONS)))
@pytest.mark.parametrize("fault", faults.FAULTS)
def test_each_fault_is_noticed(clips, fault, index):
    clean, rng = clips[index][0], np.random.default_rng([index, 8])
    others = {"other object": [clips[1 - index][0]], "cut": [clips[index][1]], "camera": ["zoom"]}
    frames = faults.FAULTS[fault](clean, rng, *others.get(fault, []))
    assert frames.shape == clean.shape and frames.dtype == np.uint8
    verdict = judged(frames)
    assert NOTICED_BY[fault] in verdict.failed, verdict


def test_faults_of_one_view_are_noticed_among_four(clips):
    frames, cameras = render(*MOTIONS[0], [0.0, 90.0, 180.0, 270.0])
    video = on_grey(frames)
    masks = np.stack([foreground_masks(view, GREY) for view in video])
    verdict = judge_views(video, masks, video[:, 0], Thresholds(), cameras)
    assert verdict.kept and "view_silhouettes" not in verdict.unmeasured, verdict
    swapped = cameras[[0, 2, 1, 3]]
    assert "view_silhouettes" in judge_views(video, masks, None, Thresholds(), swapped).failed
    other = on_grey(clips[1][0])
    video[2, 6:], masks[2, 6:] = other[6:], foreground_masks(other, GREY)[6:]
    assert "view_color" in judge_views(video, masks, None, Thresholds(), cameras).failed
