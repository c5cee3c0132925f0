"""Duration of an MV-VDM training step, and how it is divided between its parts.

    python -m benchmarks.mvvdm laptop               `MVVDMConfig.tiny()` on one CPU core
    python -m benchmarks.mvvdm loader --data FOLDER the same, with two loader processes reading a dataset
    python -m benchmarks.mvvdm gpu                  `MVVDMConfig.base()` at the paper's size, bf16, batch size 1

FLOPs are counted by torch during the step (forward, backward and frozen encoders). The ceiling is the throughput of a
large matrix product. Weights are random, which does not affect the timing. Text and image embeddings are precomputed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import describe_machine
from zoo.mvvdm.autoencoder import LATENT_CHANNELS, PatchAutoencoder
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.denoising import Denoising, Encode, Encoded
from zoo.mvvdm.pipeline import mvvdm_scheduler
from zoo.mvvdm.plan import TrainingPlan
from zoo.mvvdm.training import train
from zoo.mvvdm.unet import MVVDMUNet

BAR_LOADER = 0.02
PAPER = "paper: 32 A800-80GB for three days; 209 290 steps with batch size 32 in that time take 1.24 s each"
SAMPLING_STEPS = 25
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Setting(NamedTuple):
    """A model configuration and the size of its training examples. `pixels`: width and height of a frame."""

    config: MVVDMConfig
    views: int
    frames: int
    pixels: int
    precision: str
    steps: int
    warm_up: int


TINY = Setting(MVVDMConfig.tiny(), 4, 8, 64, "fp32", 6, 2)
BASE = Setting(MVVDMConfig.base(), 4, 16, 256, "bf16", 40, 10)
SMALL = Setting(
    replace(MVVDMConfig.base(), in_channels=LATENT_CHANNELS, block_out_channels=(32, 32, 32, 32), num_heads=2),
    2, 3, 32, "fp32", 4, 2,
)  # fmt: skip


def autoencoder(setting: Setting) -> AutoencoderKL | PatchAutoencoder:
    """Return an autoencoder with the architecture of Stable Diffusion's, or the small patch autoencoder."""
    if setting.config.in_channels == LATENT_CHANNELS:
        return PatchAutoencoder()
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )


def model(setting: Setting, device: str) -> tuple[Denoising, AutoencoderKL | PatchAutoencoder]:
    """Return the training objective and the autoencoder.

    The backbone is frozen where the paper freezes it. Frames are encoded at each step, as in training.
    """
    torch.manual_seed(0)
    vae = autoencoder(setting).to(device, DTYPES[setting.precision]).requires_grad_(False).eval()
    unet = MVVDMUNet(setting.config).to(device)
    if setting.config.image_embed_dim is not None:
        unet.freeze_backbone()
    return Denoising(unet, encoder(setting, vae, device)), vae


def encoder(setting: Setting, vae: AutoencoderKL | PatchAutoencoder, device: str) -> Encode:
    """Return the encoder of a batch: frames through `vae`, text and images as random embeddings."""
    config = setting.config
    tokens = 77 if config.cross_attention_dim == 768 else 1
    text = torch.randn(1, tokens, config.cross_attention_dim, device=device)
    image = config.image_embed_dim and torch.randn(1, setting.views, config.image_embed_dim, device=device)

    def encode(frames: Tensor, captions: Sequence[str], generators: Sequence[torch.Generator]) -> Encoded:
        images = frames.flatten(0, 2).to(vae.dtype)
        latents = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in images.split(16)])
        return Encoded(latents.unflatten(0, frames.shape[:3]).float(), text, image)

    return encode


def example(setting: Setting) -> dict[str, Any]:
    """Return a random batch of one example; `frames` is [1, V, T, 3, H, W] in [-1, 1]."""
    frames = torch.rand(1, setting.views, setting.frames, 3, setting.pixels, setting.pixels) * 2 - 1
    return {"frames": frames, "caption": ["hops"], "camera": torch.randn(1, setting.views, 16)}


def step(
    setting: Setting, device: str, batches: Callable[[int], Iterator[dict[str, Any]]] | None = None
) -> dict[str, Any]:
    """Return the seconds per step (as "seconds_per_step") and the fraction of each part, after a warm-up."""
    objective, _ = model(setting, device)
    reports: list[dict[str, Any]] = []
    now = _clock(device)
    for steps in (setting.warm_up, setting.steps):
        plan = TrainingPlan(steps=steps, batch=1, precision=setting.precision)
        feed = batches or (lambda first: itertools.repeat(example(setting)))
        train(
            objective,
            feed,
            plan,
            device=device,
            on_step=lambda report: reports.append({**report, "now": now()}),
        )
    # The first step has a report of its own, so the last report covers the remaining steps.
    first, last = reports[-2:] if setting.steps < 20 else reports[-3::2]
    return {**last, "seconds_per_step": (last["now"] - first["now"]) / (last["step"] - first["step"])}


def count(setting: Setting, device: str) -> tuple[float, float]:
    """Return the FLOPs of a step, and how many of them are spent on attention."""
    objective, _ = model(setting, device)
    batch = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in example(setting).items()}
    autocast = torch.autocast(
        torch.device(device).type, DTYPES[setting.precision], setting.precision != "fp32"
    )
    with FlopCounterMode(display=False) as counter:
        with autocast:
            loss = objective(batch, [torch.Generator().manual_seed(0)])
        loss.backward()
    operations = counter.get_flop_counts()["Global"]
    attention = sum(flop for operation, flop in operations.items() if "scaled_dot_product" in str(operation))
    return float(sum(operations.values())), float(attention)


