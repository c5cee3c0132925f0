"""Model cards: front matter as the hub's client reads it, and text without side effects."""

from __future__ import annotations

import re

import pytest

from zoo.card import model_card, numbers

huggingface_hub = pytest.importorskip("huggingface_hub", reason="reads the card as a hub would")
markdown_it = pytest.importorskip("markdown_it", reason="renders the card as a web page would")

CARD = {
    "title": "Kangaroo",
    "summary": "A motion space: 50 motions.",
    "license": "CC0-1.0",
    "tags": ["4d", "dimo"],
    "datasets": ["org/mv-video"],
    "base_model": "org/base",
    "sections": {
        "Motions": [{"motion": "hop", "say": "hops | forward"}, {"motion": "wave"}],
        "Notes": "None.",
    },
}
METRICS = {
    "protocol": "Held-out views.",
    "dataset": {"name": "kangaroo, 50 motions", "type": "mv-video"},
    "mean": {"psnr": 29.123, "mask_iou": 0.95},
    "worst": {"psnr": 24.5, "motion": "hop"},
    "steps": 100,
    "motions": {"hop": {"psnr": 30}},
    "done": True,
}


def test_a_hub_reads_the_metrics():
    text = model_card("dimo/kangaroo", "dimo", CARD, METRICS)
    data = huggingface_hub.ModelCard(text).data
    assert (
        data.license == "cc0-1.0" and data.library_name == "menagerie4d" and data.pipeline_tag == "text-to-3d"
    )
    assert data.tags == ["menagerie4d", "dimo", "4d"] and data.datasets == ["org/mv-video"]
    assert data.base_model == "org/base" and data.model_name == "dimo/kangaroo"
    results = {result.metric_name: result.metric_value for result in data.eval_results}
    assert (
        results == {"mean psnr": 29.123, "mean mask iou": 0.95, "worst psnr": 24.5} == dict(numbers(METRICS))
    )
    assert {(r.task_type, r.dataset_name, r.dataset_type) for r in data.eval_results} == {
        ("text-to-3d", "kangaroo, 50 motions", "mv-video")
    }
    assert {result.metric_type for result in data.eval_results} == {
        "mean_psnr",
        "mean_mask_iou",
        "worst_psnr",
    }


def test_a_reader_sees_the_description():
    body = model_card("dimo/kangaroo", "dimo", CARD, METRICS).split("---\n", 2)[2]
    page = markdown_it.MarkdownIt("commonmark").enable("table").render(body)
    snippet = "zoo.load(&quot;dimo/kangaroo&quot;)"
    for words in (
        "<h1>Kangaroo</h1>",
        snippet,
        "<td>29.12</td>",
        "<td>hops | forward</td>",
        "<h2>Notes</h2>",
    ):
        assert words in page
    assert page.count("<video") == 1


def test_every_field_is_optional():
    text = model_card("tiny/x", "tiny", {}, {})
    data = huggingface_hub.ModelCard(text).data
    assert data.license == "other" and data.eval_results is None and data.datasets is None
    assert "## Metrics" not in text


def test_untrusted_text_is_inert():
    evil = 'x"\n- y\nlicense: mit\n---\n# </td><script>alert(1)</script> [a](javascript:b) @all'
    card = {
        "title": evil,
        "summary": evil,
        "license": evil,
        "tags": [evil, "yes", "1"],
        "sections": {evil: [{evil: evil}]},
    }
    text = model_card(
        "dimo/kangaroo", "dimo", card, {"protocol": evil, "dataset": {"name": evil}, "mean": {evil: 1.0}}
    )
    data = huggingface_hub.ModelCard(text).data
    assert data.license == "other" and data.license_name == evil
    assert data.tags == ["menagerie4d", "dimo", evil, "yes", "1"]
    assert data.eval_results[0].dataset_name == evil and len(data.eval_results) == 1
    page = markdown_it.MarkdownIt("commonmark").enable("table").render(text.split("\n---\n", 1)[1])
    assert "<script" not in page
    assert set(re.findall(r'(?:href|src)="([^"]*)"', page)) == {
        "preview.mp4",
        "metrics.json",
        "manifest.json",
    }


def test_a_long_table_is_truncated():
    rows = [{"motion": str(index)} for index in range(500)]
    text = model_card("dimo/x", "dimo", {"sections": {"Motions": rows}}, {})
    assert "300 more are in [config.json](config.json)" in text and text.count("\n| ") < 210
