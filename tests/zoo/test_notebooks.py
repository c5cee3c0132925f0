"""Results in notebooks: a looping preview and the facts, small, with all texts escaped."""

from __future__ import annotations

import base64
import copy
import io
import pickle
from dataclasses import replace
from html.parser import HTMLParser

import fsspec
import numpy as np
import pytest
import torch
from graph_motions import crowded, graph_motion
from PIL import Image
from sample_clips import FPS, clip_info, disc_clip
from tiny_dimo import tiny_pipeline

import factory
import zoo
from factory.dataset.schema import make_row
from renderers.meshes import RenderError
from zoo.animate3d import Animation, load_model
from zoo.mvvdm.images import MVVDMOutput
from zoo.notebook import card, preview

HOSTILE = "<script>alert(1)</script><img src=x onerror=\"alert(2)\"> & 'x' \u202egnp.exe"
LARGEST = 300_000


class Shown(HTMLParser):
    """Tags, text and pictures of an HTML fragment, as a browser parses it."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        assert len(html) <= LARGEST
        self.tags, self.text, self.images = [], "", []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "img":
            source = dict(attrs)["src"]
            assert source.startswith("data:image/webp;base64,")  # nothing is fetched
            self.images.append(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))))
            self.images[-1].load()  # reads the duration

    def handle_data(self, data):
        self.text += data + "\n"


def frames_of(image: Image.Image) -> np.ndarray:
    result = []
    for index in range(image.n_frames):
        image.seek(index)
        result.append(np.asarray(image.convert("RGB")))
    return np.stack(result)


def test_a_motion():
    motion = tiny_pipeline().motion(2)
    shown = Shown(motion._repr_html_())
    for words in (motion.name, "dimo/egg", "600", "24"):
        assert words in shown.text.split("\n")
    (image,) = shown.images
    assert image.info["loop"] == 0 and image.n_frames == 9
    rendered = motion.render(motion.default_camera(192))[0]
    error = frames_of(image).astype(float) - rendered
    assert -10 * np.log10(np.mean((error / 255) ** 2)) > 25
    assert abs(image.info["duration"] - 1000 / motion.fps) <= 1


def test_a_motion_that_cannot_be_rendered_has_its_facts():
    motion = tiny_pipeline().motion(2)
    broken = copy.deepcopy(motion.model)
    with torch.no_grad():
        broken.means.fill_(float("nan"))
    shown = Shown(replace(motion, model=broken)._repr_html_())
    assert "600" in shown.text and not shown.images


def crowd(name: str = "wave") -> Animation:
    model = load_model(crowded().glb(), name="crowd")
    return Animation(model, graph_motion(model.asset), name)


def test_an_animation(monkeypatch):
    animation = crowd()
    shown = Shown(animation._repr_html_())
    frames, vertices = len(animation.motion.times), animation.model.asset.num_vertices
    for words in ("wave", "crowd", str(frames), f"{animation.duration:.3g}", str(vertices)):
        assert words in shown.text.split("\n")
    (image,) = shown.images
    assert image.info["loop"] == 0 and image.n_frames == min(frames, 24)
    error = frames_of(image).astype(float) - animation.render(animation.default_camera(192))[0]
    assert -10 * np.log10(np.mean((error / 255) ** 2)) > 25
    assert abs(image.info["duration"] - 1000 / animation.fps) <= 1

    def no_renderer(*_: object, **__: object) -> None:
        raise RenderError("OpenGL is missing")

    monkeypatch.setattr(Animation, "render", no_renderer)
    shown = Shown(animation._repr_html_())
    assert "crowd" in shown.text.split("\n") and not shown.images


@pytest.mark.parametrize("kind", ["uint8", "np", "pt"])
def test_videos(kind):
    frames = np.random.default_rng(0).integers(0, 255, (4, 8, 32, 32, 3), np.uint8)
    values = {"uint8": frames, "np": frames / np.float32(255)}
    values["pt"] = torch.from_numpy(values["np"].transpose(0, 1, 4, 2, 3))
    (image,) = Shown(MVVDMOutput(frames=values[kind])._repr_html_()).images
    assert image.size == (4 * 32, 32) and image.n_frames == 8 and image.info["duration"] == 250


def test_latents_and_pictures_have_no_preview():
    for frames in (torch.zeros(4, 8, 4, 16, 16), [[Image.new("RGB", (8, 8))] * 8] * 4):
        shown = Shown(MVVDMOutput(frames=frames)._repr_html_())
        assert "MV-VDM" in shown.text and not shown.images


def write_clip(folder, **changes: object) -> None:
    with factory.ShardPacker(str(folder)) as packer:
        row = make_row(disc_clip(frames=8), clip_info(**changes))
        with fsspec.open(f"{folder}/{factory.staged_path('a')}", "wb", auto_mkdir=True) as file:
            file.write(factory.write_row(row))
        packer.planned(0, ["a"])
        packer.finished("a", committed=True)


def test_a_clip(tmp_path):
    write_clip(tmp_path, clip_id="a")
    clip = factory.load_clips(tmp_path)[0]
    shown = Shown(clip._repr_html_())
    for words in ("Disc", "Ada", "CC-BY-4.0", "https://example.org/disc", "roll"):
        assert words in shown.text.split("\n")
    assert "16 views, 8 frames of 64×64 at 24 fps" in shown.text
    (image,) = shown.images
    expected = clip.read(views=[2], background=(127, 127, 127)).frames[0, ::2]
    assert image.n_frames == 4 and abs(image.info["duration"] - 2000 / FPS) <= 1
    assert np.abs(frames_of(image).astype(int) - expected).mean() < 6


def test_a_damaged_clip_is_named(tmp_path):
    write_clip(tmp_path, clip_id="a")
    clip = factory.load_clips(tmp_path)[0]
    for file in tmp_path.rglob("*.parquet"):
        file.write_bytes(b"PAR1" + bytes(2000) + b"PAR1")
    assert "cannot be read" in Shown(clip._repr_html_()).text


def test_models():
    names = zoo.list_models("bundled:*")
    shown = Shown(names._repr_html_())
    assert len(shown.images) == len(names) and all(image.n_frames > 4 for image in shown.images)
    for name in names:
        assert name in shown.text.split("\n") and zoo.info(name).card["title"] in shown.text


def test_the_list_of_models_stays_a_list(tmp_path):
    names = zoo.list_models("dimo/*")
    names_of = "bird cat crab drop fish flower fox human jellyfish kangaroo robot snake"
    plain = [f"dimo/{name}" for name in names_of.split()]
    assert isinstance(names, list) and names == plain and repr(names) == repr(plain)
    assert pickle.loads(pickle.dumps(names)) == copy.deepcopy(names) == names
    assert "<tbody></tbody>" in zoo.list_models("none/*", home=tmp_path)._repr_html_()


def test_many_and_damaged_models_are_listed(tmp_path):
    zoo.publish(tiny_pipeline(), "local:dimo/egg", home=tmp_path)
    names = zoo.list_models("local:*", home=tmp_path)
    (zoo.info(names[0], home=tmp_path).folder / "metrics.json").write_text("damaged")
    assert names == ["local:dimo/egg"] and "local:dimo/egg" in Shown(names._repr_html_()).text
    many = type(names)(f"hub:org/model-{i}" for i in range(5000))
    shown = Shown(many._repr_html_())  # nothing is asked of the hub
    assert "hub:org/model-0" in shown.text and "4800 more" in shown.text


def test_texts_of_others_stay_texts(tmp_path):
    write_clip(tmp_path / "clips", clip_id="a", title=HOSTILE, author=HOSTILE, animation_name=HOSTILE)
    motion = replace(tiny_pipeline().motion(0), name=HOSTILE, object_name=HOSTILE)
    egg = tiny_pipeline()
    egg.provenance["licence"], egg.object = "CC0-1.0", HOSTILE
    zoo.publish(egg, "local:dimo/egg", home=tmp_path)
    names = zoo.list_models("local:*", home=tmp_path)
    clip = factory.load_clips(tmp_path / "clips")[0]
    for html in (
        motion._repr_html_(),
        clip._repr_html_(),
        names._repr_html_(),
        crowd(HOSTILE)._repr_html_(),
        card(HOSTILE, {HOSTILE: HOSTILE}),
    ):
        shown = Shown(html)
        assert "script" not in shown.tags and shown.tags.count("img") <= 1
        assert HOSTILE.replace("\u202e", "\\u202e") in shown.text and "\u202e" not in html
    assert len(card("x" * 100_000, {"y" * 100_000: "z" * 100_000})) < 2000


def test_previews_stay_small():
    noise = np.random.default_rng(0).integers(0, 255, (100, 192, 192, 3), np.uint8)
    file = preview(noise, 24, largest=50_000)
    image = Image.open(io.BytesIO(file))
    assert len(file) <= 50_000 and image.n_frames > 1
    single = Image.open(io.BytesIO(preview(noise[:1], 24)))
    assert single.size == (192, 192)
