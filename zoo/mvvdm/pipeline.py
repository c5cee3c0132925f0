"""MV-VDM ready to use: pictures of a still object and a sentence in, one video a view out (methods §2.8).

    pipeline = MVVDMPipeline.from_pretrained_parts()          # the published weights
    videos = pipeline("dragon.glb", "the dragon spreads its wings")
    videos.save("dragon.mp4")

It is a pipeline of diffusers: `to`, offloading, schedulers, callbacks and progress bars are as there.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.free_init_utils import FreeInitMixin
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from renderers.cameras import Cameras, mvvdm_camera_vectors
from renderers.meshes.clip import GREY, composite
from zoo.errors import ZooError
from zoo.mvvdm.autoencoder import PatchAutoencoder, picture_step
from zoo.mvvdm.config import MVVDMConfig
from zoo.mvvdm.parts import KINDS, Source, kind, load_parts
from zoo.mvvdm.schedule import FIRST_BETA, LAST_BETA, STEPS
from zoo.mvvdm.sentences import encode_sentences
from zoo.mvvdm.unet import MVVDMUNet
from zoo.mvvdm.views import condition_cameras, condition_views

if TYPE_CHECKING:
    from renderers.gltf import Asset

SECONDS = 2.0  # what a video lasts, however many frames it has
OUTPUTS = ("uint8", "np", "pt", "pil", "latent")
WEIGHTS, PREVIEW, EXAMPLE = "model.safetensors", "preview.mp4", "example"
# Stable Diffusion's text encoder and autoencoder, which MVDream has left as they were.
BASE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
IMAGE_ENCODER = "models/image_encoder"  # in the IP-Adapter's repository


@dataclass
class MVVDMOutput(BaseOutput):
    """What the pipeline returns.

    Attributes:
        frames: V videos of T frames: uint8 [V, T, H, W, 3]; as `output_type` says also float32 in 0..1 ("np"),
            a tensor [V, T, 3, H, W] in 0..1 ("pt"), lists of pictures ("pil") or latents [V, T, C, h, w] ("latent").
    """

    frames: np.ndarray | Tensor | list[list[Image.Image]]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the views side by side as an mp4 of two seconds; frames must be "uint8"."""
        from zoo.export.video import write_mp4

        if not isinstance(self.frames, np.ndarray) or self.frames.dtype != np.uint8:
            raise ValueError(f"{path}: only frames of output_type 'uint8' are saved; sample with that")
        write_mp4(path, np.concatenate(list(self.frames), axis=2), len(self.frames[0]) / SECONDS)
        return Path(path)


class Conditions(NamedTuple):
    """What one object's videos are made by, once for each pass of the network: the unconditional one first, if any.

    Attributes:
        text: [1 or 2, L, D]. camera: [1 or 2, V, 16]. image: [1 or 2, V, E] or None.
    """

    text: Tensor
    camera: Tensor
    image: Tensor | None


def mvvdm_scheduler(prediction_type: str = "epsilon", timestep_spacing: str = "leading") -> DDIMScheduler:
    """The noise that MV-VDM is trained with, AnimateDiff's, and the sampler of its authors (methods §2.7, §2.8).

    Args:
        prediction_type: what the network predicts, in diffusers' terms; the published one predicts the noise.
        timestep_spacing: "leading" begins at 961 of 999 with 25 steps, as published; "trailing" at the last time step,
            however few there are (Lin et al. 2024).
    """
    return DDIMScheduler(
        num_train_timesteps=STEPS,
        beta_start=FIRST_BETA,
        beta_end=LAST_BETA,
        beta_schedule="linear",
        steps_offset=1,
        clip_sample=False,
        timestep_spacing=timestep_spacing,
        prediction_type=prediction_type,
    )


