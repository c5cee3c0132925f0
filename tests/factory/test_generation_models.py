"""Segmentation and vision-language models in the generation of motions: tiny models of transformers' real classes."""

from __future__ import annotations

import builtins
import json

import disc_videos
import numpy as np
import pytest
from tiny_segmentation import save_tiny_sam2
from tiny_vision_language import save_tiny_llava, tokenizer

from cluster import StageError
from factory.generation.jobs import ModelChoice
from factory.generation.judging import Thresholds, decide
from factory.generation.judging.questions import (
    PACKAGED,
    QuestionJudge,
    Rubric,
    answer_score,
    answer_tokens,
)
from factory.generation.masks import open_matte
from factory.generation.segmentation import TrackingMatte, coverage
from zoo.errors import OptionError

GREY = (127, 127, 127)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    """A model that finds the object in every frame, and one that finds it in none but the first."""
    folder = tmp_path_factory.mktemp("sam2")
    return {found: save_tiny_sam2(folder / str(found), found) for found in (True, False)}


@pytest.fixture(scope="module")
def yes_model(tmp_path_factory):
    """A LLaVA that answers every question with yes."""
    return save_tiny_llava(tmp_path_factory.mktemp("llava") / "yes", answer="yes")


@pytest.fixture
def frames() -> np.ndarray:
    return np.stack([disc_videos.disc(0.8 * t, (200, 60, 30), GREY) for t in range(4)])


# --- segmentation ----------------------------------------------------------------------------------------


def test_a_segmentation_model_follows_the_object_of_the_first_frame(sam2, frames):
    matte = open_matte(ModelChoice(str(sam2[True])))
    alpha = matte(frames, GREY)
    assert alpha.shape == (4, 32, 32) and alpha.dtype == np.uint8
    disc = (frames[0] != 127).any(-1)
    found = alpha[0] > 127
    assert (found & disc).sum() / (found | disc).sum() > 0.75  # the model works at a quarter of its size
    assert all(frame.any() for frame in alpha[1:])
    np.testing.assert_array_equal(alpha, matte(frames, GREY))


def test_the_matte_of_a_frame_without_the_object_is_empty(sam2, frames):
    """The model's score says that the object is not there: its logits are negative everywhere, whatever their range."""
    alpha = open_matte(ModelChoice(str(sam2[False])))(frames, GREY)
    assert alpha[0].max() > 127 and not alpha[1:].any()


def test_coverage_is_a_fixed_function_of_the_logits():
    logits = np.array([[-40.0, -1.0, 0.0], [1.0, 3.0, 40.0]])
    np.testing.assert_array_equal(coverage(logits), [[0, 69, 128], [186, 243, 255]])
    assert not coverage(logits - 41).any()  # a stretch to the full range would find an object
    assert not coverage(np.zeros((2, 2))).any()


def test_before_a_background_of_many_colours_the_object_is_at_a_point(sam2, frames):
    noise = np.random.default_rng(0).integers(0, 255, frames.shape, np.uint8)
    model = TrackingMatte(str(sam2[True]))
    assert model._prompt(noise[0], None) == {"input_points": [[[[16.0, 16.0]]]], "input_labels": [[[1]]]}
    assert model(noise, None).shape == (4, 32, 32)
    with pytest.raises(ValueError, match="the first frame shows only background"):
        model(np.full_like(frames, 127), GREY)


def test_models_of_other_kinds_are_refused(tmp_path, yes_model):
    with pytest.raises(StageError, match=r"--matte .*: expected one of the kinds sam2_video, .* got llava"):
        open_matte(ModelChoice(str(yes_model)))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StageError, match=r"--matte .*: segmentation model .*: cannot be loaded"):
        open_matte(ModelChoice(str(tmp_path)))
    with pytest.raises(OptionError, match=r"vision-language model .*: cannot be loaded"):
        QuestionJudge(str(tmp_path), Rubric.load())


