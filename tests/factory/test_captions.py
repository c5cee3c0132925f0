"""Captions: composed from names, written by tiny instances of real model classes, and stored beside the shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample_clips import clip_info, disc_clip
from tiny_vision_language import lively, save_tiny_llava, template, tokenizer

from cluster import Ledger, StageError, run_inline
from cluster.storage import StorageError
from factory.dataset import captioning
from factory.dataset.captioning import PROMPT, Captioner, CaptionStage, caption_tasks
from factory.dataset.captions import (
    BY_AUTHOR,
    BY_NAMES,
    caption_from_names,
    read_caption_rows,
    remove_captions,
)
from factory.dataset.pages.card import write_card
from factory.dataset.reader import load_clips
from factory.dataset.schema import make_row, write_row

transformers = pytest.importorskip("transformers", reason="captions by a model need transformers")

# --- without a model ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "tags", "animation", "description", "caption"),
    [
        ("Fox", (), "Survey", "", "Fox, survey"),
        ("Fox", ("animal", "low-poly"), "Walk", "", "Fox (animal, low poly), walk"),
        ("models/Quaternius_robot.glb", (), "Robot|WalkJump.001", "", "Quaternius robot, walk jump"),
        ("Knight", (), "mixamo.com", "", "Knight"),
        ("Bird", (), "animation 0", "", "Bird"),
        ("Bird", (), "Take 001", "", "Bird"),
        ("Bird", (), "Armature|ArmatureAction", "", "Bird"),
        ("", (), "dance", "", "dance"),
        ("", (), "Scene", "", ""),
        ("Kangaroo", ("toy",), "hop", "A kangaroo hops\n\ttwice.", "A kangaroo hops twice."),
        ("<b>龍</b>\x00\u202e", (), "飛ぶ", "", "<b>龍</b>, 飛ぶ"),
        ("x" * 2000, (), "", "", "x" * 499 + "…"),
    ],
)
def test_captions_from_what_the_author_wrote(title, tags, animation, description, caption):
    made = caption_from_names(title, tags, animation, description)
    assert made.text == caption
    assert made.origin == (BY_AUTHOR if description else BY_NAMES if caption else "")


# --- by a model --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def video_model(tmp_path_factory) -> Path:
    """Qwen2-VL, a class that takes videos, with a few thousand random weights."""
    import torch

    folder = tmp_path_factory.mktemp("models") / "tiny-qwen2-vl"
    torch.manual_seed(0)
    words = tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    config = transformers.Qwen2VLConfig(
        text_config={
            "vocab_size": len(words),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
            "pad_token_id": words.pad_token_id,
            "eos_token_id": words.eos_token_id,
            "bos_token_id": None,
        },
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "patch_size": 14},
        image_token_id=words.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=words.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
    )
    lively(transformers.Qwen2VLForConditionalGeneration(config)).save_pretrained(folder)
    sizes = {"size": {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}}
    transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(**sizes),
        tokenizer=words,
        video_processor=transformers.Qwen2VLVideoProcessor(**sizes),
        chat_template=template(
            image="<|vision_start|><|image_pad|><|vision_end|>",
            video="<|vision_start|><|video_pad|><|vision_end|>",
        ),
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def picture_model(tmp_path_factory) -> Path:
    """LLaVA, a class that takes single images."""
    return save_tiny_llava(tmp_path_factory.mktemp("models") / "tiny-llava")


def videos(count: int) -> list[np.ndarray]:
    """Noise of different brightness and length."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 60 + 60 * n, (4 + 2 * (n // 2), 64, 64, 3), np.uint8) for n in range(count)]


@pytest.mark.parametrize("kind", ["video_model", "picture_model"])
def test_a_model_answers_for_each_video_of_a_batch(kind, request):
    captioner = Captioner(str(request.getfixturevalue(kind)), max_new_tokens=12)
    shown = videos(3)
    together = captioner(shown, fps=8.0)
    alone = [captioner([video], fps=8.0)[0] for video in shown]
    assert together == alone and len(set(together)) > 1  # captions depend on the frames and not on padding
    assert all(isinstance(text, str) and "\n" not in text for text in together)


def test_the_question_is_asked(video_model):
    """Control: another prompt gives another caption."""
    shown = videos(1)
    answers = {
        Captioner(str(video_model), prompt=p, max_new_tokens=12)(shown, 8.0)[0] for p in (PROMPT, "Who?")
    }
    assert len(answers) == 2


