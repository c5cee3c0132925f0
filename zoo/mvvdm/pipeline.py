"""The MV-VDM pipeline: images of a static object and a prompt in, one video per view out (Animate3D §3.1).

    pipeline = MVVDMPipeline.from_pretrained_parts()          # the published weights
    videos = pipeline("dragon.glb", "the dragon spreads its wings")
    videos.save("dragon.mp4")

It is a diffusers pipeline: `to`, offloading, schedulers, callbacks and progress bars work as usual.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.free_init_utils import FreeInitMixin
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from renderers.arguments import instance
from renderers.cameras import Cameras
from renderers.values import by_value
from zoo.errors import UnsupportedError
from zoo.mvvdm import free_init
from zoo.mvvdm.autoencoder import PatchAutoencoder, picture_step
from zoo.mvvdm.checks import check_conditions, check_device, check_output, check_sampler, check_sizes
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.encoders import MVVDMEncoders
from zoo.mvvdm.files import (
    check_index,
    load_pipeline,
    published_components,
    published_unet,
    save_pipeline,
    snapshot_folder,
)
from zoo.mvvdm.images import MVVDMOutput
from zoo.mvvdm.parts import Source
from zoo.mvvdm.schedule import mvvdm_scheduler
from zoo.mvvdm.unet import MVVDMUNet
from zoo.mvvdm.views import condition_cameras
from zoo.precision import Storage
from zoo.seeds import generator as seeded_generator
from zoo.threads import exclusive, fitting_threads
from zoo.weights import check_weights

if TYPE_CHECKING:
    from renderers.gltf import Asset

__all__ = ["Conditions", "MVVDMOutput", "MVVDMPipeline", "mvvdm_scheduler"]

# Called with pipeline, step, time step and tensors; returns the tensors that it changes.
StepCallback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


@by_value
class Conditions(NamedTuple):
    """The network's conditions for one object, with guidance those of the unconditional pass first.

    Attributes:
        text: prompt tokens [1 or 2, L, D].
        camera: [1 or 2, V, 16].
        image: CLIP embeddings [1 or 2, V, E], zeros in the unconditional pass; or None.
    """

    text: Tensor
    camera: Tensor
    image: Tensor | None


class _Sampling(NamedTuple):
    """Settings of the sampling loop: the arguments of `MVVDMPipeline.__call__` by the same names."""

    num_inference_steps: int
    guidance_scale: float
    eta: float
    generator: torch.Generator | None
    callback: StepCallback | None
    callback_inputs: Sequence[str]


class MVVDMPipeline(FreeInitMixin, MVVDMEncoders):
    """The components of an MV-VDM and the sampling procedure.

    Attributes:
        vae, unet, scheduler: autoencoder, network and sampler.
        text_encoder, tokenizer: CLIP's. Without them, `sentence_encoder` names the language model that embeds
            prompts, one token per clause (`zoo.mvvdm.sentences`).
        image_encoder, feature_extractor: CLIP's, for a network with an IP-Adapter.
        card, metrics: see `zoo.families.Model`.
        storage: type of the large weights in files that `save_to` writes, "float16" or "int8" (`zoo.precision`).
        example: {"images": uint8 [V, S, S, 3], "prompt": …}, used by `sample` and for the preview; or None.
        config: its num_frames, resolution, guidance_scale and temperature are the defaults of a call.
    """

    # diffusers types it as None.
    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"  # type: ignore[assignment]
    _optional_components = ["text_encoder", "tokenizer", "image_encoder", "feature_extractor"]
    _callback_tensor_inputs = ["latents", "prompt_embeds"]

    def __init__(
        self,
        vae: AutoencoderKL | PatchAutoencoder,
        unet: MVVDMUNet,
        scheduler: DDIMScheduler,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: CLIPTokenizer | None = None,
        image_encoder: CLIPVisionModelWithProjection | None = None,
        feature_extractor: CLIPImageProcessor | None = None,
        num_frames: int = 16,
        resolution: int = 256,
        sentence_encoder: str | None = None,
        guidance_scale: float = 7.5,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            image_encoder=image_encoder,
            feature_extractor=feature_extractor,
        )
        self.register_to_config(
            num_frames=num_frames,
            resolution=resolution,
            sentence_encoder=sentence_encoder,
            guidance_scale=guidance_scale,
            temperature=temperature,
        )
        self.image_processor = VaeImageProcessor(vae_scale_factor=picture_step(vae), resample="bilinear")
        self.card: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.storage: Storage = "float16"
        self.example: dict[str, Any] | None = None
        if (text_encoder is None) == (sentence_encoder is None):
            raise ValueError(
                "MVVDMPipeline: expected either a text_encoder with its tokenizer or the name of a sentence_encoder, "
                f"got {'neither' if text_encoder is None else 'both'}"
            )
        if unet.config.image_embed_dim is not None and image_encoder is None:
            raise ValueError(
                "MVVDMPipeline: this unet has an IP-Adapter; pass image_encoder and feature_extractor"
            )

    # --- sampling ---------------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        images: Asset | str | os.PathLike[str] | np.ndarray | Sequence[Image.Image],
        prompt: str = "",
        *,
        negative_prompt: str = "",
        cameras: Cameras | None = None,
        num_frames: int | None = None,
        resolution: int | None = None,
        num_inference_steps: int = 25,
        guidance_scale: float | None = None,
        temperature: float | None = None,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: str = "uint8",
        return_dict: bool = True,
        decode_chunk_size: int = 16,
        callback_on_step_end: StepCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> MVVDMOutput:
        """Animate an object. Arguments not listed are as in diffusers' pipelines.

        Args:
            images: V first frames, uint8 [V, H, W, 3 or 4] or Pillow images, transparent or on MV-VDM's grey; or a glTF
                file or loaded `Asset`, rendered from four views.
            prompt, negative_prompt: what happens, and what should not.
            cameras, num_frames, resolution: V cameras, T and pixels; default `condition_cameras`, and as trained.
            guidance_scale: w in ε_u + w·(ε_c − ε_u); default the model's. 1 or less skips the unconditional pass.
            temperature: factor of the initial noise; default the model's. Below 1, videos are smoother, less diverse.
            latents: initial noise [V, T - 1, C, h, w], instead of drawing it from the generator.
            callback_on_step_end: gets "latents" [V, T, C, h, w] or "prompt_embeds" [1 or 2, L, D]; may change latents.

        Returns:
            `MVVDMOutput`; as in diffusers, a tuple of its field if return_dict is False.

        Raises:
            TypeError, ValueError: an argument has a wrong type or shape, or is out of range.
        """
        check_device(self.device)
        callback = (callback_on_step_end, callback_on_step_end_tensor_inputs)
        check_output(output_type, *callback, self._callback_tensor_inputs)
        check_conditions(prompt, negative_prompt, cameras)
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        temperature = self.config.temperature if temperature is None else temperature
        check_sampler(scale, temperature, eta, generator, latents)
        num_frames, resolution, num_inference_steps, decode_chunk_size = check_sizes(
            num_frames, resolution, num_inference_steps, decode_chunk_size, self.config, self.scheduler.config
        )
        with exclusive(self.scheduler), self._threads():  # the scheduler holds the steps of this call
            pictures = self._pictures(images, resolution)
            conditions = self.conditions(pictures, prompt, negative_prompt, cameras, guided=scale > 1)
            first = self.encode_pictures(pictures, generator)[:, None]  # [V, 1, …], the same at every step
            self.scheduler.set_timesteps(num_inference_steps, device=first.device)
            noise = self._noise(first, num_frames, generator, latents)
            sampling = _Sampling(num_inference_steps, scale, eta, generator, *callback)
            video = self._denoise(first, temperature * noise, conditions, sampling)
            frames = video if output_type == "latent" else self._decode(video, output_type, decode_chunk_size)
            self.maybe_free_model_hooks()
        return MVVDMOutput(frames=frames) if return_dict else (frames,)  # type: ignore[return-value]

    def _threads(self) -> AbstractContextManager[Any]:
        """On the CPU, as many threads as there are free cores: waiting threads slow each other down."""
        return fitting_threads() if self._execution_device.type == "cpu" else nullcontext()

    def _denoise(self, first: Tensor, noise: Tensor, conditions: Conditions, sampling: _Sampling) -> Tensor:
        """Run the sampler, once or, with FreeInit, several times.

        Args:
            first: clean first frames [V, 1, C, h, w].
            noise: initial noise of the other frames, [V, T - 1, C, h, w].

        Returns:
            Latents [V, T, C, h, w].
        """
        steps, device = sampling.num_inference_steps, first.device
        # Not all schedulers of diffusers have an eta or draw noise.
        accepted = inspect.signature(self.scheduler.step).parameters
        options = {"eta": sampling.eta, "generator": sampling.generator}
        options = {name: value for name, value in options.items() if name in accepted}
        video = None
        for iteration in range(self._free_init_num_iters if self.free_init_enabled else 1):
            self.scheduler.set_timesteps(steps, device=device)
            if self.free_init_enabled:
                moving = free_init.initial_value(self, first, noise, video, iteration, sampling)
            else:
                moving = self.initial(first, noise)
            for step, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
                scaled = self.scheduler.scale_model_input(moving, t)
                predicted = self.predict(first, scaled, t, conditions, sampling.guidance_scale)
                moving = self.scheduler.step(predicted, t, moving, **options).prev_sample
                if sampling.callback is not None:
                    tensors = {"latents": torch.cat([first, moving], dim=1), "prompt_embeds": conditions.text}
                    tensors = {name: tensors[name] for name in sampling.callback_inputs}
                    changed = sampling.callback(self, step, t, tensors) or {}
                    if "latents" in changed:
                        moving = changed["latents"][:, 1:]
            video = moving
        return torch.cat([first, moving], dim=1)

    def predict(
        self, first: Tensor, moving: Tensor, t: Tensor, conditions: Conditions, guidance_scale: float
    ) -> Tensor:
        """Evaluate the network with classifier-free guidance: ε = ε_u + w·(ε_c − ε_u).

        Args:
            first: clean first frames [V, 1, C, h, w].
            moving: the other, noisy frames [V, T - 1, C, h, w].
            t: time step, a scalar.
            conditions: for one pass, or for two with guidance.
            guidance_scale: w.

        Returns:
            The prediction for all frames but the first, [V, T - 1, C, h, w]: noise, sample or velocity, according to
            the scheduler's prediction_type.
        """
        passes = len(conditions.text)
        sample = torch.cat([first, moving], dim=1).expand(passes, -1, -1, -1, -1, -1)
        predicted = self.unet(sample, t, conditions.text, conditions.camera, conditions.image)[:, :, 1:]
        if passes == 1:
            return predicted[0]
        unconditional, conditional = predicted
        return unconditional + guidance_scale * (conditional - unconditional)

    predict_noise = predict  # its name in version 0.1.0

    def sample(self, seed: int | None = None, **options: Any) -> MVVDMOutput:
        """Sample videos of the model's example.

        Args:
            seed: seed of the noise; None = one from torch's global generator.
            options: arguments of a call; images and prompt replace the example's.

        Raises:
            UnsupportedError: the model has no example and no images are given.
        """
        if self.example is None and "images" not in options:
            raise UnsupportedError(
                "this model has no example: call it with images and a prompt, or set an object in motion with animate"
            )
        options = {**(self.example or {}), **options}
        return self(**_with_generator(seed, options))

    def animate(
        self, asset: Asset | str | os.PathLike[str] | np.ndarray, sentence: str, *,
        seed: int | None = None, **options: Any,
    ) -> MVVDMOutput:  # fmt: skip
        """Set an object in motion; the same seed gives the same videos.

        Args:
            asset: a glTF file, or what `renderers.gltf.load` returned; or pictures of an object, as in a call.
            sentence: what happens.
            seed, options: of the noise, None = one from torch's global generator; of a call.
        """
        instance(sentence, str, "sentence")
        return self(asset, sentence, **_with_generator(seed, options))

    # --- conditions -------------------------------------------------------------------------------

    def conditions(
        self,
        pictures: list[Image.Image],
        prompt: str,
        negative: str = "",
        cameras: Cameras | None = None,
        *,
        guided: bool = False,
    ) -> Conditions:
        """Encode prompt, cameras and images, for two passes if guided.

        The unconditional pass has the negative prompt and zero image embeddings, but the same cameras and first frame.
        """
        device, dtype, V = self._execution_device, self.unet.dtype, len(pictures)
        if cameras is not None and len(cameras) != V:
            raise ValueError(f"cameras: expected {V}, one per image, got {len(cameras)}")
        text = self.encode_prompt([negative, prompt] if guided else [prompt]).to(device, dtype)
        camera = self.camera_vectors(cameras or condition_cameras(V)).to(device, dtype)
        image = self.encode_image(pictures)
        if image is not None:
            image = torch.stack([torch.zeros_like(image), image] if guided else [image])
        return Conditions(text, camera.expand(len(text), -1, -1), image)

    def _noise(
        self, first: Tensor, frames: int, generator: torch.Generator | None, latents: Tensor | None
    ) -> Tensor:
        """Noise ε for all frames but the first, [V, T - 1, C, h, w]: `latents` if given, else drawn."""
        shape = (len(first), frames - 1, *first.shape[2:])
        if latents is None:
            # In single precision, so that a seed gives the same noise in all precisions.
            latents = randn_tensor(shape, generator=generator, device=first.device, dtype=torch.float32)
        elif latents.shape != shape:
            raise ValueError(
                f"latents: expected {list(shape)}, noise for all but the first frame, got {list(latents.shape)}"
            )
        return latents.to(first)

    def initial(self, first: Tensor, noise: Tensor) -> Tensor:
        """Initial value of all frames but the first, [V, T - 1, C, h, w].

        The published model starts from pure noise, although in training the last time step leaves some signal:
        √ᾱ_999 = 0.04. A `from_first` network sees z_t − √ᾱ·z^1 and would take the missing signal for a change.
        It starts from the noised first frame √ᾱ·z^1 + √(1 − ᾱ)·ε instead.
        """
        if not self.unet.config.from_first:
            return noise * self.scheduler.init_noise_sigma
        last = self.scheduler.timesteps[:1].expand(len(noise))
        return self.scheduler.add_noise(first.expand_as(noise), noise, last)

    # --- files ------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **options: Any
    ) -> MVVDMPipeline:
        """Load a pipeline from a folder written by `save_pretrained` or a hub repository made by `push_to_hub`.

        diffusers refuses hub repositories whose components are classes of another package, but not local folders, so
        that a repository is downloaded first.

        Raises:
            ZooError: the folder is not a pipeline of this kind, names classes that have no place in one, or its weights
                contain NaN.
        """
        folder = snapshot_folder(pretrained_model_name_or_path, options)
        check_index(folder)
        check_weights(sorted(folder.rglob("*.safetensors")))
        return super().from_pretrained(folder, **{"use_safetensors": True, **options})

    @classmethod
    def from_pretrained_parts(
        cls,
        mvdream: Source = "yanqinJiang/mvdream-sd1.5-diffusers",
        motion_adapter: Source | None = None,
        ip_adapter: Source | None = "h94/IP-Adapter",
        released: Source | None = "yanqinJiang/animate3d",
        *,
        base: Source | None = None,
        image_encoder: Source | None = None,
        config: MVVDMConfig | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> MVVDMPipeline:
        """Assemble a pipeline from the published weights (`zoo.mvvdm.parts`; docs/mvvdm.md).

        Args:
            mvdream, ip_adapter: weights of the backbone and the IP-Adapter: a hub repository, folder or file.
            motion_adapter: AnimateDiff's weights; default its version 1.5-2 if `released` is None, else none.
            released: Animate3D's weights, which include a motion adapter. None gives the network before training.
            base: folder or repository of text_encoder, tokenizer and vae; default `mvdream`, or Stable Diffusion 1.5
                if that is a single file.
            image_encoder: folder or repository of CLIP's image encoder; default `ip_adapter`.
            config: sizes of the network; default `MVVDMConfig.base()`.
            dtype: of all weights.

        Raises:
            ZooError: a file is refused or missing.
            HubError: the hub cannot be reached.
        """
        config = config or MVVDMConfig.base()
        unet = published_unet(config, mvdream, motion_adapter, ip_adapter, released, dtype)
        components = published_components(config, mvdream, ip_adapter, base, image_encoder, dtype)
        return cls(unet=unet.eval(), **components)

    def save_to(self, folder: Path) -> dict[str, Any]:
        """Write the pipeline as a repository of the zoo.

        Weights are stored in one file as `storage` says, tokenizer and image preprocessing as JSON next to it.

        Returns:
            JSON-serialisable arguments that `load_from` needs in addition to the files.
        """
        return save_pipeline(self, folder)

    @classmethod
    def load_from(cls, folder: Path, init: dict[str, Any]) -> MVVDMPipeline:
        """Load what `save_to` wrote, in single precision on the CPU.

        Args:
            folder: the repository's files.
            init: the return value of `save_to`.
        """
        return load_pipeline(cls, folder, init)


def _with_generator(seed: int | None, options: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a call with the generator of a seed, or with the caller's own."""
    if options.get("generator") is None:
        return {**options, "generator": seeded_generator(seed)}
    if seed is not None:
        raise ValueError(f"expected either a seed or a generator, got both; omit seed={seed}")
    return options
