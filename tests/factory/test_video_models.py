"""Image-to-video models: tiny pipelines of diffusers' own classes, from image and sentence to frames."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_video_models import BUILDERS, save_tiny

from factory.generation.video_models import (
    ADAPTERS,
    CHECKPOINTS,
    PRESETS,
    VideoModelError,
    load_video_model,
    plan_cost,
)
from factory.generation.video_models import loading as loading_module
from factory.generation.video_models.adapters import by_name
from factory.generation.video_models.checkpoints import licence_of
from factory.generation.video_models.images import FrameConverter, Placement, pad, place, shape_like
from factory.generation.video_models.placement import CardPreset, apply_preset, preset_for
from factory.generation.video_models.tables import adapter_table, checkpoint_table, preset_table
from zoo.errors import OptionError

HEIGHT, WIDTH = 24, 40
# Size that the tiny models generate where the option is needed, because their rules are those of the large models.
SIZES = {"wan-2.1": (32, 64), "wan-2.2": (32, 64), "wan-2.2-5b": (32, 64), "ltx": (32, 64), "svd": (64, 128)}
FPS = {
    "cogvideox": 8,
    "cogvideox-1.5": 16,
    "wan-2.1": 16,
    "wan-2.2": 16,
    "wan-2.2-5b": 24,
    "ltx": 25,
    "svd": 7,
    "hunyuan-1.5": 24,
}
QUICK = ("cogvideox", "wan-2.1", "ltx")
OTHERS = ("cogvideox-1.5", "wan-2.2", "wan-2.2-5b", "svd", "hunyuan-1.5")
EACH = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("video-models")


@pytest.fixture
def image() -> np.ndarray:
    """A red square on grey."""
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    image[8:16, 12:28] = (200, 30, 30)
    return image


def load(name: str, home: Path, **options):
    options = {"steps": 2, "frames": 9, "size": SIZES.get(name), "quiet": True, "device": "cpu", **options}
    return load_video_model(str(save_tiny(name, home)), **options)


# --- whole pipelines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EACH)
def test_a_pipeline_makes_a_video_of_the_images_size(name, home, image):
    model = load(name, home)
    assert model.adapter.name == name
    video = model.generate(image, "hops twice", 7)
    assert video.frames.shape == (9, HEIGHT, WIDTH, 3) and video.frames.dtype == np.uint8
    assert video.fps == FPS[name] == model.fps
    assert np.array_equal(video.frames[0], image)
    assert all(len(np.unique(frame)) > 8 for frame in video.frames[1:])
    again, other = model.generate(image, "hops twice", 7), model.generate(image, "hops twice", 8)
    assert np.array_equal(again.frames, video.frames)
    assert again.provenance["digest"] == video.provenance["digest"]
    assert (other.frames[1:] != video.frames[1:]).mean() > 0.3
    assert other.provenance["digest"] != video.provenance["digest"]
    known = json.loads(json.dumps(video.provenance))
    expected = {
        "model": name,
        "seed": 7,
        "sentence": "hops twice",
        "frames": 9,
        "licence": "unknown",
        "fps": FPS[name],
    }
    assert expected.items() <= known.items()
    assert known["pipeline"] == type(model.pipeline).__name__ and known["first_frame_error"] > 0
    assert known["text"] == (
        "" if name == "svd" else "The object hops twice. The camera does not move. Plain background."
    )


@pytest.mark.parametrize("name", ["cogvideox", "cogvideox-1.5", "ltx", "wan-2.1"])
def test_the_frame_rule_is_that_of_the_pipeline(name, home, image):
    """With the rule's numbers, the pipeline returns exactly as many frames; the rest of a rounded number is cut off."""
    model = load(name, home, frames=12)
    video = model.generate(image, "hops", 0)
    step = {"cogvideox": 8, "cogvideox-1.5": 16, "ltx": 8, "wan-2.1": 4}[name]
    generated = {8: 17, 16: 17, 4: 13}[step]
    assert (len(video.frames), video.provenance["generated_frames"]) == (12, generated)
    assert generated == model.adapter.frames.count(12)


