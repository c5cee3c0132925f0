"""Caption clips with a video-language model, on the cluster."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from cluster import Ledger, Outcome, Progress, Report, Stage, StageError, Task, run, task_key
from factory.console import Show, Status
from factory.dataset.captions import FOLDER, SCHEMA, one_line, pack_captions, read_caption_rows
from factory.dataset.reader import load_clips
from renderers.meshes.clip import GREY

PROMPT = (
    "These are frames of a short video of one animated 3D model. In one sentence, say what it is and how it moves. "
    "Leave out the background, the camera and the style."
)
_LEDGER = "_factory/captioning"
_CLIPS_PER_TASK = 32


class Captioner:
    """A video-language model: any that transformers' `AutoModelForImageTextToText` loads.

    Args:
        model: name on the hub, or folder. No code that comes with it is run.
        prompt: the question. max_new_tokens: of an answer.
        gpu: whether to use one.
    """

    def __init__(
        self, model: str, *, prompt: str = PROMPT, max_new_tokens: int = 80, gpu: bool = False
    ) -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self.prompt, self.max_new_tokens = prompt, max_new_tokens
        self.device = torch.device("cuda" if gpu else "cpu")
        self.processor = AutoProcessor.from_pretrained(model)
        self.processor.tokenizer.padding_side = "left"  # answers are written behind the question
        loaded = AutoModelForImageTextToText.from_pretrained(model, dtype="auto" if gpu else torch.float32)
        self.model = loaded.to(self.device).eval()
        self._takes_video = getattr(self.processor, "video_processor", None) is not None

    def __call__(self, videos: Sequence[np.ndarray], fps: float) -> list[str]:
        """A caption for each video.

        Args:
            videos: uint8 [T, H, W, 3] each. fps: frames a second.
        """
        import torch

        conversations = [
            [{"role": "user", "content": [*self._pictures(video), {"type": "text", "text": self.prompt}]}]
            for video in videos
        ]
        options = {"padding": True, "return_tensors": "pt"}
        if self._takes_video:
            options |= {
                "do_sample_frames": False,
                "video_metadata": [_metadata(video, fps) for video in videos],
            }
        inputs = self.processor.apply_chat_template(
            conversations,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs=options,
        )
        inputs = inputs.to(self.device, dtype=self.model.dtype)
        with torch.inference_mode():
            written = self.model.generate(**inputs, max_new_tokens=self.max_new_tokens, do_sample=False)
        answers = written[:, inputs["input_ids"].shape[1] :]
        return [one_line(text) for text in self.processor.batch_decode(answers, skip_special_tokens=True)]

    def _pictures(self, video: np.ndarray) -> list[dict]:
        if self._takes_video:
            return [{"type": "video", "video": video}]
        from PIL import Image

        return [{"type": "image", "image": Image.fromarray(frame)} for frame in video]


def _metadata(video: np.ndarray, fps: float) -> dict:
    frames, height, width, _ = video.shape
    return {
        "total_num_frames": frames,
        "fps": fps,
        "width": width,
        "height": height,
        "duration": frames / fps,
        "frames_indices": list(range(frames)),
    }


@dataclass
class CaptionStage(Stage):
    """Captions clips of a dataset, several at a time, each from view 0 on grey.

    Attributes:
        dataset: folder or URL. model: see `Captioner`. prompt: the question.
        num_gpus: of one worker; 0.25 puts four of them on one GPU, 0 uses the CPU.
        batch: clips a forward pass. frames: of a clip, evenly spaced.
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
                f"{self.model} is not a model that AutoModelForImageTextToText and AutoProcessor load here: {error}"
            ) from error
        self._clips = load_clips(self.dataset)

    def process(self, task: Task) -> Outcome:
        rows = []
        for ids in _chunks(task.payload["clips"], self.batch):
            videos = [self._video(clip_id) for clip_id in ids]
            texts = self._captioner([video for video, _ in videos], videos[0][1])
            rows += [
                (clip_id, text, origin_of(self.model), self.prompt, task.payload["at"])
                for clip_id, text in zip(ids, texts, strict=True)
            ]
        data = pack_captions(
            pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA)
        )
        return Outcome("done", {"clips": len(rows)}, files={f"{FOLDER}/part-{task.key}.parquet": data})

    def _video(self, clip_id: str) -> tuple[np.ndarray, float]:
        """Frames uint8 [T, H, W, 3] and how many there are a second."""
        clip = self._clips.clip(clip_id)
        count = clip.metadata["num_frames"]
        moments = np.unique(np.linspace(0, count - 1, min(self.frames, count)).round().astype(int)).tolist()
        frames = clip.read(views=[0], frames=moments, background=GREY).frames[0]
        return frames, clip.metadata["fps"] * len(moments) / count


def origin_of(model: str) -> str:
    """What the column `caption_origin` says of a model: its name on the hub, of a folder only the last part."""
    return f"model {PurePosixPath(model).name if os.path.isdir(model) else model}"


def caption_tasks(root: str | os.PathLike[str], stage: CaptionStage) -> list[Task]:
    """The clips of a dataset that this model has not captioned with this prompt yet, in groups."""

    origin = origin_of(stage.model)
    have = {
        row["clip_id"]
        for row in read_caption_rows(root)
        if row["caption_origin"] == origin and row["prompt"] == stage.prompt
    }
    ids = load_clips(root).table(["clip_id"])["clip_id"].to_pylist()
    todo = [clip_id for clip_id in ids if clip_id not in have]
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return [
        Task(
            task_key("caption", origin, stage.prompt, *group),
            {"clips": group, "at": at},
            f"{len(group)} clips",
        )
        for group in _chunks(todo, _CLIPS_PER_TASK)
    ]


def caption_dataset(
    root: str | os.PathLike[str], stage: CaptionStage, *, workers: int | None = None, show: Show | None = None
) -> Report:
    """Caption every clip of a dataset that has no caption by this model and prompt.

    Interrupted, or after new clips were added, the same call does the rest.

    Raises:
        StageError: the model cannot be loaded. StorageError, Interrupted: what is done stays.
    """
    tasks = caption_tasks(root, stage)

    def on_tick(progress: Progress) -> None:
        if show:
            facts = {"failed": progress.counts.get("quarantined", 0), "workers": progress.workers}
            done = progress.counts.get("done", 0)
            show(lambda: Status("groups of clips", done, len(tasks), progress.seconds, facts=facts))

    return run(stage, tasks, Ledger(root, _LEDGER), workers=workers, on_tick=on_tick)


def _chunks(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
