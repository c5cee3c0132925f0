"""What a clip shows, in words: without a model from what its author wrote, or by a video-language model.

Captions of models do not go into the shards, whose videos would all be written and uploaded anew for a few bytes.
They are a table beside them, `captions/part-*.parquet`, one row a clip; `factory.load_clips` puts them in place of
the row's own caption, the newest first. A part is written once and never touched again, but for takedowns.
"""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cluster import Ledger, Outcome, Report, Stage, StageError, Task, run
from cluster.storage import Storage, StorageError
from renderers.meshes.clip import GREY

FOLDER = "captions"
BY_AUTHOR, BY_NAMES = "the asset's author", "title, tags and animation name"
PROMPT = (
    "These are frames of a short video of one animated 3D model. In one sentence, say what it is and how it moves. "
    "Leave out the background, the camera and the style."
)
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("clip_id", "caption", "caption_origin", "prompt", "at")]
)
_LEDGER = "_factory/captioning"
_CLIPS_PER_TASK = 32
_MOST_CHARACTERS = 500
_MOST_TAGS = 5
# Names that programs give, which say nothing.
_MEANINGLESS = re.compile(
    r"(animation|anim|action|take|scene|armature\w*|skeleton|default( take)?|mixamo( ?com)?|main|main animation|"
    r"cinema 4d main|layer|base layer|\w* ?action|\w*object|)( ?\d+)?"
)


class Caption(NamedTuple):
    """A caption and what wrote it; both "" if nobody did."""

    text: str
    origin: str


# --- without a model ---------------------------------------------------------------------------------


def caption_from_names(
    title: str, tags: Sequence[str], animation_name: str, description: str = ""
) -> Caption:
    """What the asset's author wrote of a clip: the description if there is one, else title, tags and names.

    Args:
        title: a file's path will do. animation_name: "Armature|walk_cycle.001" becomes "walk cycle".
    """
    if said := _line(description):
        return Caption(said, BY_AUTHOR)
    is_file = re.search(r"\.(glb|gltf|fbx|blend)$", title, flags=re.IGNORECASE)
    what = _words(PurePosixPath(title).stem if is_file else title)
    action = _words(animation_name).lower()
    action = "" if _MEANINGLESS.fullmatch(action) else action
    about = ", ".join(filter(None, map(_words, tags[:_MOST_TAGS])))
    text = _line(", ".join(filter(None, (f"{what} ({about})" if what and about else what or about, action))))
    return Caption(text, BY_NAMES if text else "")


def _words(name: str) -> str:
    """A name as programs write it, as words."""
    name = re.sub(r"\.\d+$", "", _line(name).rpartition("|")[2])
    name = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name)
    return " ".join(re.split(r"[\s_.\-]+", name)).strip()


def _line(text: str) -> str:
    """One line without control characters, not too long."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + "…"


# --- by a model --------------------------------------------------------------------------------------


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
        return [_line(text) for text in self.processor.batch_decode(answers, skip_special_tokens=True)]

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
        from factory.dataset import load_clips

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
        data = _pack(
            pa.Table.from_pylist([dict(zip(_SCHEMA.names, row, strict=True)) for row in rows], _SCHEMA)
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
    from factory.dataset import load_clips
    from factory.stages import digest  # stages take `caption_from_names` from here

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
            digest("caption", origin, stage.prompt, *group), {"clips": group, "at": at}, f"{len(group)} clips"
        )
        for group in _chunks(todo, _CLIPS_PER_TASK)
    ]


def caption_dataset(
    root: str | os.PathLike[str], stage: CaptionStage, *, workers: int | None = None
) -> Report:
    """Caption every clip of a dataset that has no caption by this model and prompt.

    Interrupted, or after new clips were added, the same call does the rest.

    Raises:
        StageError: the model cannot be loaded. StorageError, Interrupted: what is done stays.
    """
    return run(stage, caption_tasks(root, stage), Ledger(root, _LEDGER), workers=workers)


def _chunks(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


# --- the table ---------------------------------------------------------------------------------------


def read_caption_rows(root: str | os.PathLike[str]) -> list[dict]:
    """All captions beside the shards of a dataset: clip_id, caption, caption_origin, prompt and at, oldest first."""
    rows = [row for _, table in _parts(Storage(root, "_factory/tmp")) for row in table.to_pylist()]
    return sorted(rows, key=lambda row: row["at"])


def newest_captions(rows: Iterable[dict]) -> dict[str, Caption]:
    """clip_id → its last caption that is not empty."""
    return {row["clip_id"]: Caption(row["caption"], row["caption_origin"]) for row in rows if row["caption"]}


def remove_captions(root: str | os.PathLike[str], clips: Collection[str]) -> None:
    """Remove the captions of some clips."""
    storage, doomed = Storage(root, "_factory/tmp"), set(clips)
    for name, table in _parts(storage):
        kept = table.filter(pa.array([key not in doomed for key in table["clip_id"].to_pylist()], pa.bool_()))
        if not len(kept):
            storage.remove(name)
        elif len(kept) < len(table):
            storage.write(name, _pack(kept))


def _parts(storage: Storage) -> Iterator[tuple[str, pa.Table]]:
    names = [f"{FOLDER}/{name}" for name in storage.names(FOLDER) if name.endswith(".parquet")]
    for name, data in sorted(storage.read_many(names).items()):
        try:
            yield name, pq.read_table(pa.BufferReader(data), columns=_SCHEMA.names)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageError(
                f"{storage.path(name)} cannot be read ({error}): remove it and caption again"
            ) from None


def _pack(table: pa.Table) -> bytes:
    target = io.BytesIO()
    pq.write_table(table, target)
    return target.getvalue()
