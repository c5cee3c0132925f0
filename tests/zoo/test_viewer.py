"""The viewer without a browser: what the server sends for every kind of scene, what it refuses, and to whom."""

from __future__ import annotations

import http.client
import json
import re
import socket
import zipfile
from dataclasses import replace
from urllib.parse import quote

import numpy as np
import pytest
import torch
from graph_motions import graph_motion
from sample_assets import BUNDLED, CASES
from tiny_dimo import SENTENCES, tiny_pipeline
from tiny_gltf import moving

import zoo
import zoo.__main__
from renderers import gltf
from renderers.cameras import orbit_cameras
from renderers.gaussians import Gaussians, ply
from zoo.animate3d import Animation, load_model
from zoo.errors import OptionError, UnsupportedError
from zoo.viewer.access import Access, make_token
from zoo.viewer.frames import FramesScene
from zoo.viewer.latent_map import LatentMap
from zoo.viewer.meshes import MeshScene
from zoo.viewer.motions import MotionRequest, parse_request
from zoo.viewer.opening import open_scene
from zoo.viewer.server import SCRIPTS, asset, read_camera
from zoo.viewer.skinned import SkinnedScene, key_point_colors
from zoo.viewer.videos import VideosScene
from zoo.viewer.wire import decode, encode

FIRST = '{"kind": "trained", "index": 0}'
HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)> \u202egnp.exe \x1b[2J"


@pytest.fixture(scope="module")
def egg():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def scene(egg):
    return SkinnedScene(egg)


# --- arrays --------------------------------------------------------------------------------------


def test_arrays_come_back_exactly():
    generator = np.random.default_rng(0)
    arrays = {
        "a": generator.normal(size=(3, 5, 7)).astype(np.float32),
        "none": np.zeros((0, 3), np.float32),
        "b": generator.integers(0, 2**32, (5, 1), dtype=np.uint32),
        "c": generator.integers(-128, 128, 3).astype(np.int8),
        "d": generator.integers(0, 65536, (2, 3)).astype(np.uint16),
    }
    data = encode({"title": "é\n\u202e"}, arrays)
    header, read = decode(data)
    assert header == {"title": "é\n\u202e"} and list(read) == list(arrays)
    for name, values in arrays.items():
        assert read[name].dtype == values.dtype and np.array_equal(read[name], values)
    start = 4 + int.from_bytes(data[:4], "little")
    layouts = json.loads(data[4:start])["arrays"]
    assert start % 8 == 0 and all(layout["offset"] % 8 == 0 for layout in layouts.values())


def test_arrays_that_browsers_cannot_read_are_refused():
    with pytest.raises(TypeError, match="a: expected an array of float32"):
        encode({}, {"a": np.zeros(3, np.int64)})
    for value in (np.nan, np.inf):
        with pytest.raises(ValueError, match="a: has NaN or infinity"):
            encode({}, {"a": np.array([1, value])})
        with pytest.raises(ValueError):
            encode({"a": value}, {})


# --- the map --------------------------------------------------------------------------------------


def test_the_map_is_the_plane_of_greatest_variance():
    generator = np.random.default_rng(1)
    latents = (
        generator.normal(size=(40, 6))
        * [5, 3, 1, 0.5, 0.1, 0]
        @ np.linalg.qr(generator.normal(size=(6, 6)))[0]
    )
    plane = LatentMap.of(latents + 2)
    values, vectors = np.linalg.eigh(np.cov(latents.T))
    assert np.allclose(np.abs(plane.axes @ vectors[:, [-1, -2]]), np.eye(2), atol=1e-9)
    assert plane.explained == pytest.approx(values[-2:].sum() / values.sum())
    assert np.allclose([plane.project(z) for z in latents + 2], plane.points)
    for point in ((0, 0), (1.5, -2), (1e3, 7)):
        assert np.allclose(plane.project(plane.lift(point)), point)
    # The nearest latent in the plane: what is left is perpendicular to it.
    rest = latents[0] + 2 - plane.lift(plane.points[0])
    assert np.abs(plane.axes @ rest).max() < 1e-12 and np.linalg.norm(rest) > 0.1


@pytest.mark.parametrize(
    "latents", [np.ones((1, 3)), np.ones((4, 3)), [[0.0], [1.0]], [[0, 0, 0], [0, 2, 0]]]
)
def test_maps_of_few_latents(latents):
    plane = LatentMap.of(np.array(latents, float))
    assert plane.points.shape == (len(latents), 2) and np.isfinite(plane.points).all()
    assert plane.explained == pytest.approx(1)
    assert np.allclose([plane.lift(point) for point in plane.points], latents)


# --- DIMO ------------------------------------------------------------------------------------------


def skinned(arrays: dict, motion: np.ndarray) -> np.ndarray:
    """Centres [T, N, 3] by linear blend skinning as in `SkinnedSplats`, from the arrays that the page receives."""
    from scipy.spatial.transform import Rotation

    R = Rotation.from_quat(motion[..., 3:].reshape(-1, 4), scalar_first=True).as_matrix()
    R, joints = R.reshape(*motion.shape[:2], 3, 3), arrays["joints"].astype(int)
    apart = arrays["means"][:, None] - arrays["rest"][joints]  # [N, J, 3]
    moved = np.einsum("tnjkl,njl->tnjk", R[:, joints], apart) + motion[:, joints, :3]
    return (moved * arrays["weights"][None, :, :, None]).sum(2)


def requests(egg, plane):
    mu = egg.model.mu
    return [
        ({"kind": "trained", "index": 2}, mu[2]),
        ({"kind": "seed", "seed": 5}, egg.draw(5)),
        ({"kind": "point", "x": 0.5, "y": -0.25}, torch.tensor(plane.lift([0.5, -0.25])).float()),
        (
            {
                "kind": "between",
                "a": {"kind": "trained", "index": 1},
                "b": {"kind": "seed", "seed": 5},
                "share": 0.25,
            },
            torch.lerp(mu[1], egg.draw(5), 0.25),
        ),
    ]


def test_what_the_page_receives_moves_as_the_model(egg, scene):
    header, arrays = scene.describe()
    assert header["kind"] == "splats" and header["names"] == list(SENTENCES)
    assert header["start"] == {"kind": "trained", "index": 0}
    for choice, z in requests(egg, scene.plane):
        facts, sent = decode(encode(*scene.motion(json.dumps(choice))))
        frames = [0, 7, facts["frames"] - 1]
        phases = np.linspace(facts["first"], facts["last"], facts["frames"])[frames]
        expected = egg.sample(z).gaussians(phases).means.numpy()
        assert np.abs(skinned(arrays, sent["motion"][frames].astype(float)) - expected).max() < 1e-5
        assert np.allclose(facts["point"], scene.plane.project(z.numpy()), atol=1e-5)
        nearest = SENTENCES[int((egg.model.mu - z).norm(dim=1).argmin())]
        assert facts["nearest"] == [[nearest, 1.0]] and not facts["confident"]
    assert (facts["frames"], facts["seconds"]) == (1 + round(facts["seconds"] * 24), pytest.approx(16 / 9))


def test_splats_are_those_of_the_model(egg, scene):
    _, arrays = scene.describe()
    gaussians = egg.motion(0).gaussians()
    assert np.allclose(arrays["colors"], gaussians.colors[0]) and np.allclose(
        arrays["opacities"][:, 0], gaussians.opacities[0]
    )
    assert np.allclose(np.exp(arrays["log_scales"]), gaussians.scales[0], rtol=1e-5)
    weights = egg.model.skinning_weights().double().numpy()
    shares = weights @ key_point_colors(weights.shape[1])
    assert np.allclose(arrays["weight_colors"], shares, atol=1e-6)
    colors = key_point_colors(96)
    assert colors.shape == (96, 3) and 0 <= colors.min() and colors.max() <= 1
    assert len(np.unique(colors.round(3), axis=0)) == 96


def test_discs_and_the_blur_are_those_of_the_model(egg, scene):
    """With gradients of the weights, the page draws discs as `DIMO.skin` carries them; without, as other Gaussians."""
    model = tiny_pipeline(discs=True, stretching=True, smoothing=0.01)
    _, arrays = SkinnedScene(model).describe()
    assert np.allclose(arrays["slopes"], model.model.weight_slopes().numpy(), atol=1e-6)
    assert arrays["blur"].tolist() == [0.0]
    _, others = scene.describe()
    assert "slopes" not in others and others["blur"].tolist() == [0.3]


def test_a_motion_is_the_first_that_is_shown(egg):
    motion = egg.sample(9)
    scene = open_scene(motion)
    header, _ = scene.describe()
    assert header["start"] == {"kind": "given"} and header["names"] == list(SENTENCES)
    facts, arrays = scene.motion('{"kind":"given"}')
    assert facts["title"] == motion.name
    expected = motion.at(np.linspace(facts["first"], facts["last"], facts["frames"])).trajectories
    assert np.abs(arrays["motion"][..., :3] - expected.positions.numpy()).max() < 1e-5
    with pytest.raises(LookupError, match="opened with a model"):
        SkinnedScene(egg).motion('{"kind":"given"}')
    part, _ = open_scene(motion.at([0.25, 0.5, 0.75])).motion('{"kind":"given"}')
    assert (part["first"], part["last"]) == (0.25, 0.75)


def test_sentences_show_what_the_text_head_says(monkeypatch, egg):
    import zoo.dimo.text as text

    head = text.TextHead("words", 4, 6).requires_grad_(False).eval()
    monkeypatch.setattr(
        text, "load_text_encoder", lambda name: lambda sentences: torch.tensor([[3.0, -1, 0.5, 2]])
    )
    talking = tiny_pipeline()
    talking.text = head
    scene = SkinnedScene(talking)
    assert scene.describe()[0]["text"] and not SkinnedScene(egg).describe()[0]["text"]
    facts, arrays = scene.motion(json.dumps({"kind": "text", "sentence": "  jump \n up "}))
    shares = head.shares("jump up")
    order = shares.argsort(descending=True)[:3].tolist()
    assert facts["title"] == "jump up" and facts["confident"]
    assert facts["nearest"] == [[SENTENCES[i], round(float(shares[i]), 4)] for i in order]
    expected = talking.from_text("jump up")
    assert np.allclose(arrays["motion"][0, :, :3], expected.trajectories.positions[0])
    talking.text = text.TextHead("words", 4, egg.model.mu.shape[1], kind="projection").eval()
    projected, _ = SkinnedScene(talking).motion(json.dumps({"kind": "text", "sentence": "jump up"}))
    assert projected["title"] == "jump up"
    with pytest.raises(UnsupportedError, match="without a text head"):
        SkinnedScene(egg).motion(json.dumps({"kind": "text", "sentence": "jump up"}))


def test_models_without_key_points(egg):
    scene = SkinnedScene(tiny_pipeline(factorised=False))
    header, arrays = scene.describe()
    assert not header["keyPoints"] and ".glb" not in header["formats"]
    facts, sent = scene.motion(FIRST)
    expected = scene.pipeline.motion(0).gaussians([facts["first"], facts["last"]]).means.numpy()
    assert np.abs(skinned(arrays, sent["motion"][[0, -1]]) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("[]", "choice"),
        ('{"kind": "trained"}', "index"),
        ('{"kind": "trained", "index": true}', "index"),
        ('{"kind": "trained", "index": -1}', "index"),
        ('{"kind": "magic"}', "expected a kind"),
        ('{"kind": "seed", "seed": 1e400}', "seed"),
        ('{"kind": "seed", "seed": 36893488147419103232}', "seed"),
        ('{"kind": "text", "sentence": 5}', "sentence"),
        ('{"kind": "text", "sentence": " "}', "sentence"),
        (json.dumps({"kind": "text", "sentence": "x" * 1001}), "at most 1000"),
        ('{"kind": "point", "x": NaN, "y": 0}', "x"),
        ('{"kind": "point", "x": 1e300, "y": 0}', "x"),
        ('{"kind": "between", "a": {"kind": "seed", "seed": 1}, "share": 0.5}', "choice"),
        ('{"kind": "between", "a": {"kind": "between"}, "b": {}, "share": 0.5}', "expected a kind"),
        (
            '{"kind": "between", "a": {"kind": "seed", "seed": 1}, "b": {"kind": "seed", "seed": 2}, "share": 1.5}',
            "share",
        ),
    ],
)
def test_malformed_requests_are_refused(text, said):
    with pytest.raises((TypeError, ValueError), match=said):
        parse_request(text)


