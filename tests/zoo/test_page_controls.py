"""Keyboard, limits, clock, colour scheme and lost WebGL contexts of the viewer and of saved pages, in Chromium."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from browser import browser
from PIL import Image
from tiny_dimo import tiny_pipeline

import zoo

pytestmark = pytest.mark.slow
LIMIT = np.pi / 2 - 1e-3


def key(name: str) -> list:
    """Press a key in the picture."""
    return ["press", "canvas[tabindex='0']", name]


def event(kind: str, fields: str = "{}") -> list:
    return [
        "evaluate",
        f"document.querySelector(\"canvas[tabindex='0']\").dispatchEvent(new {kind}({fields}))",
    ]


def wheel(delta: int) -> list:
    return event("WheelEvent", f"'wheel', {{ deltaY: {delta}, cancelable: true }}")


def corner(png: str) -> list[int]:
    data = base64.b64decode(png.split(",")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[2, 2].tolist()


def pixels(png: str) -> np.ndarray:
    data = base64.b64decode(png.split(",")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def chromium():
    return browser()


# Expressions that differ between the viewer and a saved page: camera, state, clock, picture.
VIEWER = {
    "view": "[viewer.orbit.azimuth, viewer.orbit.elevation, 1 / viewer.orbit.zoom]",
    "turn": "viewer.orbit.look({ elevation: %s })",
    "set": "viewer.set(%s)",
    "frame": "viewer.state.fraction * (viewer.lead.motion.frames - 1)",
    "frames": "viewer.lead.motion.frames",
    "step": "(time) => { cancelAnimationFrame(viewer.scheduled); viewer.scheduled = 1; viewer.step(time); }",
    "spacing": "viewer.lead.motion.seconds / (viewer.lead.motion.frames - 1)",
    "still": "viewer.state.playing",
    "page": "viewer",
    "canvas": "viewer.panes[0].canvas",
    "draw": "viewer.draw()",
}
SAVED = {
    "view": "[player.view.azimuth, player.view.elevation, player.view.distance / player.scene.camera.distance]",
    "turn": "player.look({ elevation: %s })",
    "set": "player.set(%s)",
    "frame": "Math.min(player.state.frame, player.frames - 1)",
    "frames": "player.frames",
    "step": "(time) => { cancelAnimationFrame(player.scheduled); player.scheduled = 1; player.step(time); }",
    "spacing": "player.spacing",
    "still": "player.state.playing",
    "page": "player",
    "canvas": "player.canvas",
    "draw": "player.draw()",
}


@pytest.fixture(scope="module", params=["viewer", "saved page"])
def opened(request, chromium, tmp_path_factory):
    """(expressions of the page, a function that runs actions in it)."""
    model = tiny_pipeline()
    if request.param == "viewer":
        with zoo.view(model, open_browser=False, block=False) as running:
            yield VIEWER, _checked(chromium, running.url, "window.viewer?.ready")
    else:
        page = model.motion(0).save(tmp_path_factory.mktemp("page") / "hop.html", motions="all")
        yield SAVED, _checked(chromium, page, "window.player")


def _checked(chromium, page, ready: str):
    def run(actions: list, **context) -> list:
        out = chromium(page, actions, ready=ready, **context)
        assert [
            line for line in out["logs"] if not re.search("CONTEXT_LOST|context (lost|restored)", line)
        ] == []
        return out["results"]

    return run


def evaluate(expression: str) -> list:
    return ["evaluate", expression]


def test_keys_turn_and_pause(opened):
    page, run = opened
    view, playing = evaluate(page["view"]), evaluate(page["still"])
    stop = evaluate(page["set"] % "{ playing: false }")
    out = run([stop, view, key("ArrowRight"), view, key("ArrowLeft"), view, key("ArrowUp"), view, key("ArrowDown"),
               view, playing, key(" "), playing, key(" "), playing, key("x"), view])  # fmt: skip
    start, right, back, up, down = (np.array(out[i]) for i in (1, 3, 5, 7, 9))
    assert right - start == pytest.approx([0.1, 0, 0]) and back == pytest.approx(start)
    assert up - start == pytest.approx([0, 0.1, 0]) and down == pytest.approx(start)
    assert (out[10], out[12], out[14]) == (False, True, False) and out[16] == pytest.approx(start.tolist())


def test_views_have_limits_and_a_double_click_resets(opened):
    page, run = opened
    view = evaluate(page["view"])
    out = run([view, evaluate(page["turn"] % 7), view, evaluate(page["turn"] % -7), view,
               *[wheel(1000)] * 15, view, *[wheel(-1000)] * 30, view,
               event("MouseEvent", "'dblclick'"), view])  # fmt: skip
    start, above, below, far, near, again = (out[i] for i in (0, 2, 4, 20, 51, 53))
    assert above[1] == pytest.approx(LIMIT) and below[1] == pytest.approx(-LIMIT)
    assert far[2] == pytest.approx(8) and near[2] == pytest.approx(1 / 8) and again == start


def test_one_wheel_step_is_bounded(opened):
    page, run = opened
    view = evaluate(page["view"])
    out = run([view, wheel(5000), view, wheel(-5000), view, wheel(50), view])
    assert out[2][2] == pytest.approx(np.exp(0.2)) and out[4][2] == pytest.approx(1)
    assert out[6][2] == pytest.approx(np.exp(0.1))


def test_the_clock_runs_at_its_speed_and_starts_again(opened):
    """Steps of 50 ms: frames advance by speed × time / spacing; the last frame is shown for as long as the others."""
    page, run = opened
    simulated = """((speed, start, steps) => {
      %(set)s;
      const step = %(step)s, frames = [];
      for (let n = 0; n <= steps; n++) { step(1e7 + 50 * n); frames.push(%(frame)s); }
      const result = { frames, count: %(frames)s, spacing: %(spacing)s };
      %(stop)s;
      return result;
    })(%(values)s)"""

    def advance(speed: float, steps: int = 40) -> list:
        names = {name: page[name] for name in ("step", "frame", "frames", "spacing")}
        pause = page["set"] % "{ playing: false, phase: 0 }"
        begin = f"{pause}; ({page['step']})(0); {page['set'] % f'{{ playing: true, speed: {speed} }}'}"
        return evaluate(simulated % {**names, "set": begin, "stop": pause, "values": f"{speed}, 0, {steps}"})

    for speed, result in zip((1, 2, 0.25), run([advance(1), advance(2), advance(0.25)]), strict=True):
        ideal = (np.arange(41) * 0.05 * speed / result["spacing"]) % result["count"]
        assert result["frames"] == pytest.approx(np.minimum(ideal, result["count"] - 1), abs=1e-3)


def test_the_slider_sets_the_phase_and_stops(opened):
    page, run = opened
    slide = """(() => {
      const slider = document.getElementById("phase");
      slider.value = Number(slider.min) + 0.75 * (slider.max - slider.min);
      slider.dispatchEvent(new Event("input"));
    })()"""
    out = run([evaluate(page["set"] % "{ playing: true }"), evaluate(slide), evaluate(page["frame"]),
               evaluate(page["frames"]), evaluate(page["still"])])  # fmt: skip
    assert out[2] == pytest.approx(0.75 * (out[3] - 1), abs=1e-3) and out[4] is False


def test_the_background_follows_the_colour_scheme(opened):
    """The page draws by itself when the scheme changes, also while it is paused."""
    page, run = opened
    pause = ["evaluate", "new Promise((done) => setTimeout(done, 300))"]
    keep = (
        f"(() => {{ const draw = {page['page']}.draw; {page['page']}.draw = function () {{ draw.call(this); "
    )
    keep += f"window.drawn = {page['canvas']}.toDataURL(); }}; }})()"
    drawn = [["wait", "window.drawn"], evaluate("[window.drawn, window.drawn = null][0]")]
    out = run([evaluate(page["set"] % "{ playing: false }"), pause, evaluate(keep), ["scheme", "dark"], *drawn,
               ["scheme", "light"], *drawn], colorScheme="light")  # fmt: skip
    assert corner(out[5]) == [22, 25, 30] and corner(out[8]) == [255, 255, 255]


def test_a_lost_context_is_drawn_again(opened):
    page, run = opened
    gl = f"{page['canvas']}.getContext('webgl2').getExtension('WEBGL_lose_context')"
    picture = f"(() => {{ {page['draw']}; return {page['canvas']}.toDataURL(); }})()"
    pause = ["evaluate", "new Promise((done) => setTimeout(done, 300))"]
    out = run([evaluate(page["set"] % "{ playing: false, phase: 0.4 }"), pause, evaluate(picture),
               evaluate(f"void (window.lose = {gl}, lose.loseContext())"), pause,
               evaluate("lose.restoreContext()"), pause, evaluate(picture)], colorScheme="light")  # fmt: skip
    before, after = pixels(out[2]), pixels(out[7])
    assert before.min() < 250 and np.array_equal(before, after)
