"""What does a step of MV-VDM's training take, and where does its time go?

    python -m benchmarks.mvvdm laptop               `MVVDMConfig.tiny()` on one CPU core
    python -m benchmarks.mvvdm loader --data FOLDER the same, fed by two loader processes from a dataset
    python -m benchmarks.mvvdm gpu                  `MVVDMConfig.base()` at the paper's size, bf16, one example a step

FLOP are counted by torch as the step runs (forward, backward, frozen encoders), the ceiling is what the machine does in
a large matrix product. Weights are random, which no time depends on; sentences and pictures are embedded beforehand.
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
PAPER = "paper: 32 A800-80GB for three days; 209 290 steps of 32 in that time are 1.24 s each"
SAMPLING_STEPS = 25
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Setting(NamedTuple):
    """A model and the size of an example."""

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
    """Stable Diffusion's, or the small one."""
    if setting.config.in_channels == LATENT_CHANNELS:
        return PatchAutoencoder()
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
    )


def model(setting: Setting, device: str) -> tuple[Denoising, AutoencoderKL | PatchAutoencoder]:
    """With the backbone frozen where the paper freezes it; pictures are encoded at each step, as in training."""
    torch.manual_seed(0)
    vae = autoencoder(setting).to(device, DTYPES[setting.precision]).requires_grad_(False).eval()
    unet = MVVDMUNet(setting.config).to(device)
    if setting.config.image_embed_dim is not None:
        unet.freeze_backbone()
    return Denoising(unet, encoder(setting, vae, device)), vae


def encoder(setting: Setting, vae: AutoencoderKL | PatchAutoencoder, device: str) -> Encode:
    config = setting.config
    tokens = 77 if config.cross_attention_dim == 768 else 1
    text = torch.randn(1, tokens, config.cross_attention_dim, device=device)
    image = config.image_embed_dim and torch.randn(1, setting.views, config.image_embed_dim, device=device)

    def encode(frames: Tensor, captions: Sequence[str], generators: Sequence[torch.Generator]) -> Encoded:
        pictures = frames.flatten(0, 2).to(vae.dtype)
        latents = torch.cat([vae.encode(some).latent_dist.mean for some in pictures.split(16)])
        return Encoded(latents.unflatten(0, frames.shape[:3]).float(), text, image)

    return encode


def example(setting: Setting) -> dict[str, Any]:
    frames = torch.rand(1, setting.views, setting.frames, 3, setting.pixels, setting.pixels) * 2 - 1
    return {"frames": frames, "caption": ["hops"], "camera": torch.randn(1, setting.views, 16)}


def step(
    setting: Setting, device: str, batches: Callable[[int], Iterator[dict[str, Any]]] | None = None
) -> dict:
    """Seconds of a step and the shares of its parts, after a warm-up."""
    objective, _ = model(setting, device)
    told: list[dict[str, Any]] = []
    now = _clock(device)
    for steps in (setting.warm_up, setting.steps):
        plan = TrainingPlan(steps=steps, batch=1, precision=setting.precision)
        feed = batches or (lambda first: itertools.repeat(example(setting)))
        train(
            objective, feed, plan, device=device, on_step=lambda report: told.append({**report, "now": now()})
        )
    # The report of the first step is apart, so the last one tells of the others.
    first, last = told[-2:] if setting.steps < 20 else told[-3::2]
    return {**last, "each": (last["now"] - first["now"]) / (last["step"] - first["step"])}


def count(setting: Setting, device: str) -> tuple[float, float]:
    """FLOP of a step, and those of attention among them."""
    objective, _ = model(setting, device)
    given = {name: v.to(device) if isinstance(v, Tensor) else v for name, v in example(setting).items()}
    half = torch.autocast(torch.device(device).type, DTYPES[setting.precision], setting.precision != "fp32")
    with FlopCounterMode(display=False) as counter:
        with half:
            loss = objective(given, [torch.Generator().manual_seed(0)])
        loss.backward()
    operations = counter.get_flop_counts()["Global"]
    attention = sum(flop for operation, flop in operations.items() if "scaled_dot_product" in str(operation))
    return float(sum(operations.values())), float(attention)