def test_a_motion_that_does_not_exist(egg, scene):
    with pytest.raises(LookupError, match="6 motions"):
        scene.motion('{"kind": "trained", "index": 6}')
    assert MotionRequest.from_json({"kind": "seed", "seed": 3}).seed == 3


# --- meshes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", [BUNDLED / "knight.glb", CASES / "X06_utm_coordinates.glb"], ids=lambda path: path.stem
)
def test_vertices_are_those_of_the_file(path):
    loaded = gltf.load(path)
    scene = open_scene(path)
    header, arrays = scene.describe()
    assert header["kind"] == "mesh" and header["vertices"] == loaded.num_vertices
    visible = set()
    for draw in header["draws"]:
        assert draw["vertex"].startswith("#version 300 es") and "#version 330" not in draw["fragment"]
        visible.update(map(tuple, arrays[draw["triangles"]].tolist()))
        for sampler in draw["textures"].values():
            assert arrays[sampler["image"]][:4].tobytes() == b"\x89PNG"
    assert visible == {tuple(t) for primitive in loaded.primitives for t in primitive.triangles.tolist()}
    facts, sent = decode(encode(*scene.motion(FIRST)))
    first = (
        next(i for i, each in enumerate(loaded.animations) if not each.fault) if loaded.animations else None
    )
    times = (
        [0.0]
        if first is None
        else np.linspace(loaded.animations[first].start, loaded.animations[first].end, facts["frames"])
    )
    shift = loaded.origin(first) - loaded.origin(None)
    for frame in {0, facts["frames"] // 2, facts["frames"] - 1}:
        pose = loaded.pose(first, float(times[frame]))
        positions = sent["low"] + sent["step"] * sent["positions"][frame]
        error = np.abs(positions - pose.positions - shift)[loaded.visible]
        assert (error <= 0.51 * sent["step"] + 1e-6).all()
        assert np.abs(sent["normals"][frame] / 127 - pose.normals).max() < 0.5 / 127 + 1e-6
    with pytest.raises(ValueError, match="expected an index below"):
        scene.motion('{"index": 99}')


def test_results_of_animate(tmp_path):
    model = load_model(BUNDLED / "knight.glb")
    animation = Animation(model, graph_motion(model.asset), name="bends")
    scene = open_scene(animation)
    header, _ = scene.describe()
    assert header["names"] == ["bends"] and header["formats"] == [
        ".mp4",
        ".glb",
        ".fbx",
        ".usd",
        ".ply",
        ".html",
        ".npz",
    ]
    facts, sent = decode(encode(*scene.motion(FIRST)))
    assert facts["title"] == "bends" and facts["seconds"] == pytest.approx(1.5)
    times = np.linspace(0, 1.5, facts["frames"])
    expected = animation.vertices(times)[:, model.asset.visible]
    positions = (sent["low"] + sent["step"] * sent["positions"])[:, model.asset.visible]
    # Between the motion's frames, joints of a glTF skin are interpolated in their own way.
    exact = [int(np.abs(times - t).argmin()) for t in (0.0, 0.75, 1.5)]
    assert np.abs(positions - expected)[exact].max() < 1e-3 * model.diagonal()
    path = scene.save(FIRST, tmp_path / "bends.npz", None)
    assert np.load(path)["vertices"].shape == (13, model.asset.num_vertices, 3)


def test_large_motions_are_sent_in_fewer_frames(monkeypatch):
    scene = open_scene(BUNDLED / "knight.glb")
    frames = scene.motion(FIRST)[0]["frames"]
    monkeypatch.setattr("zoo.viewer.meshes.LARGEST_MOTION", 9 * scene.asset.num_vertices * 5)
    assert frames > 5 and scene.motion(FIRST)[0]["frames"] == 5


def test_still_models_have_one_frame(tmp_path):
    loaded = gltf.load(moving("translation", [0.0, 1.0], [[0, 0, 0], [1, 0, 0]]).glb())
    still = MeshScene(replace(loaded, animations=()), "still")
    facts, arrays = still.motion(FIRST)
    assert facts["frames"] == 1 and facts["title"] == "rest pose" and arrays["positions"].shape[0] == 1


# --- splat files -----------------------------------------------------------------------------------


def splats(count: int, seed: int, degree: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    return Gaussians(
        draw(1, count, 3), draw(1, count, 4) + 0.1, draw(1, count, 3) * 0.1 + 0.01, draw(1, count) * 0.8 + 0.1,
        sh=draw(1, count, (degree + 1) ** 2, 3),
    )  # fmt: skip


def test_frames_of_different_sizes(tmp_path):
    sizes = (20, 35, 5)
    for i, size in enumerate(sizes):
        ply.write(tmp_path / f"{i:03d}.ply", splats(size, i, degree=i % 2), up="y")
    scene = open_scene(tmp_path)
    header, facts = scene.describe()[0], dict(scene.describe()[0]["facts"])
    assert header["kind"] == "frames" and facts["files"] == "3" and facts["Gaussians"] == "35"
    assert facts["colour"] == "view-independent part of degree 1"
    facts, arrays = decode(encode(*scene.motion(FIRST)))
    assert facts["frames"] == 3 and facts["seconds"] == pytest.approx(2 / 24)
    for i, size in enumerate(sizes):
        expected = splats(size, i, degree=i % 2)
        assert np.allclose(arrays["means"][i, :size], expected.means[0], atol=1e-6)
        assert np.allclose(np.exp(arrays["log_scales"][i, :size]), expected.scales[0], rtol=1e-4)
        assert np.allclose(arrays["opacities"][i, :size, 0], expected.opacities[0], atol=1e-5)
        assert (arrays["opacities"][i, size:] == 0).all()
        colors = np.maximum(expected.sh[0, :, 0].numpy() * 0.28209479 + 0.5, 0)
        assert np.allclose(arrays["colors"][i, :size], colors, atol=1e-5)


def test_fields_that_do_not_change_are_sent_once(egg, tmp_path):
    egg.motion(0).save(tmp_path / "hop.ply", frames=3)
    _, arrays = open_scene(tmp_path / "hop").motion(FIRST)
    assert {name: len(values) for name, values in arrays.items()} == {
        "means": 3, "quats": 3, "opacities": 1, "colors": 1, "log_scales": 1,
    }  # fmt: skip
    assert np.allclose(arrays["means"][2], egg.motion(0).resampled(3).gaussians().means[2], atol=1e-6)


def test_files_too_large_for_memory_are_thinned(egg, tmp_path, monkeypatch):
    egg.motion(0).save(tmp_path / "hop.ply", frames=7)
    size = (tmp_path / "hop/000.ply").stat().st_size
    monkeypatch.setattr("zoo.viewer.frames.LARGEST", 3 * size)
    scene = FramesScene(tmp_path / "hop")
    assert (
        scene.motion(FIRST)[0]["frames"] == 3
        and dict(scene.describe()[0]["facts"])["shown"] == "every 3th file"
    )


# --- videos ----------------------------------------------------------------------------------------


@pytest.mark.slow  # imports diffusers
def test_results_of_mvvdm():
    from zoo.mvvdm.images import MVVDMOutput

    frames = np.random.default_rng(0).integers(0, 256, (4, 6, 8, 10, 3)).astype(np.uint8)
    header, _ = (scene := open_scene(MVVDMOutput(frames=frames))).describe()
    assert header["kind"] == "videos" and header["views"] == ["view 0", "view 1", "view 2", "view 3"]
    facts, arrays = scene.motion(FIRST)
    assert np.array_equal(arrays["videos"], frames) and facts["seconds"] == pytest.approx(5 / 3)
    real = open_scene(MVVDMOutput(frames=frames.astype(np.float32) / 255))
    assert np.array_equal(real.motion(FIRST)[1]["videos"], frames)
    with pytest.raises(ValueError, match="output_type"):
        open_scene(MVVDMOutput(frames=torch.zeros(4, 6, 3, 8, 10)))


def test_transparent_videos_are_on_white_and_large_ones_smaller(monkeypatch):
    clip = np.zeros((2, 4, 6, 4), np.uint8)
    clip[0, 0, 0] = 255, 0, 0, 255
    frames = VideosScene([clip], 10, "a", ["v"]).frames
    assert frames[0, 0, 0, 0].tolist() == [255, 0, 0] and frames[0, 1].min() == 255
    monkeypatch.setattr("zoo.viewer.videos.LARGEST", 2 * 2 * 3 * 3)
    assert VideosScene([clip], 10, "a", ["v"]).frames.shape == (1, 2, 2, 3, 3)
    with pytest.raises(ValueError, match="one length and size"):
        VideosScene([clip, clip[:1]], 10, "a", ["v", "w"])


# --- the server ------------------------------------------------------------------------------------


def ask(viewer, path: str, method: str = "GET", **headers: str):
    """Status, headers and body of one request, sent as written: no path is normalised."""
    connection = http.client.HTTPConnection("127.0.0.1", viewer.port, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    result = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return result


@pytest.fixture(scope="module")
def viewer(egg):
    with zoo.view(egg, open_browser=False, block=False) as running:
        yield running


def test_the_page_and_its_scripts(viewer):
    status, headers, body = ask(viewer, "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8" and b"dimo/egg" in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    linked = re.findall(r'(?:src|href)="(page/[^"]+)"', body.decode())
    assert len(linked) == len(SCRIPTS) + 1
    for name in linked:
        status, headers, body = ask(viewer, f"/{name}")
        assert status == 200 and body.decode() == asset(name.removeprefix("page/"))
        assert b"http://" not in body and b"https://" not in body
        assert b"innerHTML" not in body and b"eval(" not in body
    status, headers, body = ask(viewer, "/", "HEAD")
    assert status == 200 and body == b"" and int(headers["Content-Length"]) > 500


@pytest.mark.parametrize(
    "path",
    [
        "/page/../api.py", "/../../../etc/passwd", "/page/%2e%2e/server.py", "/page//etc/passwd", "/page/", "/scene/x",
        "//etc/passwd", "/page/viewer.html", "/etc/passwd", "/page/viewer.js/../../api.py",
    ],
)  # fmt: skip
def test_nothing_else_is_served(viewer, path):
    assert ask(viewer, path)[0] == 404


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/scene?pane=1", "pane: expected a number below 1"),
        ("/scene?pane=-1", "pane"),
        ("/scene?pane=" + "9" * 5000, "pane"),
        ("/motion?pane=0", "choice: expected JSON"),
        ("/motion?pane=0&choice=" + quote('{"kind": "trained", "index": 60}'), "has 6 motions"),
        ("/export?pane=0&format=.exe&choice=" + quote(FIRST), "format: expected one of .mp4"),
        ("/export?pane=0&format=.mp4&camera=x&choice=" + quote(FIRST), "camera"),
    ],
)
def test_wrong_requests_get_a_sentence(viewer, path, said):
    status, headers, body = ask(viewer, path)
    assert status == 400 and said in body.decode() and headers["Content-Type"].startswith("text/plain")
    assert b"Traceback" not in body and len(body) < 500


def test_other_methods_are_refused(viewer):
    assert ask(viewer, "/", "POST")[0] == 501


def test_other_sites_get_no_answer(viewer):
    assert ask(viewer, "/scene?pane=0", Host="evil.example:80")[0] == 403
    assert ask(viewer, "/scene?pane=0", Sec_Fetch_Site="cross-site")[0] == 403
    assert ask(viewer, "/", Sec_Fetch_Site="same-site")[0] == 403
    assert ask(viewer, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="iframe")[0] == 403
    assert ask(viewer, "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 200  # a link
    assert ask(viewer, "/scene?pane=0", Sec_Fetch_Site="cross-site", Sec_Fetch_Dest="document")[0] == 403
    assert ask(viewer, "/", Sec_Fetch_Site="none", Host=f"localhost:{viewer.port}")[0] == 200
    assert not {name for name in ask(viewer, "/")[1] if name.lower().startswith("access-control")}
    assert viewer._server.socket.getsockname()[0] == "127.0.0.1"


def test_a_token_is_required_where_others_can_connect(egg):
    with zoo.view(egg, host="0.0.0.0", open_browser=False, block=False) as running:
        token = running.url.partition("?token=")[2]
        assert len(token) >= 32 and running.url.startswith("http://127.0.0.1:")
        wrong = {"Cookie": f"menagerie_{running.port}=wrong"}
        tries = [
            ("/", {}),
            ("/scene?pane=0", {}),
            ("/?token=" + "x" * 32, {}),
            ("/", wrong),
            (f"/scene?token={token}", {}),
        ]
        for path, headers in tries:
            status, _, body = ask(running, path, **headers)
            assert status == 403 and b"dimo/egg" not in body and token.encode() not in body
        status, headers, body = ask(running, f"/?token={token}")
        assert (status, headers["Location"], body) == (303, "/", b"")
        assert "HttpOnly" in headers["Set-Cookie"] and "SameSite=Lax" in headers["Set-Cookie"]
        cookie = headers["Set-Cookie"].partition(";")[0]
        assert ask(running, "/scene?pane=0", Cookie=cookie)[0] == 200
        assert ask(running, "/scene?pane=0", Cookie=cookie, Host="192.168.1.5")[0] == 200
        assert ask(running, "/scene?pane=0", Cookie=cookie, Sec_Fetch_Site="cross-site")[0] == 403


def test_tokens():
    assert make_token("127.0.0.1", None) is None and make_token("::1", None) is None
    assert make_token("0.0.0.0", None) != make_token("0.0.0.0", None)
    assert make_token("127.0.0.1", "abcdefgh") == "abcdefgh"
    for token in ("", "short", "with space", "semi;colon", "é" * 8, "new\nline1"):
        with pytest.raises(OptionError, match="--token"):
            make_token("127.0.0.1", token)
    assert Access(1, "abcdefgh").refusal("/", {"Cookie": "\x00bad; ;;"}) is not None


def test_exports(viewer, egg, tmp_path):
    sample = quote('{"kind": "seed", "seed": 3}')
    orbit = orbit_cameras([0.5], 0.2, 2.0, fov_y=0.6, width=90, height=61)
    camera = {
        "worldToCamera": orbit.world_to_camera[0].tolist(),
        "K": [[100, 0, 45], [0, 100, 30.5], [0, 0, 1]],
    }
    camera |= {"width": 91, "height": 61}
    for suffix, start in (
        (".npz", b"PK"),
        (".html", b"<!doctype html>"),
        (".mp4", b"\x00\x00\x00"),
        (".ply", b"PK"),
    ):
        path = f"/export?pane=0&format={suffix}&choice={sample}&name={quote(HOSTILE)}"
        status, headers, body = ask(
            viewer, path + (f"&camera={quote(json.dumps(camera))}" if suffix == ".mp4" else "")
        )
        assert status == 200 and body.startswith(start), body[:300]
        name = re.fullmatch(r'attachment; filename="([a-z0-9.-]+)"', headers["Content-Disposition"])[1]
        assert name == "script-script-alert-1-script-img-src-x-onerror-alert-2-gnp-e" + {".ply": ".zip"}.get(
            suffix, suffix
        )
        (tmp_path / f"out{suffix}").write_bytes(body)
    stored = np.load(tmp_path / "out.npz")
    assert np.allclose(stored["z"], egg.draw(3)) and str(stored["name"]) == "sample 3"
    with zipfile.ZipFile(tmp_path / "out.ply") as archive:
        names = archive.namelist()
        assert names == [f"{i:03d}.ply" for i in range(len(egg.phases))]
        (tmp_path / "000.ply").write_bytes(archive.read("000.ply"))
    assert np.allclose(ply.read(tmp_path / "000.ply").means, egg.sample(3).gaussians().means[:1], atol=1e-6)
    import av

    with av.open(str(tmp_path / "out.mp4")) as video:
        frame = next(video.decode(video=0)).to_ndarray(format="rgb24")
    view = read_camera(json.dumps(camera))
    assert frame.shape == (60, 90, 3) and (view.width, view.height) == (90, 60)
    expected = egg.sample(3).resampled(2).render(view)[0, 0]
    assert np.abs(frame.astype(int) - expected).mean() < 4


def test_cameras_of_large_windows_are_scaled():
    content = {
        "worldToCamera": np.eye(4).tolist(),
        "K": [[4000, 0, 2000], [0, 4000, 1000], [0, 0, 1]],
        "width": 4000,
        "height": 2000,
    }
    view = read_camera(json.dumps(content))
    assert (view.width, view.height) == (1024, 512)
    assert np.allclose(view.K[0], [[1024, 0, 512], [0, 1024, 256], [0, 0, 1]])
    for change in ({"K": [[1]]}, {"width": 0}, {"width": 1e9}, {"worldToCamera": "x"}, {"height": True}):
        with pytest.raises((TypeError, ValueError), match=r"camera|Cameras"):
            read_camera(json.dumps(content | change))


def test_hostile_names_are_texts(egg):
    hostile = tiny_pipeline()
    hostile.object, hostile.sentences = HOSTILE, (HOSTILE,) * 6
    hostile.provenance = {"author": HOSTILE}
    with zoo.view(hostile, open_browser=False, block=False) as running:
        _, _, body = ask(running, "/")
        assert b"<script>alert" not in body and b"<img" not in body and "\u202e".encode() not in body
        header, _ = decode(ask(running, "/scene?pane=0")[2])
        assert "<img src=x onerror=alert(2)>" in header["names"][0]  # a text; the page never reads it as HTML
        assert not any(ord(c) < 32 or c == "\u202e" for c in json.dumps(header, ensure_ascii=False))


# --- opening, and the command ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said", "code"),
    [
        (["dimo/nobody"], "dimo/nobody", 2),
        (["none.glb"], "none.glb: no such file", 1),
        (["notes.txt"], "the viewer opens .glb", 2),
        (["empty"], "found neither", 2),
        (["broken.glb"], "broken.glb", 1),
        (["broken.ply"], "broken.ply", 1),
        (["bundled:mvvdm/tiny"], "models of the family dimo", 2),
        (["a", "b", "c"], "one thing to view, or two", 2),
        (["x.glb", "--port", "-1"], "--port -1", 2),
        (["x.glb", "--port", "70000"], "--port 70000", 2),
        (["x.glb", "--token", "short"], "--token", 2),
        (["x.glb", "--host", "203.0.113.9"], "--host 203.0.113.9: cannot listen", 2),
        (["x.glb", "--host", "no such host"], "--host no such host: cannot listen", 2),
    ],
)
def test_mistakes_end_in_a_sentence(argv, said, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("notes.txt", "broken.glb", "broken.ply"):
        (tmp_path / name).write_bytes(b"nothing")
    (tmp_path / "x.glb").write_bytes((CASES / "X15_nulls.glb").read_bytes())
    assert zoo.__main__.main(["view", *argv, "--no-open"]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and "Traceback" not in error


def test_a_port_in_use_is_named(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        path = str(CASES / "X15_nulls.glb")
        assert zoo.__main__.main(["view", path, "--no-open", "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"zoo: port {port} of 127.0.0.1 is in use: choose another with --port, or --port 0 for any free one\n"
    )


def test_other_objects_are_refused():
    for thing in (None, 5, object(), np.zeros(3)):
        with pytest.raises(TypeError, match="view: expected the name of a model"):
            zoo.view(thing, open_browser=False, block=False)
    with pytest.raises(OptionError, match="got 0"):
        zoo.view()


def test_two_scenes_and_closing_twice(egg, tmp_path):
    egg.motion(0).save(tmp_path / "hop.ply", frames=2)
    running = zoo.view(egg, tmp_path / "hop", open_browser=False, block=False)
    kinds = [decode(ask(running, f"/scene?pane={i}")[2])[0]["kind"] for i in range(2)]
    assert kinds == ["splats", "frames"] and b'data-panes="2"' in ask(running, "/")[2]
    running.close()
    running.close()
    running.wait()
    with pytest.raises(OSError):
        ask(running, "/")