def test_a_model_that_is_not_there_is_the_jobs_failure(tmp_path):
    with pytest.raises(StageError, match="no-such-model"):
        CaptionStage(str(tmp_path), str(tmp_path / "no-such-model")).setup()


# --- beside the shards -------------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Two shards of three clips."""
    out = tmp_path / "dataset"
    for part in range(2):
        rows = [
            make_row(
                disc_clip(4), clip_info(4, clip_id=f"clip-{part}{n}", asset_uid=f"disc-{n}", caption="own")
            )
            for n in range(3)
        ]
        tables = [pq.read_table(pa.BufferReader(write_row(row))) for row in rows]
        path = out / f"data/train/part-{part:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.concat_tables(tables), path)
    return out


def caption(out: Path, model: Path, **options) -> int:
    """Run `caption_dataset` in this process; return the number of tasks."""
    stage = CaptionStage(str(out), str(model), **options)
    tasks = caption_tasks(out, stage)
    run_inline(stage, tasks, Ledger(out, captioning.LEDGER))
    return len(tasks)


def test_captions_lie_beside_the_shards_and_are_read_with_them(dataset, video_model):
    shards = {path: path.read_bytes() for path in (dataset / "data").rglob("*.parquet")}
    assert {clip.metadata["caption"] for clip in load_clips(dataset)} == {"own"}
    assert caption(dataset, video_model, batch=2, frames=4) == 1
    assert shards == {path: path.read_bytes() for path in (dataset / "data").rglob("*.parquet")}
    rows = read_caption_rows(dataset)
    assert [row["clip_id"] for row in rows] == [f"clip-{part}{n}" for part in range(2) for n in range(3)]
    assert {row["caption_origin"] for row in rows} == {
        "model tiny-qwen2-vl"
    }  # without the path of its folder
    expected = {row["clip_id"]: row["caption"] or "own" for row in rows}
    clips = load_clips(dataset)
    assert {clip.clip_id: clip.metadata["caption"] for clip in clips} == expected
    table = clips.table()
    assert dict(zip(table["clip_id"].to_pylist(), table["caption"].to_pylist(), strict=True)) == expected
    assert clips.table(["caption_origin"])["caption_origin"].to_pylist() == [
        "model tiny-qwen2-vl" if row["caption"] else "" for row in rows
    ]
    write_card(dataset)
    assert "config_name: captions" in (dataset / "README.md").read_text()


def test_only_what_has_no_caption_yet_is_captioned(dataset, video_model):
    assert caption(dataset, video_model) == 1
    assert caption(dataset, video_model) == 0
    new = dataset / "data/train/part-00002.parquet"
    row = make_row(disc_clip(4), clip_info(4, clip_id="new"))
    new.write_bytes(write_row(row))
    parts = {path: path.read_bytes() for path in (dataset / "captions").iterdir()}
    assert caption(dataset, video_model) == 1
    now = {path: path.read_bytes() for path in (dataset / "captions").iterdir()}
    assert len(now) == len(parts) + 1 and parts.items() <= now.items()
    assert caption(dataset, video_model, prompt="Who?") == 1  # another prompt
    assert len(read_caption_rows(dataset)) == 14


def test_captions_of_removed_clips_go(dataset, video_model):
    caption(dataset, video_model)
    remove_captions(dataset, ["clip-00", "nobody"])
    assert len(read_caption_rows(dataset)) == 5
    remove_captions(dataset, [row["clip_id"] for row in read_caption_rows(dataset)])
    assert list((dataset / "captions").iterdir()) == []
    assert {clip.metadata["caption"] for clip in load_clips(dataset)} == {"own"}


def test_a_torn_part_is_named(dataset, video_model):
    caption(dataset, video_model)
    (part,) = (dataset / "captions").iterdir()
    part.write_bytes(b"torn")
    with pytest.raises(StorageError, match="remove it and caption again"):
        load_clips(dataset).table()


def test_datasets_reads_the_captions_as_a_config(dataset, video_model, tmp_path):
    import datasets

    caption(dataset, video_model)
    write_card(dataset)
    copy = shutil.copytree(dataset, tmp_path / "captioned dataset")
    rows = datasets.load_dataset(str(copy), "captions", split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(rows["clip_id"]) == sorted(row["clip_id"] for row in read_caption_rows(dataset))