def peak(device: str, dtype: torch.dtype) -> float:
    """FLOP a second of a large matrix product."""
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
    """Seconds for the videos of one object: 25 steps with guidance, and the decoding of all frames."""
    objective, vae = model(setting, device)
    unet, scheduler = objective.unet.to(DTYPES[setting.precision]).eval(), mvvdm_scheduler()
    given = example(setting)
    first, text, image = encoder(setting, vae, device)(
        given["frames"].to(device), ["hops"], [torch.Generator()]
    )
    latents, two = (
        first.to(unet.dtype),
        lambda x: None if x is None else torch.cat([x, x]).to(device, unet.dtype),
    )
    started = time.perf_counter()
    scheduler.set_timesteps(SAMPLING_STEPS, device=device)
    for t in scheduler.timesteps:
        without, noise = unet(two(latents), t, two(text), two(given["camera"]), two(image)).chunk(2)
        moved = scheduler.step(without + 7.5 * (noise - without), t, latents).prev_sample
        latents = torch.cat([latents[:, :, :1], moved[:, :, 1:]], dim=2)
    pictures = [vae.decode(some.to(vae.dtype)).sample for some in latents.flatten(0, 2).split(16)]
    _wait(device, pictures[-1])
    return time.perf_counter() - started


def _clock(device: str) -> Callable[[], float]:
    """On the CPU, the processor's seconds, whatever else it does: one thread works here."""
    return time.process_time if device == "cpu" else time.perf_counter


def _wait(device: str, tensor: Tensor) -> None:
    torch.cuda.synchronize() if device != "cpu" else tensor.sum().item()


def _report(part: str, setting: Setting, device: str) -> None:
    measured, (flop, attention) = step(setting, device), count(setting, device)
    ceiling = peak(device, DTYPES[setting.precision])
    shares = ", ".join(
        f"{name} {measured[name]:.1%}" for name in ("loader", "forward", "backward", "optimiser")
    )
    print(f"{part:8}{measured['each']:.3f} s a step ({setting.precision}): {shares}")
    print(
        f"{part:8}{flop / 1e12:.3f} TFLOP a step, {attention / flop:.1%} of them attention; "
        f"{flop / measured['each'] / ceiling:.1%} of the {ceiling / 1e12:.3f} TFLOP/s of a matrix product"
    )


def laptop() -> bool:
    torch.set_num_threads(1)
    _report("laptop", TINY, "cpu")
    return True


def loader(data: str) -> bool:
    """What two loader processes leave to wait for."""
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
    print(f"loader  {measured['loader']:.2%} of a step is waited for clips (bar {BAR_LOADER:.0%})")
    return measured["loader"] <= BAR_LOADER


def gpu(device: str, setting: Setting) -> bool:
    _report("gpu", setting, device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        step(setting._replace(steps=4, warm_up=1), device)
        print(f"gpu     {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at one example a step; {PAPER}")
    seconds = sampling(setting, device)
    print(
        f"gpu     {seconds:.1f} s to sample {setting.views} views of {setting.frames} frames at {setting.pixels} px, "
        f"{SAMPLING_STEPS} steps with guidance"
    )
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts asked for; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mvvdm")
    parser.add_argument("part", choices=("laptop", "loader", "gpu"), nargs="+")
    parser.add_argument("--data", help="of the loader part: an MV-Video dataset")
    parser.add_argument("--device", default="cuda", help="of the gpu part; 'cpu' with --small tries it out")
    parser.add_argument("--small", action="store_true", help="a hundredth of the paper's size")
    args = parser.parse_args(argv)
    if "loader" in args.part and not args.data:
        parser.error(
            "loader: expected --data FOLDER; python -m factory.render --resolution 64 --out FOLDER makes one"
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
