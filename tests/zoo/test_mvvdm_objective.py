"""What MV-VDM trains on and samples with, against the functions of diffusers and transformers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

pytest.importorskip("diffusers", reason="diffusers is not installed")

from diffusers.pipelines.free_init_utils import FreeInitMixin
from PIL import Image
from small_mvvdm import CONFIG, pictures, seeded, small_pipeline
from tiny_mvvdm import encode, examples

from zoo.mvvdm.autoencoder import PatchAutoencoder
from zoo.mvvdm.denoising import Denoising, encoder_of
from zoo.mvvdm.pipeline import MVVDMPipeline, mvvdm_scheduler
from zoo.mvvdm.schedule import signal_levels
from zoo.mvvdm.unet import MVVDMUNet


@pytest.fixture
def pipeline() -> MVVDMPipeline:
    return small_pipeline()


def clip(views: int = 3, frames: int = 4, size: int = 16) -> torch.Tensor:
    """Frames of one example that differ from each other, [1, V, T, 3, H, W] in -1..1."""
    return torch.rand(1, views, frames, 3, size, size, generator=seeded(5)) * 2 - 1


class Recorder(torch.nn.Module):
    """A network that records its inputs and predicts zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[torch.Tensor, ...]] = []

    def forward(self, *inputs):
        self.calls.append(inputs)
        return torch.zeros_like(inputs[0])


# --- the encoders of the training ----------------------------------------------------------------------


def test_latents_are_samples_of_the_posterior_times_the_scaling_factor(pipeline):
    """diffusers' own sample of the posterior, with the example's generator, times 0.18215 for this autoencoder."""
    frames = clip()
    with torch.no_grad():
        encoded = encoder_of(pipeline)(frames, ["hops"], [seeded(2)])
        posterior = pipeline.vae.encode(frames.flatten(0, 2)).latent_dist
        expected = posterior.sample(seeded(2)).view(1, 3, 4, 4, 8, 8) * 0.18215
    torch.testing.assert_close(encoded.latents, expected)
    assert torch.equal(encoded.text, pipeline.encode_prompt(["hops"]))


def test_the_network_is_trained_on_the_latents_that_the_sampler_decodes(pipeline):
    """`_decode` inverts the scale of the training's latents: without noise, the autoencoder's reconstruction."""
    frames = clip()
    pipeline.vae.config.scaling_factor = 0.5
    with torch.no_grad():
        encoded = encoder_of(pipeline)(frames, ["hops"], [seeded(2)])
        sampled = pipeline.vae.encode(frames.flatten(0, 2)).latent_dist.sample(seeded(2))
        expected = (pipeline.vae.decode(sampled).sample / 2 + 0.5).clamp(0, 1)
        decoded = pipeline._decode(encoded.latents[0], "pt", 16)
    torch.testing.assert_close(decoded.flatten(0, 1), expected, atol=1e-5, rtol=1e-4)


def test_the_ip_adapter_is_trained_on_the_first_frame_of_each_view(pipeline):
    """CLIP's embeddings of the same pixels, as 8-bit images, and not those of another frame."""
    frames = clip()
    encoded = encoder_of(pipeline)(frames, ["hops"], [seeded(2)])

    def embedding(frame: int) -> torch.Tensor:
        pixels = ((frames[0, :, frame] + 1) * 127.5).round().byte().movedim(1, -1).numpy()
        inputs = pipeline.feature_extractor([Image.fromarray(image) for image in pixels], return_tensors="pt")
        with torch.no_grad():
            return pipeline.image_encoder(inputs.pixel_values).image_embeds

    torch.testing.assert_close(encoded.image[0], embedding(0), atol=1e-4, rtol=1e-3)
    assert all((embedding(frame) - embedding(0)).norm() > 1e-2 for frame in (1, 3))


# --- the noise level -----------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [1.0, 0.5, 0.01])
def test_the_largest_draw_is_the_last_time_step(power, monkeypatch):
    """The largest u that torch.rand returns is 1 − 2⁻²⁴; rounded, its root is 1. The largest t is 999."""
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(1 - 2.0**-24))
    network = Recorder()
    loss = Denoising(network, encode, timestep_power=power)(examples(0, batch=1), [seeded()])
    assert network.calls[0][1].tolist() == [999] and loss.isfinite()


