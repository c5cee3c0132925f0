"""An animation that is not valid costs only itself; its reason is in `Animation.fault`, the notes and the plan."""

from __future__ import annotations

import numpy as np
import pytest
from sample_assets import CASES
from tiny_gltf import TinyGltf, moving

from factory.clips.plan import ClipRecipe, plan_asset
from renderers import gltf

RECIPE = ClipRecipe(num_frames=8, views=2, resolution=32)


def two_animations() -> TinyGltf:
    """Animation 0 is to be damaged; animation 1 moves the node by 3 m in 1 s."""
    tiny = moving("translation", [0, 0.5, 1], [[0, 0, 0], [1, 0, 0], [2, 0, 0]])
    tiny.animation((0, "translation", [0, 1], [[0, 0, 0], [3, 0, 0]]))
    return tiny


def damage(tiny: TinyGltf, kind: str) -> str:
    """Damage animation 0; return the expected fault."""
    animation = tiny.json["animations"][0]
    sampler, channel = animation["samplers"][0], animation["channels"][0]
    zeros = [[0, 0, 0]] * 3
    if kind == "unsorted":
        sampler["input"] = tiny.accessor([0, 1, 0.5])
        return "its key times are not in ascending order"
    if kind == "short output":
        sampler["output"] = tiny.accessor(zeros[:2])
        return "its numbers of keys and of values differ"
    if kind == "spline without tangents":
        sampler["interpolation"] = "CUBICSPLINE"
        return "its numbers of keys and of values differ"
    if kind == "different duplicate":
        animation["samplers"].append({"input": sampler["input"], "output": tiny.accessor(zeros)})
        animation["channels"].append(channel | {"sampler": 1})
        return "two of its channels animate the same property differently"
    if kind == "NaN":
        sampler["output"] = tiny.accessor([[0, 0, 0], [np.nan, 0, 0], [0, 0, 0]])
        return "it contains NaN or infinity"
    if kind == "NaN time":
        sampler["input"] = tiny.accessor([0, np.nan, 1])
        return "it contains NaN or infinity"
    faults = {
        "no keys": lambda: tiny.json["accessors"][sampler["input"]].update(count=0),
        "interpolation": lambda: sampler.update(interpolation="BEZIER"),
        "no sampler": lambda: channel.update(sampler=9),
        "no output": lambda: sampler.pop("output"),
        "node out of range": lambda: channel["target"].update(node=77),
        "type": lambda: tiny.json["accessors"][sampler["output"]].update(type="VEC4"),
        "beyond the view": lambda: tiny.json["accessors"][sampler["output"]].update(byteOffset=1000),
        "channels no list": lambda: animation.update(channels={"sampler": 0}),
        "channel no object": lambda: animation.update(channels=[3]),
    }
    faults[kind]()
    return {"no keys": "its key times are not in ascending order"}.get(kind, "it is not valid glTF")


FAULTS = [
    "unsorted", "short output", "spline without tangents", "different duplicate", "NaN", "NaN time", "no keys",
    "interpolation", "no sampler", "no output", "node out of range", "type", "beyond the view", "channels no list",
    "channel no object",
]  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_a_bad_animation_costs_only_itself(kind):
    tiny = two_animations()
    assert not any(animation.fault for animation in gltf.load(tiny.glb()).animations)
    fault = damage(tiny, kind)
    asset = gltf.load(tiny.glb())
    assert [animation.fault for animation in asset.animations] == [fault, ""]
    assert asset.notes == (f"an animation is left out: {fault}",)
    shift = asset.positions(1, 1.0) - asset.positions(1, 0.0)
    np.testing.assert_allclose(shift, np.broadcast_to([3, 0, 0], shift.shape), atol=1e-6)
    clips, rejected = plan_asset(asset, "x", RECIPE)
    assert {clip.animation for clip in clips} == {1}
    assert [(item.animation, item.reason) for item in rejected] == [(0, fault)]


@pytest.mark.parametrize("kind", FAULTS)
def test_a_file_whose_only_animation_is_bad_is_refused(kind):
    tiny = two_animations()
    damage(tiny, kind)
    del tiny.json["animations"][1]
    with pytest.raises(gltf.GltfError, match=r"^thing.glb: .*(animations\[0\]|accessors\[\d+\])"):
        gltf.load(tiny.glb(), name="thing.glb")