def peak(device: str, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product."""
    size, repeat = (8192, 20) if device != "cpu" else (1024, 5)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    _wait(device, a @ b)
    now = _clock(device)
    started = now()
    for _ in range(repeat):
        product = a @ b
    _wait(device, product)
    return repeat * 2 * size**3 / (now() - started)


@torch.inference_mode()
def sampling(setting: Setting, device: str) -> float:
    """Return the seconds to sample the videos of one object: 25 steps with guidance, and decoding all frames."""
    objective, vae = model(setting, device)
    unet, scheduler = objective.unet.to(DTYPES[setting.precision]).eval(), mvvdm_scheduler()
    batch = example(setting)
    encoded, text, image = encoder(setting, vae, device)(
        batch["frames"].to(device), ["hops"], [torch.Generator()]
    )
    latents = encoded.to(unet.dtype)

    def twice(x: Tensor | None) -> Tensor | None:
        """Repeat the batch for the unconditional and the conditional prediction."""
        return None if x is None else torch.cat([x, x]).to(device, unet.dtype)

    started = time.perf_counter()
    scheduler.set_timesteps(SAMPLING_STEPS, device=device)
    for t in scheduler.timesteps:
        prediction = unet(twice(latents), t, twice(text), twice(batch["camera"]), twice(image))
        unconditional, conditional = prediction.chunk(2)
        guided = unconditional + 7.5 * (conditional - unconditional)
        denoised = scheduler.step(guided, t, latents).prev_sample
        latents = torch.cat([latents[:, :, :1], denoised[:, :, 1:]], dim=2)  # the first frame is given
    images = [vae.decode(chunk.to(vae.dtype)).sample for chunk in latents.flatten(0, 2).split(16)]
    _wait(device, images[-1])
    return time.perf_counter() - started


def _clock(device: str) -> Callable[[], float]:
    """Return CPU time on the CPU, where one thread works and other processes must not count; wall time otherwise."""
    return time.process_time if device == "cpu" else time.perf_counter


def _wait(device: str, tensor: Tensor) -> None:
    """Wait until `tensor` has been computed."""
    if device != "cpu":
        torch.cuda.synchronize()
    else:
        tensor.sum().item()


def _report(part: str, setting: Setting, device: str) -> None:
    measured, (flop, attention) = step(setting, device), count(setting, device)
    ceiling = peak(device, DTYPES[setting.precision])
    seconds = measured["seconds_per_step"]
    shares = ", ".join(
        f"{name} {measured[name]:.1%}" for name in ("loader", "forward", "backward", "optimiser")
    )
    print(f"{part:8}{seconds:.3f} s per step ({setting.precision}): {shares}")
    print(
        f"{part:8}{flop / 1e12:.3f} TFLOP per step, {attention / flop:.1%} of it attention; "
        f"{flop / seconds / ceiling:.1%} of the {ceiling / 1e12:.3f} TFLOP/s of a large matrix product"
    )


def laptop() -> bool:
    """Measure the tiny model on one CPU core."""
    torch.set_num_threads(1)
    _report("laptop", TINY, "cpu")
    return True


def loader(data: str) -> bool:
    """Measure how long training waits for two loader processes; whether that meets its target."""
    from factory.dataset.loader import ClipLoader
    from factory.dataset.reader import load_clips
    from factory.training.mvvdm.clips import ClipShare

    torch.set_num_threads(1)
    clips = ClipShare(
        load_clips(data), TINY.pixels, part=slice(None), views=TINY.views, frames=TINY.frames, batch_size=1
    )

    def batches(first: int) -> Iterator[dict[str, Any]]:
        for batch in itertools.chain.from_iterable(itertools.repeat(ClipLoader(clips, num_workers=2))):
            yield {name: batch[name] for name in ("frames", "caption", "camera")}

    measured = step(TINY._replace(steps=20), "cpu", batches)
    print(f"loader  {measured['loader']:.2%} of a step is spent waiting for clips (target {BAR_LOADER:.0%})")
    return measured["loader"] <= BAR_LOADER


def gpu(device: str, setting: Setting) -> bool:
    """Measure a training step, its memory and sampling at the given size."""
    _report("gpu", setting, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        step(setting._replace(steps=4, warm_up=1), device)
        print(f"gpu     {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB with batch size 1; {PAPER}")
    seconds = sampling(setting, device)
    print(
        f"gpu     {seconds:.1f} s to sample {setting.views} views of {setting.frames} frames at {setting.pixels} px, "
        f"{SAMPLING_STEPS} steps with guidance"
    )
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the selected parts; 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mvvdm")
    parser.add_argument("part", choices=("laptop", "loader", "gpu"), nargs="+")
    parser.add_argument("--data", help="MV-Video dataset for the loader part")
    parser.add_argument(
        "--device", default="cuda", help="device of the gpu part; use 'cpu' with --small for a quick test"
    )
    parser.add_argument(
        "--small", action="store_true", help="run the gpu part at about a hundredth of the paper's size"
    )
    args = parser.parse_args(argv)
    if "loader" in args.part and not args.data:
        parser.error(
            "loader: expected --data FOLDER; create one with `python -m factory.render --resolution 64 --out FOLDER`"
        )
    print(describe_machine())
    parts = {
        "laptop": laptop,
        "loader": lambda: loader(args.data),
        "gpu": lambda: gpu(args.device, SMALL if args.small else BASE),
    }
    return 0 if all([parts[name]() for name in args.part]) else 1


if __name__ == "__main__":
    sys.exit(main())
