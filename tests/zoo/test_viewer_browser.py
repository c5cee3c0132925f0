"""The viewer in headless Chromium against the running server: pictures, controls, downloads, memory."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import browser
from PIL import Image
from sample_assets import BUNDLED
from synthetic_index import HOSTILE
from tiny_dimo import SENTENCES, tiny_pipeline

import zoo
from renderers import gltf
from renderers.cameras import Cameras, orbit_cameras
from renderers.gaussians import TensorCameras, ply, render
from renderers.meshes import RenderSettings, Shot, composite, render_clip
from zoo.export.html.page import plain

pytestmark = pytest.mark.slow
READY = "window.viewer?.ready"
IDLE = "!viewer.panes.some((pane) => pane.busy)"
TITLE = ["evaluate", "viewer.panes[0].motion.title"]
LAG = 12  # moves
STOP = ["evaluate", "viewer.set({playing: false, phase: 0.4})"]
SETTLE = ["evaluate", "new Promise((done) => setTimeout(done, 300))"]
MOMENTS = [(phase, a, e) for phase in (0.0, 0.37, 0.8) for a, e in ((0.6, 0.2), (2.5, 0.6), (-1.6, -0.3))]


@pytest.fixture(scope="module")
def chromium():
    run = browser()

    def checked(viewer, actions: list, **context) -> list:
        """Results of the actions; the page logged nothing and requested nothing from elsewhere."""
        out = run(viewer.url, actions, ready=READY, **context)
        assert out["logs"] == []
        own = re.escape(viewer.url.partition("?")[0])
        assert [url for url in out["requests"] if not re.match(f"({own}|blob:{own}|data:,)", url)] == []
        return out["results"]

    return checked


@pytest.fixture(scope="module")
def kangaroo():
    model = zoo.load("bundled:dimo/kangaroo")
    model.from_text("hops")  # loads the language model, which may take a minute on a busy machine
    return model


@pytest.fixture(scope="module")
def viewer(kangaroo):
    with zoo.view(kangaroo, open_browser=False, block=False) as running:
        yield running


def look(phase: float, azimuth: float, elevation: float, pane: int = 0) -> list:
    """Draw one moment from one angle; the result has the camera and the picture."""
    return ["evaluate", f"""(() => {{
      const pane = viewer.panes[{pane}];
      pane.size = [384, 320];
      viewer.set({{ phase: {phase}, playing: false }});
      viewer.orbit.look({{ azimuth: {azimuth}, elevation: {elevation} }});
      viewer.draw();
      return {{ ...pane.camera, phase: viewer.phase, title: pane.motion.title, png: pane.canvas.toDataURL() }};
    }})()"""]  # fmt: skip


def picture(result: dict) -> np.ndarray:
    data = base64.b64decode(result["png"].split(",")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def marks(result: dict) -> np.ndarray:
    """Where the overlay is painted, bool [H, W]."""
    data = base64.b64decode(result["png"].split(",")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3] > 0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2) + 1e-12)


def camera(result: dict) -> Cameras:
    return Cameras(
        np.array([result["worldToCamera"]]), np.array([result["K"]]), result["width"], result["height"]
    )


def rendered(motion, result: dict) -> np.ndarray:
    return motion.render(camera(result), phases=[result["phase"]])[0, 0]


def wait(*more: str) -> list:
    return ["wait", " && ".join((IDLE, *more))]


def test_the_picture_is_that_of_render(chromium, viewer, kangaroo):
    results = chromium(viewer, [look(*moment) for moment in MOMENTS], colorScheme="light")
    motion, pictures = kangaroo.motion(0), [picture(result) for result in results]
    values = []
    for result, image, (phase, azimuth, elevation) in zip(results, pictures, MOMENTS, strict=True):
        assert abs(result["phase"] - phase) < 1e-6
        eye = np.linalg.inv(result["worldToCamera"])[:3, 3]
        expected = orbit_cameras([azimuth], elevation, 1.0, fov_y=1, width=8, height=8)
        assert np.allclose(expected.world_to_camera[0, :3, :3], np.array(result["worldToCamera"])[:3, :3])
        assert np.isfinite(eye).all()
        values.append(psnr(image, rendered(motion, result)))
    print("PSNR", [round(value, 1) for value in values])
    assert min(values) > 48
    for i in range(9):
        for j in range(i):
            assert psnr(pictures[i], pictures[j]) < 35, (MOMENTS[i], MOMENTS[j])


def test_controls_of_a_model(chromium, viewer, kangaroo, tmp_path):
    moment = look(0.5, 0.6, 0.2)
    items = "[...document.querySelectorAll('#motions li:not(.none)')]"
    shown = f"{items}.filter((item) => !item.hidden).map((item) => item.innerText)"
    first_end = json.dumps({"kind": "trained", "index": 3}, separators=(",", ":"))
    second_end = json.dumps({"kind": "seed", "seed": 8}, separators=(",", ":"))
    state = ["evaluate", "({...viewer.state})"]
    slide = ["evaluate", """(() => {
      const share = document.getElementById("share");
      share.value = 0.5; share.dispatchEvent(new Event("input"));
    })()"""]  # fmt: skip
    out = chromium(
        viewer,
        [
            state, ["wait", "viewer.state.fraction !== 0"], state, ["click", "#play"], state, SETTLE, state,
            ["fill", "#search", "LOOKS left"], ["evaluate", shown], ["click", "#motions li:not([hidden]) button"],
            wait(), moment,
            ["fill", "#search", "xyz"], ["evaluate", "document.querySelector('.none').hidden"], ["fill", "#search", ""],
            ["fill", "#seed", "7"], ["click", "#sample"], wait(), moment, ["click", "#next"], wait(), TITLE,
            ["select", "#blend-a", first_end], wait(), ["select", "#blend-b", second_end], wait(), slide, wait(),
            moment,
            ["fill", "#sentence", "jump up and down"], ["press", "#sentence", "Enter"], wait(), moment,
            ["evaluate", "document.getElementById('nearest').textContent"],
        ],
        colorScheme="light",
    )  # fmt: skip
    first, later, stopped, still = (out[i] for i in (0, 2, 4, 6))
    assert first["playing"] and later["playing"] and later["fraction"] > 0
    assert not stopped["playing"] and still == stopped
    matching = [s for s in kangaroo.sentences if "looks" in s and "left" in s]
    assert out[8] == matching and out[11]["title"] == matching[0] and out[13] is False
    listed, sample, blend, said = out[11], out[18], out[28], out[32]
    assert psnr(picture(listed), rendered(kangaroo.motion(matching[0]), listed)) > 45
    assert sample["title"] == "sample 7" and psnr(picture(sample), rendered(kangaroo.sample(7), sample)) > 45
    assert out[21] == "sample 8"
    middle = kangaroo.interpolate(3, kangaroo.sample(8), 3)[1]
    assert blend["title"].endswith("→ sample 8, 50%") and psnr(picture(blend), rendered(middle, blend)) > 45
    assert psnr(picture(said), rendered(kangaroo.from_text("jump up and down"), said)) > 45
    shares = kangaroo.text.shares("jump up and down")
    best = int(shares.argmax())
    assert out[33].startswith(f"{kangaroo.sentences[best]} {round(100 * float(shares[best]))} %")


def test_the_map_samples_where_it_is_clicked(chromium, viewer, kangaroo):
    press = """(([x, y]) => {
      const canvas = document.getElementById("map"), box = canvas.getBoundingClientRect(), { map } = viewer.panels[0];
      const [left, top] = map.place([x, y]);
      canvas.dispatchEvent(new MouseEvent("click",
        { clientX: box.left + canvas.clientLeft + left, clientY: box.top + canvas.clientTop + top, bubbles: true }));
      return [map.points[9], map.here];
    })(%s)"""
    moment, here = look(0.5, 0.6, 0.2), ["evaluate", "viewer.panels[0].map.here"]
    point = [-1.1, 0.45]
    out = chromium(
        viewer,
        [["evaluate", press % point], wait(), moment, here,
         ["evaluate", press % "viewer.panels[0].map.points[9]"], wait(), moment],
        colorScheme="light",
    )  # fmt: skip
    at, result, marked, (dot, _), trained = out[0], out[2], out[3], out[4], out[6]
    assert at and np.allclose(marked, point, atol=0.02)
    mu = kangaroo.model.mu.double().numpy()
    _, _, rows = np.linalg.svd(mu - mu.mean(0))
    axes = rows[:2] * np.sign([row[np.abs(row).argmax()] for row in rows[:2]])[:, None]
    z = mu.mean(0) + np.array(marked) @ axes
    assert psnr(picture(result), rendered(kangaroo.sample(z.tolist()), result)) > 40
    assert np.allclose(dot, axes @ (mu[9] - mu.mean(0)), atol=1e-4)
    assert trained["title"] == kangaroo.sentences[9]
    assert psnr(picture(trained), rendered(kangaroo.motion(9), trained)) > 45


def test_key_points_and_weights(chromium, viewer, kangaroo, tmp_path):
    """Weights replace the object's colours, and each key point is drawn where it projects to."""
    moment = look(0.5, 0.6, 0.2)
    spots = ["evaluate", """(() => {
      const { overlay, scene, posed } = viewer.panes[0];
      return { png: overlay.toDataURL(), positions: [...scene.points(posed).positions] };
    })()"""]  # fmt: skip
    out = chromium(
        viewer,
        [moment, spots, ["click", "#points"], ["click", "#weights"], moment, spots, ["click", "#weights"], moment],
        colorScheme="light",
    )  # fmt: skip
    plain, none, coloured, some, again = (out[i] for i in (0, 1, 4, 5, 7))
    none_painted, painted = (marks(spot) for spot in (none, some))
    assert not none_painted.any() and painted.sum() > 500
    motion = kangaroo.motion(0)
    expected = motion.at([plain["phase"]]).trajectories.positions[0].numpy()
    positions = np.reshape(some["positions"], (-1, 3))
    assert np.abs(positions - expected).max() < 3e-3  # interpolated between frames
    pixels, _ = camera(coloured).project(positions)
    assert all(painted[int(y), int(x)] for x, y in pixels[0])
    assert psnr(picture(coloured), picture(plain)) < 25 and np.array_equal(picture(again), picture(plain))
    from zoo.dimo.motion import _draw
    from zoo.viewer.skinned import key_point_colors

    gaussians = motion.gaussians([coloured["phase"]])
    weights = kangaroo.model.skinning_weights() @ torch.tensor(key_point_colors(96)).float()
    painted_by_weights = replace(gaussians, colors=weights[None])
    expected = _draw(kangaroo.model, painted_by_weights, camera(coloured), (1.0, 1.0, 1.0))[0, 0]
    assert psnr(picture(coloured), expected) > 45


