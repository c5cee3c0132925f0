"""Pages of motions: what they store, what they show as text, and that they are small. The browser: test_browser.py."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from graph_motions import animated
from PIL import Image
from tiny_dimo import SENTENCES, tiny_pipeline

import zoo
from zoo.export.html import read_page
from zoo.export.html.arrays import pack, unpack

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{block}} \u202egnp.exe \x1b[2J"


@pytest.fixture(scope="module")
def egg():
    return tiny_pipeline()


class Page(HTMLParser):
    """Elements, attributes and texts of a page, as a browser parses them."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements, self.open = [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_data(self, data):
        if self.elements:
            self.elements[-1][2].append(data)

    def text(self, tag: str) -> str:
        return "".join(next(texts for name, _, texts in self.elements if name == tag)).strip()


def test_arrays_are_stored_within_half_a_step():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 5, 7, 4)) * [1, 1e-3, 50, 0] + [0, 1, -7, 2.5]
    indices = generator.integers(0, 65536, (50, 4))
    arrays = {"a": values, "b": indices, "c": values, "none": np.zeros((0, 3))}
    description, block = pack(arrays, {"a": 1, "b": 0})
    read = unpack(json.loads(json.dumps(description)), block)
    half = np.ptp(values.reshape(-1, 4), axis=0) / 65535 / 2
    for name in "ac":
        assert (np.abs(read[name] - values) <= half * 1.0001 + 1e-15).all()
    assert (read["b"] == indices).all() and read["none"].shape == (0, 3)
    with pytest.raises(ValueError, match=r"0\.\.65535"):
        pack({"a": np.array([[65536]])})