@pytest.mark.slow
def test_the_sentence_changes_the_video_where_the_model_takes_one(home, image):
    model = load("ltx", home)
    assert (model.generate(image, "hops", 0).frames != model.generate(image, "bows", 0).frames).mean() > 0.01
    silent = load("svd", home)
    assert np.array_equal(silent.generate(image, "hops", 0).frames, silent.generate(image, "bows", 0).frames)


@pytest.mark.slow
def test_guidance_reaches_the_pipeline(home, image):
    for name in ("ltx", "hunyuan-1.5"):
        weak, strong = (load(name, home, guidance=scale).generate(image, "hops", 0) for scale in (1.5, 30.0))
        assert not np.array_equal(weak.frames, strong.frames), name
        assert weak.provenance["digest"] != strong.provenance["digest"]


def test_the_first_frame_can_be_left_as_it_is(home, image):
    model = load("ltx", home, pin_first_frame=False)
    video = model.generate(image, "hops", 0)
    error = np.abs(video.frames[0].astype(float) - image).mean() / 255
    assert error > 0.01 and video.provenance["first_frame_error"] == pytest.approx(error, abs=1e-5)


def test_uint8_frames_are_those_of_diffusers(home, image):
    """Without padding and resizing, the frames are diffusers' own, rounded."""
    model = load("ltx", home, size=(32, 64), pin_first_frame=False)
    square = np.repeat(np.repeat(image[:16, :32], 2, 0), 2, 1)
    video = model.generate(square, "hops", 3)
    call = model._arguments(square, model._text("hops"), Placement(32, 64, 0, 0, 32, 64), 3)
    frames = model.pipeline(**call, output_type="np").frames[0]
    assert np.array_equal(video.frames, (frames * 255).round().astype(np.uint8))


def test_other_weights_of_one_name_give_another_digest(home, image, tmp_path):
    import shutil

    from diffusers import AutoencoderKLLTXVideo

    folder = tmp_path / "ltx"
    shutil.copytree(save_tiny("ltx", home), folder)
    vae = AutoencoderKLLTXVideo.from_pretrained(folder / "vae")
    with torch.no_grad():
        next(vae.decoder.parameters()).mul_(1.5)
    vae.save_pretrained(folder / "vae")
    other = load_video_model(str(folder), steps=2, frames=9, size=(32, 64), quiet=True, device="cpu")
    first = load("ltx", home)
    assert other.name == first.name and other.origin["weights"] != first.origin["weights"]
    assert load("ltx", home).origin == first.origin
    assert (
        other.generate(image, "hops", 0).provenance["digest"]
        != first.generate(image, "hops", 0).provenance["digest"]
    )