def test_an_animation_above_the_limits_refuses_the_file():
    tiny = two_animations()
    tiny.json["accessors"][tiny.json["animations"][0]["samplers"][0]["input"]]["count"] = 10**8
    with pytest.raises(gltf.GltfError, match="expected at most"):
        gltf.load(tiny.glb())


def test_bad_animations_do_not_change_which_good_ones_are_drawn():
    recipe = ClipRecipe(num_frames=8, views=2, resolution=32, max_animations=2)
    tiny = two_animations()
    for step in range(4):
        tiny.animation((0, "translation", [0, 1], [[0, 0, 0], [0, step + 1, 0]]))
    damage(tiny, "unsorted")
    clips, rejected = plan_asset(gltf.load(tiny.glb()), "x", recipe)
    assert [item.animation for item in rejected] == [0]
    assert len({clip.animation for clip in clips}) == 2 and 0 not in {clip.animation for clip in clips}


def test_what_no_channel_uses_is_no_fault():
    """As in Blender and three.js: only the samplers of channels are read, and a channel may drive nothing."""
    for sampler in ({"input": 999, "output": 998}, {}, None):
        tiny = two_animations()
        tiny.json["animations"][0]["samplers"].append(sampler)
        tiny.json["animations"][0]["channels"].append({"sampler": 0, "target": {"path": "translation"}})
        asset = gltf.load(tiny.glb())
        assert [animation.fault for animation in asset.animations] == ["", ""] and asset.notes == ()
        np.testing.assert_allclose(asset.positions(0, 0.25)[0], [0.5, 0, 0])


def test_an_unknown_property_is_ignored_with_a_note():
    tiny = two_animations()
    tiny.json["animations"][0]["channels"].append({"sampler": 0, "target": {"node": 0, "path": "colour"}})
    asset = gltf.load(tiny.glb())
    assert asset.notes == ("an animated property is ignored: glTF has none of its name",)
    np.testing.assert_allclose(asset.positions(0, 0.25)[0], [0.5, 0, 0])


def test_identical_duplicates_are_no_fault():
    """By the same sampler, by another with the same accessors, and by accessors with equal numbers."""
    for copies in ("sampler", "accessors", "numbers"):
        tiny = two_animations()
        animation = tiny.json["animations"][0]
        sampler = animation["samplers"][0]
        if copies == "accessors":
            animation["samplers"].append(dict(sampler))
        if copies == "numbers":
            output = tiny.accessor([[0, 0, 0], [1, 0, 0], [2, 0, 0]])
            animation["samplers"].append({"input": tiny.accessor([0, 0.5, 1]), "output": output})
        channel = animation["channels"][0]
        animation["channels"].append(channel | {"sampler": len(animation["samplers"]) - 1})
        asset = gltf.load(tiny.glb())
        assert (asset.animations[0].fault, asset.animations[0].channels, asset.notes) == ("", 1, ())
        assert asset.positions(0, 1.0)[:, 0].max() == pytest.approx(3)


def test_an_animation_that_starts_at_infinity_does_not_sink_one_that_shows_the_object():
    """At rest the object is a point; only the second animation gives it a finite size."""
    tiny = moving("scale", [0, 1], [[1e30] * 3] * 2, scale=[0, 0, 0])
    tiny.json["nodes"][0]["mesh"] = tiny.mesh(np.array([[0, 0, 0], [1e20, 0, 0], [0, 1e20, 0]]), [[0, 1, 2]])
    tiny.animation((0, "scale", [0, 1], [[1e-20] * 3, [2e-20] * 3]))
    assert gltf.load(tiny.glb()).positions(1, 1.0).max() == pytest.approx(2)


def test_the_cases():
    asset = gltf.load(CASES / "A10_unsorted_keys_and_a_good_animation.glb")
    assert [(a.name, bool(a.fault)) for a in asset.animations] == [("bad", True), ("good", False)]
    assert np.abs(asset.positions(1, 1.0) - asset.positions(1, 0.0)).max() > 0.1
    asset = gltf.load(CASES / "A11_identical_duplicate_channel.glb")
    assert [(a.fault, a.channels, a.duration) for a in asset.animations] == [("", 1, 2.0)]
    assert asset.notes == ()