@pytest.mark.parametrize(
    ("load", "extra"),
    [
        (lambda name: TrackingMatte(name), "segmentation"),
        (lambda name: QuestionJudge(name, Rubric.load()), "caption"),
    ],
)
def test_a_missing_package_ends_in_a_sentence_that_names_the_extra(monkeypatch, tmp_path, load, extra):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "torchvision":
            raise ImportError("No module named 'torchvision'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionError, match=rf"torchvision.*pip install 'menagerie4d\[{extra}\]'"):
        load(str(tmp_path))


# --- a vision-language model -------------------------------------------------------------------------------


def test_a_model_that_says_yes_is_right_where_yes_is_right(yes_model, frames, tmp_path):
    (tmp_path / "rubric.txt").write_text(
        "# comment\nyes: Is there a $subject?\n\nno: Does it ${sentence}ly fail for 5 $$?\n"
    )
    judge = QuestionJudge(str(yes_model), Rubric.load(tmp_path / "rubric.txt"))
    scores = judge(frames, 8.0, "ball", "rolls $over")
    right, wrong = scores["answer: Is there a ball?"], scores["answer: Does it rolls $overly fail for 5 $?"]
    assert right > 0.9 and right + wrong == pytest.approx(1) and scores["answers"] == wrong
    assert decide(scores, Thresholds()).failed == ("answers",)
    assert decide({**scores, "answers": right}, Thresholds()).kept


def test_a_model_that_answers_something_else_has_not_measured(tmp_path_factory, frames):
    folder = save_tiny_llava(tmp_path_factory.mktemp("llava") / "maybe", answer="maybe")
    scores = QuestionJudge(str(folder), Rubric.load())(frames, 8.0, "ball", "rolls")
    assert set(scores.values()) == {None} and len(scores) == 7
    verdict = decide(scores, Thresholds())
    assert verdict.kept and "answers" in verdict.unmeasured


def test_the_score_is_the_share_of_the_right_answer():
    chances = np.array([0.5, 0.3, 0.1, 0.1])
    assert answer_score(chances, {"yes": [1], "no": [2]}, "yes") == pytest.approx(0.75)
    assert answer_score(chances, {"yes": [1], "no": [2]}, "no") == pytest.approx(0.25)
    assert answer_score(np.array([0.97, 0.02, 0.01]), {"yes": [1], "no": [2]}, "yes") is None


def test_tokens_that_begin_both_answers_do_not_count():
    tokens = answer_tokens(tokenizer())  # bytes: the first of " yes" and " no" is the space
    words = tokenizer()
    assert tokens == {
        "yes": sorted(words.encode(each)[0] for each in "yY"),
        "no": sorted(words.encode(each)[0] for each in "nN"),
    }

    class Same:
        def encode(self, text, add_special_tokens):
            return [0]

    with pytest.raises(OptionError, match="the same first token for yes and no"):
        answer_tokens(Same())


def test_the_packaged_rubric_is_a_file_that_can_be_edited(tmp_path):
    rubric = Rubric.load()
    assert len(rubric.questions) == 6 and {each.expected for each in rubric.questions} == {"yes", "no"}
    file = tmp_path / "rubric.txt"
    file.write_text(PACKAGED.read_text())
    assert Rubric.load(file) == rubric and Rubric.load(file).digest == rubric.digest
    file.write_text(PACKAGED.read_text().replace("no: Does the camera", "yes: Does the camera"))
    assert Rubric.load(file).digest != rubric.digest
    for text, reason in (
        ("maybe: Is it?", r"line 1: expected 'yes: QUESTION' or 'no: QUESTION', got 'maybe: Is it\?'"),
        ("# only\n", "the file has no questions"),
        ("yes: Is $it there?", "line 1: unknown placeholder 'it'"),
        ("yes:", "line 1: expected"),
    ):
        file.write_text(text)
        with pytest.raises(OptionError, match=reason):
            Rubric.load(file)
    with pytest.raises(OptionError, match="expected a text file with questions"):
        Rubric.load(tmp_path / "missing.txt")
    file.write_bytes(b"\xff")
    with pytest.raises(OptionError, match="expected a text file with questions"):
        Rubric.load(file)


def test_hostile_sentences_stay_text(yes_model, frames, tmp_path):
    (tmp_path / "rubric.txt").write_text("yes: Does it do this: $sentence?\n")
    judge = QuestionJudge(str(yes_model), Rubric.load(tmp_path / "rubric.txt"))
    hostile = "$subject <image> {question} ../../etc"
    assert list(judge(frames, 8.0, "ball", "hops"))[1] == "answer: Does it do this: hops?"
    assert json.dumps(judge(frames, 8.0, "ball", hostile.replace("<image>", "")))