def test_the_video_processor_is_put_back_after_an_error(home, image, monkeypatch):
    model = load("ltx", home)
    before = model.pipeline.video_processor.postprocess_video
    monkeypatch.setattr(type(model.pipeline), "encode_prompt", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.generate(image, "hops", 0)
    assert model.pipeline.video_processor.postprocess_video == before


def test_values_that_are_not_finite_are_an_error(home, image):
    model = load("ltx", home)
    with torch.no_grad():
        next(model.pipeline.vae.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(VideoModelError, match="not finite"):
        model.generate(image, "hops", 0)


def test_other_versions_of_diffusers_are_reported(home, image):
    model = load("ltx", home)
    model.adapter = dataclasses.replace(model.adapter, arguments={"shift_of_the_moon": 1})
    with pytest.raises(
        VideoModelError, match=r"LTXImageToVideoPipeline of diffusers .* takes no shift_of_the_moon"
    ):
        model.generate(image, "hops", 0)


@pytest.mark.parametrize("name", ["ltx", pytest.param("cogvideox", marks=pytest.mark.slow)])
def test_a_small_card_streams_and_casts_weights(name, home, image):
    plain = load(name, home).generate(image, "hops", 0)
    model = load(name, home)
    preset = CardPreset(16, resident_gb=0, tiling=True, slicing=True, eight_bit=True)
    assert apply_preset(model.pipeline, preset, torch.device("cpu"))
    stored = {parameter.dtype for parameter in model.pipeline.transformer.parameters()}
    assert torch.float8_e4m3fn in stored and model.pipeline.vae.use_tiling and model.pipeline.vae.use_slicing
    small = model.generate(image, "hops", 0)
    difference = np.abs(small.frames.astype(float) - plain.frames).mean()
    assert 0 < difference < 12  # eight bits change a little


def test_streaming_alone_changes_nothing(home, image):
    plain = load("ltx", home).generate(image, "hops", 0)
    model = load("ltx", home)
    assert apply_preset(
        model.pipeline,
        dataclasses.replace(PRESETS[0], resident_gb=0, tiling=False, eight_bit=False),
        model.device,
    )
    assert np.array_equal(model.generate(image, "hops", 0).frames, plain.frames)


# --- rules ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted", "count"),
    [
        ("cogvideox", 1, 1), ("cogvideox", 2, 9), ("cogvideox", 49, 49), ("cogvideox", 200, 49),
        ("cogvideox-1.5", 21, 33), ("cogvideox-1.5", 81, 81), ("cogvideox-1.5", 162, 161), ("wan-2.1", 80, 81),
        ("wan-2.2-5b", 121, 121), ("ltx", 162, 169),
        ("ltx", 21, 25), ("hunyuan-1.5", 21, 21), ("svd", 21, 21), ("svd", 99, 25),
    ],
)  # fmt: skip
def test_frames_are_rounded_up_by_the_rule(name, wanted, count):
    assert by_name(name).frames.count(wanted) == count


def test_every_adapter_fits_its_class():
    """The class exists in diffusers, and takes the arguments that the table names with the defaults that it states."""
    import inspect

    import diffusers

    for adapter in ADAPTERS:
        call = inspect.signature(getattr(diffusers, adapter.pipeline).__call__).parameters
        names = {
            *adapter.guidance.more,
            *adapter.arguments,
            "image",
            "num_inference_steps",
            "generator",
            "output_type",
        }
        names |= {
            name for name in (adapter.frames.argument, adapter.guidance.scale, adapter.fps_argument) if name
        }
        names |= {"prompt", "negative_prompt"} if adapter.takes_text else set()
        names |= set() if adapter.size.mode == "buckets" else {"height", "width"}
        assert names <= set(call), adapter.name
        assert call["output_type"].default == adapter.output_type
        assert adapter.frames.default == adapter.frames.count(adapter.frames.default) <= adapter.frames.most
        assert adapter.size.height % adapter.size.multiple == adapter.size.width % adapter.size.multiple == 0
        default = call[adapter.frames.argument].default
        if adapter.name in ("cogvideox", "wan-2.1", "wan-2.2", "ltx", "hunyuan-1.5", "skyreels-2"):
            assert default == adapter.frames.default
        if adapter.fps_argument:
            assert call[adapter.fps_argument].default == adapter.fps


def test_every_checkpoint_has_an_adapter_and_a_licence():
    assert {checkpoint.adapter for checkpoint in CHECKPOINTS} <= {adapter.name for adapter in ADAPTERS}
    for checkpoint in CHECKPOINTS:
        assert checkpoint.restrictions or checkpoint.licence == "Apache-2.0"
        assert licence_of(checkpoint.name, None) == (checkpoint.licence, checkpoint.restrictions)


@pytest.mark.parametrize(
    ("front", "licence", "restricted"),
    [
        ("license: apache-2.0", "Apache-2.0", False),
        ("license: other\nlicense_name: my-own", "LicenseRef-my-own", True),
        ("license: 'Made Up'", "LicenseRef-Made-Up", True),
        ("tags: []", "unknown", True),
    ],
)
def test_the_licence_of_a_folder_is_that_of_its_card(tmp_path, front, licence, restricted):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n# A model\nlicense: mit\n")
    stated, restrictions = licence_of("folder", tmp_path)
    assert (stated, bool(restrictions)) == (licence, restricted)


def test_restrictions_are_printed_once_and_recorded(home, image, capsys):
    model = load("ltx", home, quiet=False)
    assert "Licence unknown" in capsys.readouterr().err
    assert "Licence unknown" in model.generate(image, "hops", 0).provenance["restrictions"][0]


# --- images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "target", "inside"),
    [
        ((24, 40), (32, 64), (0, 5, 32, 58)),
        ((64, 64), (48, 72), (0, 12, 48, 60)),
        ((48, 72), (48, 72), (0, 0, 48, 72)),
        ((10, 100), (64, 64), (29, 0, 35, 64)),
    ],
)
def test_an_image_is_fitted_into_the_models_picture(size, target, inside):
    spot = place(*size, *target)
    assert (spot.top, spot.left, spot.bottom, spot.right) == inside