def test_downloads(chromium, viewer, kangaroo, tmp_path):
    formats = (".mp4", ".glb", ".ply", ".html", ".npz")
    actions = [["fill", "#seed", "4"], ["click", "#sample"], wait(), look(0.5, 2.0, 0.3)]
    for suffix in formats:
        actions += [
            ["download", f"#download-{suffix[1:]}", str(tmp_path)],
            ["wait", "!document.querySelector('.downloads button:disabled')"],
        ]
    out = chromium(
        viewer,
        [*actions, ["evaluate", "document.getElementById('status').textContent"]],
        acceptDownloads=True,
    )
    paths = [Path(path) for path in out[4:-1:2]]
    assert [path.name for path in paths] == [
        f"dimo-kangaroo-sample-4{each}" for each in (".mp4", ".glb", ".zip", ".html", ".npz")
    ]
    assert out[-1] == f"Saved {paths[-1].name}"
    motion = kangaroo.sample(4)
    asset = gltf.load(paths[1])
    assert [animation.name for animation in asset.animations] == ["sample 4"]
    with zipfile.ZipFile(paths[2]) as archive:
        archive.extractall(tmp_path / "frames")
    assert len(list((tmp_path / "frames").iterdir())) == len(motion.phases)
    assert np.allclose(ply.read(tmp_path / "frames/003.ply").means, motion.gaussians().means[3:4], atol=1e-6)
    assert np.allclose(np.load(paths[4])["z"], motion.z) and b"sample 4" in paths[3].read_bytes()
    import av

    with av.open(str(paths[0])) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    count = len(frames)
    phases = np.linspace(float(motion.phases[0]), float(motion.phases[-1]), count)
    expected = motion.render(camera(out[3]), phases=[phases[count // 2]])[0, 0]
    assert frames[0].shape == (320, 384, 3) and psnr(frames[count // 2], expected) > 30


def test_meshes_are_those_of_the_renderer(chromium, tmp_path):
    path = BUNDLED / "knight.glb"
    asset = gltf.load(path)
    with zoo.view(path, open_browser=False, block=False) as running:
        moments = [(0.0, 0.6, 0.2), (0.5, 2.5, 0.4), (1.0, -1.6, -0.3)]
        names = "[...document.querySelectorAll('#motions button')].map((button) => button.innerText)"
        out = chromium(
            running,
            [*[look(*moment) for moment in moments], ["evaluate", names], ["click", "#motions li:nth-child(3) button"],
             wait(), look(0.5, 0.6, 0.2), ["download", "#download-mp4", str(tmp_path)]],
            colorScheme="light",
        )  # fmt: skip
    assert out[3] == [animation.name for animation in asset.animations]
    values = []
    for index, result, phase in [*((0, out[i], moments[i][0]) for i in range(3)), (2, out[6], 0.5)]:
        animation = asset.animations[index]
        time = animation.start + phase * (animation.end - animation.start)
        shot = Shot(index, np.array([time]), np.eye(4), camera(result))
        frames = render_clip(asset, shot, RenderSettings(samples=4)).frames
        values.append(psnr(picture(result), composite(frames, 1.0)[0, 0]))
    print("PSNR", [round(value, 1) for value in values])
    assert min(values) > 30
    assert out[6]["title"] == asset.animations[2].name and Path(out[7]).stat().st_size > 1000


def test_splat_files_and_videos_side_by_side(chromium, kangaroo, tmp_path):
    motion = kangaroo.motion(0).resampled(5)
    motion.save(tmp_path / "hop.ply")
    views = motion.render(
        orbit_cameras(np.radians([0, 90, 180, 270]), 0.2, 2.0, fov_y=0.6, width=96, height=96)
    )
    from zoo.mvvdm.images import MVVDMOutput

    with zoo.view(tmp_path / "hop", MVVDMOutput(frames=views), open_browser=False, block=False) as running:
        strip = ["evaluate", """(() => {
          const pane = viewer.panes[1];
          pane.size = [384, 96];
          viewer.draw();
          return { png: pane.canvas.toDataURL() };
        })()"""]  # fmt: skip
        out = chromium(
            running,
            [look(0, 0.6, 0.2), look(0.5, 0.6, 0.2), look(1, 2.5, 0.3), strip, ["click", ".tabs button:nth-child(2)"],
             ["download", "#download-mp4", str(tmp_path)]],
            colorScheme="light",
        )  # fmt: skip
    for result, frame in zip(out[:3], (0, 2, 4), strict=True):
        # Of the file: colours below 0, which a model may have, are 0 in files of splats.
        gaussians = ply.read(tmp_path / f"hop/{frame:03d}.ply")
        drawn = render(
            gaussians, TensorCameras.from_cameras(camera(result)), background=torch.ones(3)
        ).output("rgb")
        assert psnr(picture(result), 255 * drawn[0, 0].clamp(0, 1).numpy()) > 55
    assert np.array_equal(picture(out[3]), np.concatenate(list(views[:, 4]), axis=1))
    assert Path(out[5]).name == "mv-vdm.mp4"


def test_two_models_share_clock_and_camera(chromium, viewer, kangaroo, tmp_path):
    fox = zoo.load("bundled:dimo/fox")
    with zoo.view(kangaroo, fox, open_browser=False, block=False) as running:
        out = chromium(
            running,
            [look(0.5, 0.6, 0.2), ["click", ".tabs button:nth-child(2)"], ["fill", "#seed", "2"], ["click", "#sample"],
             wait(), look(0.5, 0.6, 0.2), look(0.5, 0.6, 0.2, pane=1), STOP, ["drag", [[200, 300], [320, 260]]],
             ["evaluate", "viewer.panes.map((pane) => pane.camera.worldToCamera.map((row) => row.slice(0, 3)))"]],
            colorScheme="light",
        )  # fmt: skip
    for result, motion in (
        (out[0], kangaroo.motion(0)),
        (out[5], kangaroo.motion(0)),
        (out[6], fox.sample(2)),
    ):
        assert psnr(picture(result), rendered(motion, result)) > 45
    assert out[9][0] == out[9][1]


@pytest.mark.parametrize("size", [(1280, 800), (390, 760)])
def test_the_layout_fits(chromium, viewer, size, tmp_path):
    width, height = size
    fits = "document.documentElement.scrollWidth <= innerWidth"
    inside = (
        "[...document.querySelectorAll('#transport *, #panel *')].every((e) => "
        "e.tagName === 'OPTION' || e.getBoundingClientRect().right <= innerWidth)"
    )
    apart = [[{"x": x, "y": 200, "id": i} for i, x in enumerate(pair)] for pair in ((150, 200), (100, 250))]
    touch = [["touchStart", apart[0]], ["touchMove", apart[1]], ["touchEnd", []]]
    view = ["evaluate", "[viewer.orbit.azimuth, viewer.orbit.elevation, viewer.orbit.zoom]"]
    out = chromium(
        viewer,
        [STOP, ["evaluate", fits], ["evaluate", inside], view, ["drag", [[200, 200], [260, 180]]], view,
         ["wheel", -100], ["wait", "viewer.orbit.zoom !== 1"], view, ["click", "#reset"], view,
         ["touch", touch], view, ["screenshot", str(tmp_path / "page.png")]],
        viewport={"width": width, "height": height}, hasTouch=True,
    )  # fmt: skip
    start, turned, nearer, again, pinched = (np.array(out[i]) for i in (3, 5, 8, 10, 12))
    assert out[1] and out[2]
    assert turned[0] < start[0] and turned[1] < start[1] and turned[2] == 1
    assert nearer[2] > 1.1 and np.array_equal(again, start) and abs(pinched[2] - 3) < 0.1


def test_hostile_names_run_nothing(chromium):
    """Also bidirectional ones, and of 10 kB: they are cut and escaped, and fit a phone."""
    for text in ("</script><script>alert(1)</script><img src=x onerror='alert(2)'>", HOSTILE):
        model = tiny_pipeline()
        model.object, model.sentences, model.provenance = text, (text, *SENTENCES[1:]), {"author": text}
        with zoo.view(model, open_browser=False, block=False) as running:
            out = chromium(
                running,
                [["evaluate", "[document.images.length, document.title]"],
                 ["evaluate", "['h1', '#motions button'].map((part) => document.querySelector(part).textContent)"],
                 ["evaluate", "document.documentElement.scrollWidth <= innerWidth"]],
                viewport={"width": 390, "height": 760},
            )  # fmt: skip
        title = plain(f"dimo/{text}")
        assert out == [[0, title], [title, plain(text)], True] and "\u202e" not in title


def test_a_page_with_a_token(chromium):
    with zoo.view(tiny_pipeline(), token="token-token", open_browser=False, block=False) as running:
        assert "token-token" in running.url
        out = chromium(
            running,
            [["evaluate", "location.href"], ["fill", "#seed", "3"], ["click", "#sample"], wait(), TITLE],
        )
        assert out[0] == running.url.partition("?")[0] and out[4] == "sample 3"  # not in the history


# --- a separate process: memory, flashes, Ctrl-C -------------------------------------------------------


class Process:
    """`python -m zoo view` in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-P", "-m", "zoo", "view", *arguments, "--port", "0", "--no-open"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().split()[0]

    def memory(self) -> int:
        """Resident memory, bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    def end(self) -> tuple[int, str]:
        """Ctrl-C; exit code and what was written to stderr."""
        self.process.send_signal(signal.SIGINT)
        _, error = self.process.communicate(timeout=30)
        return self.process.returncode, error


def test_two_hundred_slider_moves(chromium, kangaroo, tmp_path):
    """Each picture is that of a share that was set; server and page keep their size."""
    server = Process("bundled:dimo/kangaroo")
    shares = [round(abs((i * 0.07) % 2 - 1), 2) for i in range(200)]
    share = "document.getElementById('share')"
    move = f"(() => {{{{ {share}.value = {{}}; {share}.dispatchEvent(new Event('input')); }}}})()"
    clip = {"x": 180, "y": 50, "width": 300, "height": 270}
    state = "[viewer.panes[0].motion.title, viewer.panes[0].camera]"

    def film(part: slice, folder: str) -> list:
        (tmp_path / folder).mkdir()
        expressions = [move.format(share) for share in shares[part]]
        return ["film", {"expressions": expressions, "folder": str(tmp_path / folder), "clip": clip}, state]

    select = ["select", "#blend-b", json.dumps({"kind": "trained", "index": 30}, separators=(",", ":"))]
    begin, end = [STOP, select, wait(), SETTLE], [wait(), ["heap", 0]]
    try:
        out = chromium(
            server, [*begin, film(slice(0, 40), "a"), *end, film(slice(40, 200), "b"), *end],
            viewport={"width": 1000, "height": 400}, colorScheme="light",
        )  # fmt: skip
        before = server.memory()
        chromium(server, [*begin, *[["evaluate", move.format(share)] for share in shares], wait()])
        after = server.memory()
    finally:
        code, error = server.end()
    assert (code, error) == (0, "")
    first, second = out[6], out[9]
    print(f"page {first / 1e6:.1f} → {second / 1e6:.1f} MB, server {before / 1e6:.0f} → {after / 1e6:.0f} MB")
    assert second < first + 2e6 and after < before + 25e6
    pictures = [
        np.asarray(Image.open(path).convert("RGB"))
        for folder in "ab"
        for path in sorted((tmp_path / folder).iterdir())
    ]
    assert len(pictures) == 200
    view, x, y = camera(out[4][-1][1]), clip["x"], clip["y"]
    steps = kangaroo.interpolate(0, 30, 101)
    at = {share: steps[round(100 * share)].render(view, phases=[0.4])[0, 0] for share in {0.0, *shares}}
    at = {share: image[y : y + clip["height"], x : x + clip["width"]] for share, image in at.items()}
    # What is shown may lag behind the slider by a few moves; before the first, it is the start of the blend.
    recent = [[*([0.0] if i < LAG else []), *shares[max(0, i - LAG) : i + 1]] for i in range(200)]
    worst = [
        max(psnr(image, at[share]) for share in candidates)
        for image, candidates in zip(pictures, recent, strict=True)
    ]
    print(f"worst picture {min(worst):.1f} dB; the ends are {psnr(at[min(at)], at[max(at)]):.1f} dB apart")
    assert min(worst) > 40
    assert len({image.tobytes() for image in pictures}) > 20


def test_ctrl_c_and_a_port_in_use():
    server = Process(str(BUNDLED / "knight.glb"))
    port = re.search(r":(\d+)/", server.url)[1]
    command = [
        sys.executable,
        "-P",
        "-m",
        "zoo",
        "view",
        str(BUNDLED / "knight.glb"),
        "--no-open",
        "--port",
        port,
    ]
    other = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert other.returncode == 2 and other.stderr.startswith(f"zoo: port {port} of 127.0.0.1 is in use")
    assert server.end() == (0, "")
