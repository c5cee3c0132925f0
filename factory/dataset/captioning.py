"""Captioning clips with a video-language model, on the cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa

from cluster import Ledger, Outcome, Progress, Report, Stage, StageError, Task, run, task_key
from factory.console import Show, Status
from factory.dataset.captions import FOLDER, SCHEMA, one_line, pack_captions, read_caption_rows
from factory.dataset.reader import load_clips
from renderers.meshes.clip import GREY
from zoo.threads import worker_threads

PROMPT = (
    "These are frames of a short video of one animated 3D model. In one sentence, say what it is and how it moves. "
    "Leave out the background, the camera and the style."
)
_LEDGER = "_factory/captioning"
_CLIPS_PER_TASK = 32


class Captioner:
    """A video-language model: any model that transformers' `AutoModelForImageTextToText` loads.

    Args:
        model: name on the hub, or folder. Remote code is never run.
        prompt: instruction that accompanies the frames.
        max_new_tokens: maximum length of a caption.
        gpu: whether to run on a GPU.
    """

    def __init__(
        self, model: str, *, prompt: str = PROMPT, max_new_tokens: int = 80, gpu: bool = False
    ) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.prompt, self.max_new_tokens = prompt, max_new_tokens
        self.device = torch.device("cuda" if gpu else "cpu")
        self.processor: Any = AutoProcessor.from_pretrained(model)
        self.processor.tokenizer.padding_side = "left"  # generated tokens follow the prompt
        self.model: Any = AutoModelForImageTextToText.from_pretrained(
            model, dtype="auto" if gpu else torch.float32
        )
        self.model.to(self.device).eval()  # type: ignore[arg-type]
        self._takes_video = getattr(self.processor, "video_processor", None) is not None

    def __call__(self, videos: Sequence[np.ndarray], fps: float) -> list[str]:
        """Caption videos in one batch.

        Args:
            videos: uint8 [T, H, W, 3] each.
            fps: frames per second.

        Returns:
            One caption per video, a single line each.
        """
        import torch

        inputs = self.inputs(videos, fps, self.prompt)
        with torch.inference_mode():
            tokens = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        captions = tokens[:, inputs["input_ids"].shape[1] :]
        return [one_line(text) for text in self.processor.batch_decode(captions, skip_special_tokens=True)]

    def inputs(self, videos: Sequence[np.ndarray], fps: float, prompt: str) -> Any:
        """A batch of videos, each with an instruction, as the model's arguments on its device.

        Args:
            videos, fps: as for a call.
            prompt: the instruction.
        """
        conversations = [
            [{"role": "user", "content": [*self._video_content(video), {"type": "text", "text": prompt}]}]
            for video in videos
        ]
        options: dict[str, Any] = {"padding": True, "return_tensors": "pt"}
        if self._takes_video:
            options |= {
                "do_sample_frames": False,
                "video_metadata": [_video_metadata(video, fps) for video in videos],
            }
        inputs = self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs=options,
        )
        return inputs.to(self.device, dtype=self.model.dtype)

    def _video_content(self, video: np.ndarray) -> list[dict[str, Any]]:
        """The frames as the model's chat template takes them: one video, or a list of images."""
        if self._takes_video:
            return [{"type": "video", "video": video}]
        from PIL import Image

        return [{"type": "image", "image": Image.fromarray(frame)} for frame in video]


def _video_metadata(video: np.ndarray, fps: float) -> dict[str, Any]:
    frames, height, width, _ = video.shape
    return {
        "total_num_frames": frames,
        "fps": fps,
        "width": width,
        "height": height,
        "duration": frames / fps,
        "frames_indices": list(range(frames)),
    }


@dataclass(frozen=True)
class CaptionJob:
    """Payload of a task: the clips that one worker captions.

    Attributes:
        clips: clip_id of each.
        at: time at which the run started, ISO 8601; orders the captions of several runs.
    """

    clips: tuple[str, ...]
    at: str

    def to_json(self) -> dict[str, Any]:
        return {"clips": list(self.clips), "at": self.at}

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> CaptionJob:
        return cls(tuple(payload["clips"]), payload["at"])