def test_padding_continues_the_background_and_is_cropped_back():
    image = np.full((30, 30, 3), (10, 200, 90), np.uint8)
    image[10:20, 10:20] = 255
    image[0, 0] = 0  # the median is not moved by a few pixels
    spot = place(30, 30, 32, 64)
    padded = pad(image, spot)
    assert padded.shape == (32, 64, 3)
    assert (padded[:, : spot.left] == (10, 200, 90)).all() and (
        padded[:, spot.right :] == (10, 200, 90)
    ).all()
    video = torch.from_numpy(padded).permute(2, 0, 1)[None, :, None].float() / 127.5 - 1
    converter = FrameConverter(spot, 30, 30, 5)
    frames = converter(video.repeat(1, 1, 7, 1, 1))
    assert frames.shape == (1, 5, 30, 30, 3) and converter.generated == 7
    assert np.abs(frames[0, 3].astype(int) - image)[2:, 2:].mean() < 3


@pytest.mark.parametrize(
    ("height", "width", "area", "multiple", "expected"),
    [
        (480, 832, 480 * 832, 16, (480, 832)),
        (832, 480, 480 * 832, 16, (832, 480)),
        (512, 512, 480 * 832, 16, (624, 624)),
    ]
    + [(100, 100, 704 * 1280, 32, (928, 928)), (10, 1000, 64 * 64, 16, (16, 256))],
)
def test_the_shape_follows_the_images_aspect_ratio(height, width, area, multiple, expected):
    shape = shape_like(height, width, area, multiple)
    assert shape == expected and shape[0] % multiple == shape[1] % multiple == 0