def decoded(arrays: dict, motion: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres [N, 3] and blended quaternions [N, 4] from the arrays of a page, by the sum over key points."""
    positions, rotations = arrays["motion"][motion, frame, :, :3], arrays["motion"][motion, frame, :, 3:]
    w, v = rotations[:, :1] / np.linalg.norm(rotations, axis=1, keepdims=True), None
    v = rotations[:, 1:] / np.linalg.norm(rotations, axis=1, keepdims=True)
    joints = arrays["joints"].astype(int)
    offset = arrays["means"][:, None] - arrays["rest"][joints]  # x − p_k
    axis, real = v[joints], w[joints]
    turned = offset + 2 * np.cross(axis, np.cross(axis, offset) + real * offset)  # q (x − p) q⁻¹
    weights = arrays["weights"][..., None]
    return (weights * (turned + positions[joints])).sum(1), (weights * rotations[joints]).sum(1)


@pytest.mark.parametrize("factorised", [True, False])
def test_a_page_holds_the_motion(tmp_path, factorised):
    motion = tiny_pipeline(factorised=factorised).motion(2).resampled(5)
    scene, arrays = read_page(motion.save(tmp_path / "hop.html"))
    gaussians = motion.gaussians()
    assert scene["names"] == [motion.name] and arrays["motion"].shape[:2] == (1, 5)
    assert np.allclose(scene["phases"], [0, 8 / 9]) and scene["seconds"] == 2
    for frame in range(5):
        centres, turns = decoded(arrays, 0, frame)
        assert np.abs(centres - gaussians.means[frame].numpy()).max() < 1e-4  # of an object of 0.8 m
        expected = gaussians.quats[frame].double().numpy()
        own = arrays["quats"]
        product = np.concatenate(
            [
                turns[:, :1] * own[:, :1] - (turns[:, 1:] * own[:, 1:]).sum(1, keepdims=True),
                turns[:, :1] * own[:, 1:] + own[:, :1] * turns[:, 1:] + np.cross(turns[:, 1:], own[:, 1:]),
            ],
            1,
        )
        cosine = (
            (product * expected).sum(1) / np.linalg.norm(product, axis=1) / np.linalg.norm(expected, axis=1)
        )
        assert np.abs(cosine).min() > 1 - 1e-7
    assert np.abs(np.exp(arrays["log_scales"]) / gaussians.scales[0].numpy() - 1).max() < 1e-4
    for name in ("opacities", "colors"):
        stored, expected = arrays[name].reshape(-1), getattr(gaussians, name)[0].numpy().reshape(-1)
        assert np.abs(stored - expected).max() < 1e-4


def test_frames_of_a_page(egg, tmp_path):
    def frames(motion, **options: object) -> int:
        return read_page(motion.save(tmp_path / "a.html", **options))[1]["motion"].shape[1]

    assert frames(egg.motion(0)) == round(8 / 9 * 2 * 24) + 1  # 24 per second
    assert frames(egg.motion(0).resampled(7)) == 7
    assert frames(egg.motion(0), frames=1) == 1


def test_a_further_motion_costs_little(egg, tmp_path):
    single, all_of_them = tmp_path / "one.html", tmp_path / "all.html"
    egg.sample(3).save(single)
    egg.sample(3).save(all_of_them, motions="all")
    scene, arrays = read_page(all_of_them)
    assert scene["names"] == ["sample 3", *SENTENCES]
    for index in range(len(SENTENCES)):
        motion = egg.motion(index).at(egg.sample(3).resampled(44).phases)
        expected = torch.cat(list(motion.trajectories), -1).numpy()
        assert np.abs(arrays["motion"][index + 1] - expected).max() < 1e-4
    trajectory = 44 * 24 * 7 * 2  # bytes of 16-bit integers, before compression
    assert all_of_them.stat().st_size - single.stat().st_size < 6 * trajectory * 4 / 3
    named = [egg.interpolate(0, 1, 3)[1], SENTENCES[4], 2, -1]
    scene, _ = read_page(egg.motion(2).save(tmp_path / "some.html", motions=named))
    assert scene["names"] == [SENTENCES[2], named[0].name, SENTENCES[4], SENTENCES[5]]  # itself only once
    with pytest.raises(ValueError, match="of one model"):
        egg.motion(0).save(tmp_path / "new.html", motions=[tiny_pipeline(1).motion(0)])
    assert not (tmp_path / "new.html").exists()


def test_a_bundled_model_is_a_small_page(tmp_path):
    path = zoo.load("bundled:dimo/kangaroo").motion(0).save(tmp_path / "hop.html")
    # Eight key points for each of 6 000 discs, and the gradients of their weights, are 0.5 MB of it.
    assert 100e3 < path.stat().st_size < 800e3


@pytest.mark.parametrize("name", ["rigged", "crowded"])
def test_a_page_of_a_mesh_holds_the_motion(tmp_path, name):
    """The vertices that the browser computes from nodes and weights are those of `Animation.vertices`."""
    animation = animated(name, influences=3)
    asset = animation.model.asset
    scene, arrays = read_page(animation.save(tmp_path / "wave.html", fps=8))
    assert scene["names"] == ["wave"] and scene["seconds"] == 1.5 and arrays["motion"].shape[:2] == (1, 13)
    size = np.ptp(asset.positions(None, 0.0)[asset.visible], axis=0).max()
    expected = animation.vertices()
    for frame in range(13):
        centres, _ = decoded(arrays, 0, frame)
        assert np.abs(centres - expected[frame]).max() < 1e-4 * size
    assert np.abs(arrays["normals"] - asset.pose(None, 0.0).normals).max() < 1e-4
    drawn = [arrays[draw["triangles"]] @ [65536, 1] for draw in scene["draws"]]
    corners = np.sort(np.concatenate(drawn))
    assert (corners == np.sort(np.concatenate([p.triangles.reshape(-1) for p in asset.primitives]))).all()
    for draw in scene["draws"]:
        for texture in draw["textures"].values():
            data = arrays[texture["image"]].astype(np.uint8).tobytes()
            assert data.startswith(b"\x89PNG") and Image.open(io.BytesIO(data)).size[0] > 0
    # 24 frames a second unless chosen, and a page with one frame of a model that does not move.
    assert read_page(animation.save(tmp_path / "b.html"))[1]["motion"].shape[1] == 37
    still = animation.trim(0, 1e-3)
    still = replace(still, motion=replace(still.motion, **{
        name: getattr(still.motion, name)[:1] for name in ("times", "positions", "rotations")}))  # fmt: skip
    assert read_page(still.save(tmp_path / "c.html"))[1]["motion"].shape[1] == 1


def test_a_page_of_a_mesh_is_as_safe(tmp_path):
    animation = replace(animated("rigged"), name=HOSTILE)
    path = animation.save(tmp_path / "a.html", background=0.5)
    shown = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    page, text = Page(path), path.read_text()
    assert page.text("title") == page.text("h1") == shown and read_page(path)[0]["names"] == [shown]
    scripts = [attributes.get("type") for tag, attributes, _ in page.elements if tag == "script"]
    assert scripts == ["application/json", "text/plain", None]
    assert "default-src 'none'" in text and "'unsafe" not in text and "://" not in text
    assert list(read_page(path)[0]["background"].values()) == [[0.5] * 3] * 2
    assert path.read_bytes() == animation.save(tmp_path / "b.html", background=0.5).read_bytes()
    for options in ({"fps": 0}, {"fps": 1e9}, {"background": "red"}, {"motions": "all"}):
        with pytest.raises((TypeError, ValueError), match=r"Animation\.save: "):
            animation.save(tmp_path / "c.html", **options)
    assert not (tmp_path / "c.html").exists()


def test_background(egg, tmp_path):
    def colors(**options: object) -> list:
        scene, _ = read_page(egg.motion(0).save(tmp_path / "a.html", frames=2, **options))
        return list(scene["background"].values())

    light, dark = colors()
    assert light == [1, 1, 1] and max(dark) < 0.2
    assert colors(background=0.5) == [[0.5] * 3] * 2
    assert colors(background=(255, 0, 51)) == [[1, 0, 0.2]] * 2


def test_texts_of_others_stay_texts(egg, tmp_path):
    motion = replace(egg.motion(0), name=HOSTILE, object_name=HOSTILE, trained=(HOSTILE,) * 6)
    path = motion.save(tmp_path / "hop.html", frames=2, motions="all")
    page = Page(path)
    shown = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    assert page.text("title") == page.text("h1") == shown
    scripts = [attributes.get("type") for tag, attributes, _ in page.elements if tag == "script"]
    assert scripts == ["application/json", "text/plain", None] and not any(
        t == "img" for t, *_ in page.elements
    )
    assert not any(name.startswith("on") for _, attributes, _ in page.elements for name in attributes)
    scene, _ = read_page(path)
    assert scene["names"] == [shown] * 6
    long = replace(motion, name="x" * 10_000).save(tmp_path / "long.html", frames=2)
    assert len(Page(long).text("h1")) == 300


def test_a_page_requests_nothing(egg, tmp_path):
    text = egg.motion(0).save(tmp_path / "hop.html", frames=2).read_text()
    assert "default-src 'none'" in text and "'unsafe" not in text
    assert not re.search(
        r"https?:|\bimport\b\s*[({'\"]|fetch\(|XMLHttpRequest|//[a-z]+\.[a-z]+/", text.replace("block", "")
    )


def test_the_same_motion_gives_the_same_page(egg, tmp_path):
    pages = [egg.motion(1).save(tmp_path / name, motions="all").read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_another_page_is_refused(tmp_path):
    (tmp_path / "a.html").write_text("<p>hello")
    with pytest.raises(ValueError, match="no scene"):
        read_page(tmp_path / "a.html")