def test_the_target_of_the_loss_is_the_noise_itself():
    """For a network that predicts zeros, the loss is the mean square of ε in the frames after the first."""
    network, example = Recorder(), examples(0, batch=2)
    loss = Denoising(network, encode)(example, [seeded(0), seeded(1)])
    noisy, timestep = network.calls[0][:2]
    signal = signal_levels()[timestep].view(2, 1, 1, 1, 1, 1)
    noise = (noisy - signal.sqrt() * example["frames"]) / (1 - signal).sqrt()
    assert loss.item() == pytest.approx(noise[:, :, 1:].square().mean().item(), rel=1e-4)
    assert noise[:, :, 1:].var().item() == pytest.approx(1, abs=0.1)


# --- FreeInit ------------------------------------------------------------------------------------------


def test_free_init_of_a_network_that_sees_the_change_keeps_the_first_frame(pipeline):
    """An untrained `from_first` network predicts the first frame. The second iteration then starts from it plus noise.

    The noise has the low frequencies of the initial one and the high frequencies of the new one, by diffusers' filter.
    """
    parts = {**pipeline.components, "unet": MVVDMUNet(replace(CONFIG, from_first=True)).eval()}
    parts["scheduler"] = mvvdm_scheduler("sample", "trailing")
    pipeline = MVVDMPipeline(**parts, num_frames=4, resolution=16)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.enable_free_init(num_iters=2)
    calls = []
    pipeline.unet.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0][0]))
    noise = torch.randn(4, 3, 4, 8, 8, generator=seeded(1))
    generator = seeded()
    found = pipeline(
        pictures(), "hops", latents=noise, generator=generator, num_inference_steps=2, guidance_scale=1.0,
        output_type="latent",
    ).frames  # fmt: skip
    first = found[:, :1]
    torch.testing.assert_close(found[:, 1:], first.expand_as(noise), atol=1e-4, rtol=1e-4)

    generator = seeded()
    pipeline.encode_pictures(
        pipeline._pictures(pictures(), 16), generator
    )  # draws from it before FreeInit does
    signal = float(signal_levels()[999])
    shape = (4, 4, 3, 8, 8)
    fresh = torch.randn(shape, generator=generator)
    mask = FreeInitMixin._get_free_init_freq_filter(
        pipeline, (1, *shape[1:]), "cpu", "butterworth", 4, 0.25, 0.25
    )
    old = (1 - signal) ** 0.5 * noise.transpose(1, 2)
    mixed = FreeInitMixin._apply_freq_filter(pipeline, old, fresh, mask).transpose(1, 2)
    assert len(calls) == 4
    torch.testing.assert_close(
        calls[0][:, 1:], signal**0.5 * first + (1 - signal) ** 0.5 * noise, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(calls[2][:, 1:], signal**0.5 * first + mixed, atol=1e-4, rtol=1e-4)


# --- offloading ----------------------------------------------------------------------------------------


class Offload:
    """The part of accelerate's hooks that moves a module before it computes; the device is "meta" until then."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.calls, self.state = 0, module.state_dict()
        module.to("meta")
        module._hf_hook = self

    def pre_forward(self, module: torch.nn.Module, *inputs: object) -> None:
        self.calls += 1
        module.to_empty(device="cpu")
        module.load_state_dict(self.state)


@pytest.mark.parametrize("method", ["encode", "decode"])
def test_offloading_moves_the_small_autoencoder_before_it_is_used(method):
    """Its weights have no values until the hook of accelerate has run."""
    torch.manual_seed(0)
    vae = PatchAutoencoder(3, (8,))
    pixels = torch.rand(2, 3, 8, 8)
    latents = vae.encode(pixels).latent_dist.mean
    expected = vae.decode(latents).sample
    torch.testing.assert_close(vae(pixels).sample, expected)
    hook = Offload(vae)
    if method == "encode":
        assert torch.equal(vae.encode(pixels).latent_dist.mean, latents)
    else:
        assert torch.equal(vae.decode(latents).sample, expected)
    assert hook.calls == 1