@pytest.mark.slow
def test_a_large_video_is_held_twice_at_most():
    """49 frames of 720×480: beside the decoded tensor, the peak is the uint8 result and little else."""
    code = """
import resource, numpy as np, torch
from factory.generation.video_models.images import FrameConverter, Placement
video = torch.zeros(1, 3, 49, 480, 720, dtype=torch.bfloat16)
video += 0.5
FrameConverter(Placement(480, 720, 0, 0, 480, 720), 480, 720, 1)(video)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
frames = FrameConverter(Placement(480, 720, 0, 0, 480, 720), 480, 720, 49)(video)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(frames.nbytes, (after - before) * 1024, int(frames[0, 3, 5, 7, 1]))
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    held, grown, value = map(int, result.stdout.split())
    assert held == 49 * 480 * 720 * 3 and value == 191
    assert grown < 1.2 * held


# --- loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frame": 9}, "options frame: expected some of subject"),
        ({"frames": 0}, "frames"),
        ({"steps": 2.5}, "steps"),
        ({"size": (32,)}, "size"),
        ({"guidance": float("nan")}, "guidance"),
        ({"template": "hops"}, "template"),
        ({"template": "$sentence $mood"}, "template"),
        ({"card_gb": -1}, "card_gb"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(options, words):
    with pytest.raises((OptionError, TypeError, ValueError), match=words):
        load_video_model("nothing/there", **options)


def test_a_size_must_be_a_multiple_of_the_models(home, image):
    with pytest.raises(OptionError, match="multiples of 32 pixels"):
        load("ltx", home, size=(40, 64)).generate(image, "hops", 0)


@pytest.mark.parametrize(
    ("picture", "sentence", "seed", "words"),
    [
        (np.zeros((8, 8)), "hops", 0, r"image: expected uint8 \[H, W, 3\], got float64 \[8, 8\]"),
        (None, "hops", 0, "got NoneType"),
        (np.zeros((4, 40, 3), np.uint8), "hops", 0, "at least 8 pixels"),
        (np.zeros((8, 8, 3), np.uint8), " ", 0, "sentence"),
        (np.zeros((8, 8, 3), np.uint8), "x" * 401, 0, "sentence"),
        (np.zeros((8, 8, 3), np.uint8), "hops", -1, "seed"),
        (np.zeros((8, 8, 3), np.uint8), "hops", 1.5, "seed"),
    ],
)
def test_wrong_arguments_are_refused(home, picture, sentence, seed, words):
    with pytest.raises((OptionError, TypeError, ValueError), match=words):
        load("ltx", home).generate(picture, sentence, seed)


def test_folders_that_are_no_video_model_are_refused(tmp_path):
    with pytest.raises(OptionError, match="neither a folder nor a model on the hub"):
        load_video_model(str(tmp_path))
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(
        VideoModelError,
        match="no adapter for the pipeline StableDiffusionPipeline; expected one of CogVideoX",
    ):
        load_video_model(str(tmp_path))
    index.write_text(json.dumps({"_class_name": ["pipeline", "Evil"]}))
    (tmp_path / "pipeline.py").write_text("raise SystemExit('was run')")
    with pytest.raises(VideoModelError, match="with code of its own"):
        load_video_model(str(tmp_path))
    index.write_text(json.dumps({"_class_name": "LTXImageToVideoPipeline"}))
    with pytest.raises(VideoModelError, match="cannot be loaded"):
        load_video_model(str(tmp_path))


def test_pickled_weights_are_refused(home, tmp_path):
    import shutil

    folder = tmp_path / "ltx"
    shutil.copytree(save_tiny("ltx", home), folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save({"x": torch.zeros(1)}, folder / "vae" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(VideoModelError, match="cannot be loaded"):
        load_video_model(str(folder), quiet=True)


@pytest.mark.parametrize(("name", "package"), [("wan-2.1", "ftfy"), ("ltx", "accelerate")])
def test_a_missing_package_names_the_extra(home, monkeypatch, name, package):
    find = importlib.util.find_spec
    hidden = lambda each, *more: None if each == package else find(each, *more)  # noqa: E731
    monkeypatch.setattr(loading_module.importlib.util, "find_spec", hidden)
    with pytest.raises(
        VideoModelError, match=rf"needs the packages {package}: pip install 'menagerie4d\[generation\]'"
    ):
        load(name, home)


# --- cards and cost ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "preset"), [(8, 16), (16, 16), (23.6, 16), (24, 24), (47, 24), (80, 80), (141, 80)]
)
def test_the_preset_is_that_of_the_next_smaller_card(card, preset):
    assert preset_for(card, torch.device("cpu")).gb == preset
    assert preset_for(None, torch.device("cpu")).gb == 0


def test_the_plan_is_made_of_published_figures():
    plan = plan_cost("zai-org/CogVideoX-5b-I2V", 80, 60)
    videos = next(stage for stage in plan.stages if stage.stage == "videos")
    assert (videos.minutes, videos.basis) == (180.0, "published") and "A100" in videos.note  # 60 × 180 s
    assert plan.fits and plan.minutes == pytest.approx(180.2)
    small = plan_cost("Wan-AI/Wan2.2-TI2V-5B-Diffusers", 24, 60)
    assert small.minutes == pytest.approx(540.2) and small.fits
    unknown = plan_cost("zai-org/CogVideoX-5b-I2V", 24, 60)
    videos = next(stage for stage in unknown.stages if stage.stage == "videos")
    assert unknown.minutes is None and (videos.basis, videos.memory_gb) == ("unknown", 5.0)
    assert [stage.stage for stage in plan.stages] == [
        "prompts",
        "videos",
        "judge",
        "matte",
        "views",
        "assemble",
    ]
    assert all(stage.minutes is None for stage in plan.stages if stage.basis == "unknown")
    with pytest.raises(OptionError, match="no figures for other/model"):
        plan_cost("other/model", 24, 60)


def test_the_tables_of_the_page_are_those_of_the_code():
    page = (Path(__file__).parents[2] / "docs" / "video-models.md").read_text()
    for name, table in (
        ("adapters", adapter_table()),
        ("checkpoints", checkpoint_table()),
        ("presets", preset_table()),
    ):
        assert page.split(f"<!-- {name} -->\n")[1].split("\n<!-- end -->")[0] == table


def test_the_builders_cover_the_adapters():
    assert set(BUILDERS) == {adapter.name for adapter in ADAPTERS} - {"ltx-condition", "skyreels-2"}