class MVVDMPipeline(FreeInitMixin, DiffusionPipeline):
    """The parts of an MV-VDM, and how they make videos together.

    Attributes:
        vae, unet, scheduler: the autoencoder, the network and the sampler.
        text_encoder, tokenizer: CLIP's. Without them `sentence_encoder` names the language model that reads
            sentences, one token a clause (`zoo.mvvdm.sentences`).
        image_encoder, feature_extractor: CLIP's, of a network with an IP-Adapter.
        card, metrics: see `zoo.families.Model`.
        example: "images" uint8 [V, S, S, 3] and a "prompt", for `sample` and the preview; or None.
        config: its num_frames, resolution, guidance_scale and temperature are what a call does if not told otherwise.
    """

    model_cpu_offload_seq = "text_encoder->image_encoder->unet->vae"
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
        self.example: dict[str, Any] | None = None
        if (text_encoder is None) == (sentence_encoder is None):
            raise ValueError(
                "MVVDMPipeline: expected a text_encoder with its tokenizer or the name of a sentence_encoder, "
                f"got {'neither' if text_encoder is None else 'both'}"
            )
        if unet.config.image_embed_dim is not None and image_encoder is None:
            raise ValueError(
                "MVVDMPipeline: this unet has an IP-Adapter; give image_encoder and feature_extractor"
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
        callback_on_step_end: Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> MVVDMOutput | tuple[Any]:
        """Set an object in motion.

        Args:
            images: V pictures of the object, one a view, which become the first frames: uint8 [V, H, W, 3 or 4] or
                pictures of Pillow; what is transparent becomes MV-VDM's grey, and what is not must be on it. Or a
                glTF file, or what `renderers.gltf.load` returned, of which four pictures are rendered.
            prompt, negative_prompt: what happens, and what shall not.
            cameras: of the views; as `condition_cameras` by default.
            num_frames, resolution: T and pixels; as the model was trained by default.
            num_inference_steps, guidance_scale, eta: of the sampler. The scale is the model's own by default, 7.5 of
                the published one; 1 or less leaves out the second pass of the network that guidance needs.
            temperature: times this, the noise that videos begin as. Below 1 they are nearer to the likeliest, smoother
                and less unlike each other. The model's own by default, 1 of the published one.
            latents: noise to begin with, [V, T - 1, C, h, w], instead of the generator's.
            decode_chunk_size: pictures that are decoded at once.
            callback_on_step_end: called with pipeline, step, time step and the tensors asked for, of "latents"
                [V, T, C, h, w] and "prompt_embeds" [1 or 2, L, D]; "latents" may be returned, changed.

        Raises:
            ValueError: an argument of another kind or shape; which, and what was expected.
        """
        if output_type not in OUTPUTS:
            raise ValueError(f"output_type: expected one of {', '.join(OUTPUTS)}, got {output_type!r}")
        if unknown := set(callback_on_step_end_tensor_inputs) - set(self._callback_tensor_inputs):
            raise ValueError(
                f"callback_on_step_end_tensor_inputs: expected of {self._callback_tensor_inputs}, got {sorted(unknown)}"
            )
        if guidance_scale is None:
            guidance_scale = self.config.guidance_scale
        if temperature is None:
            temperature = self.config.temperature
        pictures = self._pictures(images, resolution or self.config.resolution)
        conditions = self._conditions(pictures, prompt, negative_prompt, cameras, guidance_scale > 1)
        first = self.encode_pictures(pictures, generator)[:, None]  # [V, 1, C, h, w], never changed
        self.scheduler.set_timesteps(num_inference_steps, device=first.device)
        noise = self._noise(first, num_frames or self.config.num_frames, generator, latents)
        moving = self._beginning(first, temperature * noise)

        taken = inspect.signature(self.scheduler.step).parameters  # some schedulers have no eta, or no chance
        extra = {name: v for name, v in (("eta", eta), ("generator", generator)) if name in taken}
        for iteration in range(self._free_init_num_iters if self.free_init_enabled else 1):
            self.scheduler.set_timesteps(num_inference_steps, device=first.device)
            if self.free_init_enabled:
                # It filters over frames, rows and columns, the last three axes; the first frame takes no part.
                mixed, _ = self._apply_free_init(
                    moving.transpose(1, 2),
                    iteration,
                    num_inference_steps,
                    first.device,
                    first.dtype,
                    generator,
                )
                moving = mixed.transpose(1, 2)
            for step, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
                scaled = self.scheduler.scale_model_input(moving, t)
                noise = self.predict_noise(first, scaled, t, conditions, guidance_scale)
                moving = self.scheduler.step(noise, t, moving, **extra).prev_sample
                if callback_on_step_end is not None:
                    known = {"latents": torch.cat([first, moving], dim=1), "prompt_embeds": conditions.text}
                    known = {name: known[name] for name in callback_on_step_end_tensor_inputs}
                    changed = callback_on_step_end(self, step, t, known) or {}
                    if "latents" in changed:
                        moving = changed["latents"][:, 1:]

        video = torch.cat([first, moving], dim=1)
        frames = video if output_type == "latent" else self._decode(video, output_type, decode_chunk_size)
        self.maybe_free_model_hooks()
        return MVVDMOutput(frames=frames) if return_dict else (frames,)

    def predict_noise(
        self, first: Tensor, moving: Tensor, t: Tensor, conditions: Conditions, guidance_scale: float
    ) -> Tensor:
        """What the network takes for noise in all frames but the first, [V, T - 1, C, h, w].

        Args:
            first: [V, 1, C, h, w], clean. moving: [V, T - 1, C, h, w], noisy. t: how noisy.
        """
        passes = len(conditions.text)
        sample = torch.cat([first, moving], dim=1).expand(passes, -1, -1, -1, -1, -1)
        noise = self.unet(sample, t, conditions.text, conditions.camera, conditions.image)[:, :, 1:]
        if passes == 1:
            return noise[0]
        without, with_prompt = noise
        return without + guidance_scale * (with_prompt - without)

    def sample(self, seed: int = 0, **options: Any) -> MVVDMOutput:
        """A video of the model's example; `options` are those of a call, `images` and `prompt` among them."""
        if self.example is None and "images" not in options:
            raise ZooError("this model has no example: call it with pictures and a sentence")
        options = {**(self.example or {}), **options}
        return self(generator=torch.Generator().manual_seed(seed), **options)

    def animate(
        self, asset: Asset | str | os.PathLike[str], sentence: str, *, seed: int = 0, **options: Any
    ) -> MVVDMOutput:
        """Set an object in motion; the same seed gives the same videos.

        Args:
            asset: a glTF file, or what `renderers.gltf.load` returned.
            sentence: what happens.
            seed: of the noise.
            options: of a call.
        """
        return self(asset, sentence, generator=torch.Generator().manual_seed(seed), **options)

    # --- conditions -------------------------------------------------------------------------------

    def _conditions(
        self, pictures: list[Image.Image], prompt: str, negative: str, cameras: Cameras | None, guided: bool
    ) -> Conditions:
        device, dtype, V = self._execution_device, self.unet.dtype, len(pictures)
        if cameras is not None and len(cameras) != V:
            raise ValueError(f"cameras: expected {V}, one a picture, got {len(cameras)}")
        text = self.encode_prompt([negative, prompt] if guided else [prompt]).to(device, dtype)
        camera = self.camera_vectors(cameras or condition_cameras(V)).to(device, dtype)
        image = self.encode_image(pictures)
        if image is not None:
            image = torch.stack([torch.zeros_like(image), image] if guided else [image])
        return Conditions(text, camera.expand(len(text), -1, -1), image)

    def _noise(
        self, first: Tensor, frames: int, generator: torch.Generator | None, latents: Tensor | None
    ) -> Tensor:
        """Noise for all frames but the first, [V, T - 1, C, h, w]."""
        shape = (len(first), frames - 1, *first.shape[2:])
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=first.device, dtype=first.dtype)
        elif latents.shape != shape:
            raise ValueError(
                f"latents: expected {list(shape)}, noise for all but the first frame, got {list(latents.shape)}"
            )
        return latents.to(first)

    def _beginning(self, first: Tensor, noise: Tensor) -> Tensor:
        """What all frames but the first begin as, [V, T - 1, C, h, w].

        In training the last time step leaves a trace of the video in the noise. A network that looks for the change
        from the first frame (`from_first`) finds it gone, and takes its absence for a change; so it is given the
        trace of the still first frame.
        """
        if not self.unet.config.from_first:
            return noise * self.scheduler.init_noise_sigma
        last = self.scheduler.timesteps[:1].expand(len(noise))
        return self.scheduler.add_noise(first.expand_as(noise), noise, last)

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> Tensor:
        """Sentences as the network is given them, [B, L, D]."""
        if self.text_encoder is None:
            return encode_sentences(prompts, self.config.sentence_encoder)
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            max_length=self.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self._execution_device))[0]

    @torch.no_grad()
    def encode_image(self, pictures: Sequence[Image.Image]) -> Tensor | None:
        """CLIP's embeddings [V, E] of pictures, one a view; None of a model without an IP-Adapter."""
        if self.unet.config.image_embed_dim is None:
            return None
        pixels = self.feature_extractor(list(pictures), return_tensors="pt").pixel_values
        embeds = self.image_encoder(pixels.to(self._execution_device, self.image_encoder.dtype)).image_embeds
        return embeds.to(self.unet.dtype)

    @torch.no_grad()
    def encode_pictures(
        self, pictures: Sequence[Image.Image], generator: torch.Generator | None = None
    ) -> Tensor:
        """Latents [V, C, h, w] of pictures: a sample, not the mean, as in training."""
        pixels = self.image_processor.preprocess(list(pictures)).to(self._execution_device, self.vae.dtype)
        latents = self.vae.encode(pixels).latent_dist.sample(generator) * self.vae.config.scaling_factor
        return latents.to(self.unet.dtype)

    @staticmethod
    def camera_vectors(cameras: Cameras) -> Tensor:
        """What the network is told of V cameras, [1, V, 16]: the house's y-up world turned into MVDream's z-up."""
        return torch.from_numpy(mvvdm_camera_vectors(cameras)).float()[None]

    def _pictures(self, images: Any, size: int) -> list[Image.Image]:
        """V pictures on grey, square, of this size."""
        factor = self.image_processor.config.vae_scale_factor
        if size % factor:
            raise ValueError(
                f"resolution: expected a multiple of {factor}, the autoencoder's step, got {size}"
            )
        if isinstance(images, str | os.PathLike) or hasattr(images, "positions"):
            images = condition_views(images, size=size)
        pictures = []
        for image in images:
            pixels = np.asarray(image.convert("RGBA") if isinstance(image, Image.Image) else image)
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
                raise ValueError(
                    f"images: expected a glTF file, uint8 [V, H, W, 3 or 4] or V pictures of Pillow, got one that is "
                    f"{pixels.dtype} {list(pixels.shape)}"
                )
            pixels = composite(pixels, GREY) if pixels.shape[2] == 4 else pixels
            pictures.append(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
        if not pictures:
            raise ValueError("images: expected at least one picture")
        return pictures

    def _decode(self, video: Tensor, output_type: str, at_once: int) -> Any:
        """Latents [V, T, C, h, w] to frames."""
        latents = video.flatten(0, 1).to(self.vae.dtype) / self.vae.config.scaling_factor
        pixels = torch.cat([self.vae.decode(chunk).sample for chunk in latents.split(at_once)])
        pixels = (pixels.float() / 2 + 0.5).clamp(0, 1).unflatten(0, video.shape[:2])
        if output_type == "pt":
            return pixels
        pixels = pixels.movedim(2, -1).cpu().numpy()
        if output_type == "np":
            return pixels
        pixels = (pixels * 255).round().astype(np.uint8)
        return pixels if output_type == "uint8" else [[Image.fromarray(f) for f in view] for view in pixels]

    # --- files ------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **options: Any
    ) -> MVVDMPipeline:
        """A pipeline of a folder that `save_pretrained` wrote, or of a hub repository that `push_to_hub` made.

        diffusers takes no repository whose parts are classes of another package; it does take its snapshot.

        Raises:
            ZooError: the folder is no pipeline of this kind, or names classes that have no place in one.
        """
        if not Path(pretrained_model_name_or_path).is_dir():
            from huggingface_hub import snapshot_download

            asked = ("cache_dir", "force_download", "local_files_only", "revision", "token")
            pretrained_model_name_or_path = snapshot_download(
                str(pretrained_model_name_or_path),
                allow_patterns=["*.json", "*.safetensors", "*.txt"],
                **{name: options.pop(name) for name in asked if name in options},
            )
        _check_index(Path(pretrained_model_name_or_path))
        return super().from_pretrained(pretrained_model_name_or_path, **{"use_safetensors": True, **options})

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
        """A pipeline of the files that others have published (`zoo.mvvdm.parts`; docs/mvvdm.md).

        Args:
            mvdream, motion_adapter, ip_adapter, released: hub repositories, folders or files. Animate3D's released
                weights contain a motion adapter; without them (`released=None`) one is needed, and the network is
                as it is before training.
            base: where text_encoder, tokenizer and vae lie; in `mvdream` if that is not a single file, else Stable
                Diffusion 1.5. image_encoder: in `ip_adapter` by default.
            config: `MVVDMConfig.base()` by default.

        Raises:
            ZooError: a file is refused or one is missing. HubError: the hub cannot be reached.
        """
        config = config or MVVDMConfig.base()
        if released is None and motion_adapter is None:
            raise ZooError(
                "from_pretrained_parts: without released weights, name a motion_adapter to begin with"
            )
        if config.image_embed_dim is not None and ip_adapter is None:
            raise ZooError(
                "from_pretrained_parts: this network has an IP-Adapter, name ip_adapter; or give a config without"
            )
        unet = MVVDMUNet(config).to(dtype)
        loaded = load_parts(
            unet, mvdream=mvdream, motion_adapter=motion_adapter, ip_adapter=ip_adapter, released=released
        )
        if left := sorted({kind(name) for name in loaded.missing} - {"spatial", "adapter"}, key=KINDS.index):
            raise ZooError(f"from_pretrained_parts: no file gave {' and '.join(left)}")
        base = base or (BASE if Path(mvdream).is_file() else mvdream)
        clip = {}
        if config.image_embed_dim is not None:
            folder = _folder(image_encoder or ip_adapter, IMAGE_ENCODER)
            clip = {
                "image_encoder": CLIPVisionModelWithProjection.from_pretrained(**folder, torch_dtype=dtype),
                "feature_extractor": CLIPImageProcessor(),
            }
        return cls(
            vae=AutoencoderKL.from_pretrained(**_folder(base, "vae"), torch_dtype=dtype),
            unet=unet.eval(),
            scheduler=mvvdm_scheduler(),
            text_encoder=CLIPTextModel.from_pretrained(**_folder(base, "text_encoder"), torch_dtype=dtype),
            tokenizer=CLIPTokenizer.from_pretrained(**_folder(base, "tokenizer")),
            **clip,
        )

    def save_to(self, folder: Path) -> dict[str, Any]:
        """Write what a repository of the zoo holds of this model; what `load_from` needs beside, for JSON.

        Weights are stored in half precision, all in one file; tokenizer and image preprocessing as JSON beside it.
        """
        from safetensors.torch import save

        state, init = {}, {"card": self.card, "scheduler": _plain(self.scheduler.config)}
        for name in _MODELS:
            if (part := getattr(self, name)) is not None:
                init[name] = _plain(part.config if name in ("vae", "unet") else part.config.to_dict())
                state |= {
                    f"{name}.{key}": t.half().cpu().contiguous() for key, t in part.state_dict().items()
                }
        for name in _PREPARE:
            if (part := getattr(self, name)) is not None:
                part.save_pretrained(folder / name)
        for name in _SETTINGS:
            init[name] = self.config[name]
        if self.example is not None:
            state[f"{EXAMPLE}.images"] = torch.from_numpy(np.ascontiguousarray(self.example["images"]))
            init[EXAMPLE] = {name: value for name, value in self.example.items() if name != "images"}
            self.sample(0).save(folder / PREVIEW)
        (folder / WEIGHTS).write_bytes(save(state))  # save_file would keep it from other users of the machine
        return init

    @classmethod
    def load_from(cls, folder: Path, init: dict[str, Any]) -> MVVDMPipeline:
        """What `save_to` wrote; single precision, on the CPU."""
        from safetensors.torch import load_file

        state = load_file(folder / WEIGHTS)
        parts: dict[str, Any] = {"scheduler": DDIMScheduler.from_config(init["scheduler"])}
        for name, make in _MODELS.items():
            if name in init:
                parts[name] = make(init[name])
                prefix = f"{name}."
                parts[name].load_state_dict(
                    {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
                )
                parts[name].eval().requires_grad_(False)
        for name, kind_of in _PREPARE.items():
            if (folder / name).is_dir():
                parts[name] = kind_of.from_pretrained(folder / name, local_files_only=True)
        fields = {name: init[name] for name in _SETTINGS}
        pipeline = cls(**parts, **fields)
        pipeline.card = init["card"]
        if EXAMPLE in init:
            pipeline.example = {"images": state[f"{EXAMPLE}.images"].numpy(), **init[EXAMPLE]}
        return pipeline


# What has weights, and how it is made of its config; what prepares sentences and pictures for it.
_MODELS: dict[str, Callable[[dict[str, Any]], torch.nn.Module]] = {
    "vae": lambda config: _autoencoder(config).from_config(config),
    "unet": MVVDMUNet.from_config,
    "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig(**config)),
    "image_encoder": lambda config: CLIPVisionModelWithProjection(CLIPVisionConfig(**config)),
}
_SETTINGS = ("num_frames", "resolution", "sentence_encoder", "guidance_scale", "temperature")
_PREPARE = {"tokenizer": CLIPTokenizer, "feature_extractor": CLIPImageProcessor}


# diffusers imports the modules that a pipeline's index names: which may be named is decided here.
_LIBRARIES = ("diffusers", "transformers", MVVDMUNet.__module__, PatchAutoencoder.__module__)


def _check_index(folder: Path) -> None:
    try:
        index = json.loads((folder / "model_index.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ZooError(
            f"{folder}: has no readable model_index.json ({error}); it is no pipeline of diffusers"
        ) from error
    for name, value in index.items():
        if isinstance(value, list) and value[0] not in (None, *_LIBRARIES):
            raise ZooError(
                f"{folder}: model_index.json wants {name} from {value[0]}, expected {', '.join(_LIBRARIES)}; do not "
                f"use this model"
            )


def _autoencoder(config: dict[str, Any]) -> type[AutoencoderKL] | type[PatchAutoencoder]:
    """The class that a config is of: diffusers' names its kinds of blocks, ours has one kind."""
    return AutoencoderKL if "down_block_types" in config else PatchAutoencoder


def _folder(source: Source, name: str) -> dict[str, Any]:
    """Where from_pretrained finds a part: in a folder below a folder, or in one of a hub repository."""
    if Path(source).is_dir():
        return {"pretrained_model_name_or_path": str(Path(source) / name)}
    return {"pretrained_model_name_or_path": str(source), "subfolder": name}


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    """A config without diffusers' notes to itself."""
    return {name: value for name, value in config.items() if not name.startswith("_")}