@dataclass
class CaptionStage(Stage):
    """Captions clips of a dataset in batches, each from view 0 on grey.

    Attributes:
        dataset: folder or URL.
        model: see `Captioner`.
        prompt: see `Captioner`.
        num_gpus: GPUs per worker; 0.25 puts four workers on one GPU, 0 uses the CPU.
        batch: clips per forward pass.
        frames: frames per clip, evenly spaced.
        memory: bytes reserved per worker.
        timeout_s: limit for one task, seconds.
    """

    dataset: str
    model: str
    prompt: str = PROMPT
    num_gpus: float = 0.0
    batch: int = 8
    frames: int = 8
    memory: int = 16 * 2**30
    timeout_s: float = 1800.0

    def setup(self) -> None:
        try:
            self._captioner = Captioner(self.model, prompt=self.prompt, gpu=self.num_gpus > 0)
        except (ImportError, OSError, ValueError) as error:
            raise StageError(
                f"{self.model} cannot be loaded with AutoModelForImageTextToText and AutoProcessor: {error}"
            ) from error
        self._clips = load_clips(self.dataset)

    def process(self, task: Task) -> Outcome:
        job = CaptionJob.from_json(task.payload)
        rows = []
        for ids in _chunks(job.clips, self.batch):
            videos = [self._video(clip_id) for clip_id in ids]
            texts = self._captioner([video for video, _ in videos], videos[0][1])
            rows += [
                (clip_id, text, origin_of(self.model), self.prompt, job.at)
                for clip_id, text in zip(ids, texts, strict=True)
            ]
        data = pack_captions(
            pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA)
        )
        return Outcome("done", {"clips": len(rows)}, files={f"{FOLDER}/part-{task.key}.parquet": data})

    def _video(self, clip_id: str) -> tuple[np.ndarray, float]:
        """Evenly spaced frames of a clip, uint8 [T, H, W, 3], and their rate per second."""
        clip = self._clips.clip(clip_id)
        count = clip.metadata["num_frames"]
        indices = np.unique(np.linspace(0, count - 1, min(self.frames, count)).round().astype(int)).tolist()
        frames = clip.read(views=[0], frames=indices, background=GREY).frames[0]
        return frames, clip.metadata["fps"] * len(indices) / count


def origin_of(model: str) -> str:
    """The value of the column `caption_origin` for a model: its name on the hub, or the last part of its folder."""
    return f"model {PurePosixPath(model).name if os.path.isdir(model) else model}"


def caption_tasks(root: str | os.PathLike[str], stage: CaptionStage) -> list[Task]:
    """Create tasks for the clips that this model has not captioned with this prompt yet."""
    origin = origin_of(stage.model)
    captioned = {
        row["clip_id"]
        for row in read_caption_rows(root)
        if row["caption_origin"] == origin and row["prompt"] == stage.prompt
    }
    ids = load_clips(root).table(["clip_id"])["clip_id"].to_pylist()
    pending = [clip_id for clip_id in ids if clip_id not in captioned]
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return [
        Task(
            task_key("caption", origin, stage.prompt, *group),
            CaptionJob(tuple(group), at).to_json(),
            f"{len(group)} clips",
        )
        for group in _chunks(pending, _CLIPS_PER_TASK)
    ]


def caption_dataset(
    root: str | os.PathLike[str], stage: CaptionStage, *, workers: int | None = None, show: Show | None = None
) -> Report:
    """Caption every clip of a dataset that has no caption by this model and prompt.

    After an interruption, or when clips were added, the same call captions the remaining clips.

    Args:
        root: folder or URL of the dataset.
        stage: the model and its options.
        workers: number of worker processes; None = as many as the cluster has room for.

    Raises:
        StageError: the model cannot be loaded.
        StorageError: the captions cannot be written; finished parts are kept.
        Interrupted: the run was interrupted; finished parts are kept.
    """
    tasks = caption_tasks(root, stage)

    def on_tick(progress: Progress) -> None:
        if show:
            facts = {"failed": progress.counts.get("quarantined", 0), "workers": progress.workers}
            done = progress.counts.get("done", 0)
            show(lambda: Status("groups of clips", done, len(tasks), progress.seconds, facts=facts))

    with worker_threads(workers):
        return run(stage, tasks, Ledger(root, _LEDGER), workers=workers, on_tick=on_tick)


def _chunks(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
