"""Protocols, results, controls and tables; and that each defect is noticed by the metric that it concerns."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import browser
from scipy import stats
from tiny_dimo import tiny_dimo
from tiny_motions import tiny_videos

import zoo
import zoo.evaluation.dimo
from factory.training.evaluation import evaluation_task
from zoo.__main__ import main
from zoo.animate3d.limits import FIT_VERSIONS
from zoo.card import model_card
from zoo.dimo.config import LossWeights
from zoo.dimo.data import MotionVideos
from zoo.dimo.pipeline import DIMOPipeline
from zoo.evaluation import EvaluationError, Protocol, TruthError, open_protocol, protocols, read_result
from zoo.evaluation.api import evaluate_with_pictures
from zoo.evaluation.between import gap, statistics
from zoo.evaluation.bootstrap import interval
from zoo.evaluation.canonical import canonical, digest
from zoo.evaluation.controls import fitness
from zoo.evaluation.leaderboard import BEGIN, drawing, tables, write_leaderboard, write_tables
from zoo.evaluation.media import Media
from zoo.evaluation.result import Result, checked, groups, protocol_status, seal
from zoo.evaluation.sheet import write_sheet
from zoo.evaluation.store import Collection, Entry, attach, collect, folder_of
from zoo.evaluation.table import text_table
from zoo.evaluation.tasks import FITTER, measured_code

TRAINED = 6
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> Path:
    """Motion videos of a caterpillar, in the layout of `factory.motions`: six motions to train on, one held out."""
    folder = tmp_path_factory.mktemp("truth")
    videos = folder / "motions" / "caterpillar"
    videos.mkdir(parents=True)
    tiny_videos(videos, TRAINED + 1)
    return folder


@pytest.fixture(scope="module")
def model(truth) -> DIMOPipeline:
    """An untrained model of the caterpillar's motions."""
    names = [f"motion {index}" for index in range(TRAINED)]
    provenance = {"licence": "CC0-1.0", "author": "nobody", "title": "Caterpillar"}
    losses = LossWeights(lpips=0.0, ssim=0.0, depth=0.0, normal=0.0)
    return DIMOPipeline(tiny_dimo(frames=5, losses=losses), "caterpillar", names, provenance=provenance)


@pytest.fixture(scope="module")
def protocol() -> Protocol:
    """`dimo-views` without the metric that needs weights."""
    content = json.loads(json.dumps(open_protocol("dimo-views").content))
    del content["metrics"]["lpips"]
    content["bootstrap"]["samples"] = 500
    return Protocol(content)


@pytest.fixture(scope="module")
def light(protocol) -> Protocol:
    """The same with two quick metrics."""
    return Protocol({**protocol.content, "metrics": {"psnr": {}, "iou": {}}})


@pytest.fixture(scope="module")
def result(model, protocol, truth):
    return zoo.evaluate(model, protocol, truth=truth)


# --- hashes and protocols ----------------------------------------------------------------------------------


def test_equal_contents_have_one_hash():
    assert canonical({"b": [1, 2.5, "é"], "a": None}) == '{"a":null,"b":[1,2.5,"é"]}'.encode()
    assert digest({"a": 1, "b": 2}) == digest(dict([("b", 2), ("a", 1)])) != digest({"a": 1, "b": 3})
    # The SHA-256 of the two bytes "{}", from coreutils.
    assert digest({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    with pytest.raises(ValueError, match="canonical"):
        canonical({"a": float("nan")})


@pytest.mark.parametrize("name", protocols())
def test_protocols_of_the_package_are_complete(name):
    protocol = open_protocol(name)
    assert protocol.name == name and len(protocol.sha256) == 64
    assert protocol.content["objects"], "lists its clips by SHA-256"
    for entry in protocol.content["objects"].values():
        assert entry["clips"] and all(len(sha256) == 64 for sha256 in entry["clips"].values())
        assert entry["source"].startswith("creatures://")
    assert {"truth", "still", "late"} <= set(protocol.content["controls"])
    assert all(protocol.order(metric) for metric in protocol.metrics)
    changed = json.loads(json.dumps(protocol.content))
    changed["settings"]["resolution"] += 1
    assert Protocol(changed).sha256 != protocol.sha256


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": "1"}, "version: expected an integer"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"primary": "beauty"}, "primary: expected one of its metrics"),
        ({"order": [["truth", "nobody"]]}, "order: expected pairs of its controls"),
        ({"metrics": {"psnr": {"order": [["truth", "nobody"]]}}}, "order: expected pairs of its controls"),
    ],
)
def test_a_wrong_protocol_is_refused(change, words):
    with pytest.raises(EvaluationError, match=words):
        Protocol({**open_protocol("dimo-views").content, **change})


def test_unknown_protocols_are_named(tmp_path):
    with pytest.raises(EvaluationError, match="expected one of animate-truth, dimo-between"):
        open_protocol("dimo-vews")
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"p\.json: not JSON"):
        open_protocol(tmp_path / "p.json")


# --- intervals and controls --------------------------------------------------------------------------------


def test_intervals_agree_with_scipy():
    values = np.random.default_rng(3).gamma(2.0, 1.5, 40)
    low, high = interval(values, samples=20_000)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert abs(low - expected.low) < 0.03 and abs(high - expected.high) < 0.03
    assert (
        interval(values, samples=2000)
        == interval(values, samples=2000)
        != interval(values, samples=2000, seed=1)
    )
    assert interval([2.5]) == (2.5, 2.5)


def test_a_metric_that_rewards_standing_still_is_unfit():
    order = [("truth", "still"), ("truth", "other"), ("late", "still")]
    assert fitness({"truth": 0.0, "late": 0.1, "still": 0.4, "other": 0.9}, order, "lower").fit
    verdict = fitness({"truth": 0.2, "late": 0.2, "still": 0.0, "other": 0.9}, order, "lower")
    assert not verdict.fit
    assert "the truth itself (0.2) worse than the first true frame, repeated (0)" in verdict.reason
    equal = fitness({"truth": 1.0, "still": 1.0}, order, "higher")
    assert not equal.fit and "not better than" in equal.reason
    assert fitness({"truth": 1.0}, order, "higher").fit, "pairs without a score are not checked"


def test_statistics_of_tracks_by_hand():
    line = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    moving = torch.stack([line + torch.tensor([0.0, step, 0]) for step in (0.0, 1.0, 2.0, 3.0)])
    values = statistics(moving)
    # Constant speed along +y: no acceleration, no stretch; mean displacement (0 + 1 + 2 + 3) / 4 over a diagonal of 2.
    assert values == pytest.approx({"torn": 0, "roughness": 0, "stretch": 0, "movement": 0.75}, abs=1e-6)
    back = statistics(moving[[0, 1, 0, 1]])
    assert back["roughness"] == pytest.approx(4 / 3)  # two accelerations of 2 over three speeds of 1
    grown = statistics(torch.stack([line, 2 * line]))
    assert grown["stretch"] == pytest.approx(np.log(2), rel=1e-5)
    assert gap(1.0, 0.5, 2.0) == 0 and gap(4.0, 0.5, 2.0) == pytest.approx(np.log(2)) == gap(0.25, 0.5, 2.0)


# --- a model under a protocol ------------------------------------------------------------------------------


def test_a_result_has_model_controls_and_intervals(result):
    assert [row["name"] for row in result.rows] == [
        "dimo/caterpillar", "truth", "late", "still", "nearest", "other",
    ]  # fmt: skip
    assert result.clips == [f"motion {index}" for index in range(TRAINED)]
    assert result.mean("psnr", "truth")[0] == 100 and result.mean("iou", "truth")[0] == 1
    assert result.mean("motion_error", "truth")[0] == 0
    for name in result.metrics:
        mean, low, high = result.mean(name)
        assert low <= mean <= high
    assert result.mean("psnr")[0] < result.mean("psnr", "still")[0], "the model is untrained"
    table = text_table(result)
    assert "dimo-views+caterpillar v2" in table and "on a truth of its own (caterpillar)" in table


def test_scores_are_those_of_the_metrics(result, model, truth):
    """PSNR of the first clip from its definition, on an image drawn by the pipeline's own method."""
    videos = MotionVideos.open(truth / "motions" / "caterpillar")
    cameras = videos.cameras([0], videos.heldout_views, 1)
    drawn = model.motion(0).render(cameras, phases=list(videos.phases)).astype(np.float64)
    straight = videos.read([0], videos.heldout_views, range(5))[0].numpy().astype(np.float64)
    alpha = straight[..., 3:] / 255
    true = np.round(straight[..., :3] * alpha + 255 * (1 - alpha))
    expected = -10 * np.log10(np.mean(((drawn - true) / 255) ** 2))
    assert result.rows[0]["values"]["psnr"][0] == pytest.approx(expected, abs=1e-3)


def test_the_same_command_gives_the_same_bytes(model, protocol, truth, result, tmp_path):
    again, measurement = evaluate_with_pictures(model, protocol, truth=truth)
    first, second = result.save(tmp_path / "a.json"), again.save(tmp_path / "b.json")
    assert first.read_bytes() == second.read_bytes()
    for name in ("a.png", "b.png"):
        write_sheet(tmp_path / name, again, measurement)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert read_result(first) == result


def _changed(media: Media, frames: np.ndarray, alpha: np.ndarray | None = None, points=None) -> Media:
    return Media(
        np.ascontiguousarray(frames),
        media.alpha if alpha is None else np.ascontiguousarray(alpha),
        media.points if points is None else points,
    )


ORDER = [2, 4, 0, 3, 1]
# Defect → what it makes of the truth, the metrics that must notice it, and those that must not.
DEFECTS = {
    "shuffled": (lambda m: m.take(ORDER), {"psnr", "ssim", "iou", "flow_error", "motion_error"}, set()),
    "mirrored": (
        lambda m: _changed(m, m.frames[..., ::-1, :], m.alpha[..., ::-1], m.points * np.float32([-1, 1, 1])),
        {"psnr", "ssim", "motion_error"},
        set(),
    ),
    "colour": (
        lambda m: _changed(m, np.where(m.alpha[..., None] > 0, m.frames[..., [1, 2, 0]], m.frames)),
        {"psnr", "ssim"},
        {"iou", "motion_error"},
    ),
    "frozen": (lambda m: m.take([0] * 5), {"psnr", "ssim", "iou", "flow_error", "motion_error"}, set()),
    "2 px": (
        lambda m: _changed(m, np.roll(m.frames, 2, 3), np.roll(m.alpha, 2, 3)),
        {"psnr", "ssim", "iou"},
        {"motion_error"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_are_noticed_by_name(defect, model, protocol, truth, monkeypatch):
    """A model whose videos are the true ones with a defect loses in the metrics that should notice it."""
    change, noticed, unmoved = DEFECTS[defect]
    views = zoo.evaluation.dimo._Views
    monkeypatch.setattr(views, "predict", lambda self, label, index: change(self.truth(index)))
    content = {**protocol.content, "controls": ["truth"], "order": []}
    for name, metric in (result := zoo.evaluate(model, Protocol(content), truth=truth)).metrics.items():
        perfect, score = result.mean(name, "truth")[0], result.mean(name)[0]
        worse = score < perfect - 1e-4 if metric["better"] == "higher" else score > perfect + 1e-4
        assert worse or name not in noticed, (name, perfect, score)
        assert not worse or name not in unmoved, (name, perfect, score)


def test_a_baseline_is_measured_on_the_same_clips(model, light, truth):
    other = DIMOPipeline(tiny_dimo(1, frames=5), "caterpillar", model.motions)
    result = zoo.evaluate(model, light, truth=truth, baseline=other)
    assert [row["role"] for row in result.rows[:2]] == ["model", "baseline"]
    mean = result.content["difference"]["dimo/caterpillar'"]["psnr"][0]
    a, b = (np.array(row["values"]["psnr"]) for row in result.rows[:2])
    assert mean == pytest.approx((a - b).mean(), abs=1e-4)


def test_unseen_motions_and_samples(model, truth):
    unseen = json.loads(json.dumps(open_protocol("dimo-unseen-motions").content))
    unseen["settings"]["fit_steps"] = 2
    result = zoo.evaluate(model, Protocol(unseen), truth=truth)
    assert result.clips == [f"motion {TRAINED}"] and result.mean("psnr")[0] < 100
    assert result.mean("psnr", "other") is None, "one clip has no other"
    between = json.loads(json.dumps(open_protocol("dimo-between").content))
    between["settings"]["count"] = 3
    result = zoo.evaluate(model, Protocol(between), truth=truth)
    assert [row["name"] for row in result.rows][:3] == ["samples", "half-way", "truth"]
    assert not result.fit("stretch") and "the first true frame" in result.metrics["stretch"]["reason"]
    assert result.mean("movement_gap", "still")[0] > result.mean("movement_gap", "truth")[0]


def test_a_missing_backbone_is_reported(model, truth, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    listed = open_protocol("dimo-views")
    protocol = Protocol(
        {**listed.content, "metrics": {name: listed.metrics[name] for name in ("psnr", "lpips")}}
    )
    backbone = protocol.metrics["lpips"]["backbone"]
    result = zoo.evaluate(model, protocol, truth=truth)
    expected = (
        f"not computed: needs {backbone['file']} (sha256 {backbone['sha256']}) from {backbone['source']}"
    )
    assert result.metrics["lpips"]["missing"] == expected and result.mean("lpips") is None
    assert f"lpips: {expected}" in text_table(result)
    file = tmp_path / "hub" / "checkpoints" / backbone["file"]
    file.parent.mkdir(parents=True)
    file.write_bytes(b"other weights")
    assert zoo.evaluate(model, protocol, truth=truth).metrics["lpips"]["missing"].startswith("not computed")


# --- truth -------------------------------------------------------------------------------------------------


def test_another_truth_is_refused_or_gets_a_hash_of_its_own(model, light, truth, result, tmp_path):
    listed = json.loads(json.dumps(light.content))
    listed["objects"] = {
        "caterpillar": {"source": "creatures://caterpillar", "clips": result.content["truth"]}
    }
    listed = Protocol(listed)
    assert zoo.evaluate(model, listed, truth=truth).protocol == {
        "name": "dimo-views", "version": 2, "sha256": listed.sha256,
    }  # fmt: skip
    shutil.copytree(truth, tmp_path / "truth")
    file = tmp_path / "truth" / "motions" / "caterpillar" / "motion 2.npy"
    frames = np.load(file)
    frames[0, 0, 0, 0] ^= 1
    np.save(file, frames)
    with pytest.raises(
        TruthError, match=r"1 of 7 clips .* such as motion 2; .*factory\.motions --objects creatures:"
    ):
        zoo.evaluate(model, listed, truth=tmp_path / "truth")
    own = zoo.evaluate(model, listed, truth=tmp_path / "truth", own_truth=True)
    assert own.protocol["name"] == "dimo-views+caterpillar" and own.protocol["sha256"] != listed.sha256


def test_a_missing_truth_ends_in_the_command_that_makes_it():
    with pytest.raises(
        TruthError, match=r"python -m factory\.motions --objects creatures://kangaroo .*--out truth`"
    ):
        zoo.evaluate("dimo/kangaroo", "dimo-views")


def test_models_of_other_families_and_motions_are_refused(model, protocol, truth):
    with pytest.raises(EvaluationError, match="expected the name of a model or a loaded one"):
        zoo.evaluate(5, protocol, truth=truth)
    fewer = DIMOPipeline(tiny_dimo(frames=5), "caterpillar", [f"move {index}" for index in range(TRAINED)])
    with pytest.raises(EvaluationError, match="was not trained on 6 of the 6 training motions"):
        zoo.evaluate(fewer, protocol, truth=truth)


# --- results -----------------------------------------------------------------------------------------------


def test_an_altered_result_is_refused(result, tmp_path):
    path = result.save(tmp_path / "metrics.json")
    content = json.loads(path.read_text())
    content["rows"][0]["mean"]["psnr"][0] += 5
    path.write_text(json.dumps(content))
    with pytest.raises(EvaluationError, match=r"metrics\.json: this result was altered"):
        read_result(path)
    for broken in ({**result.content, "format": 99}, [], {"sha256": 5}):
        with pytest.raises(EvaluationError):
            checked(broken, "here")
    wrong = {**result.content, "rows": [{"name": "x"}]}
    with pytest.raises(EvaluationError, match="some of its fields are wrong"):
        checked(seal(wrong).content, "here")


def test_results_of_other_versions_have_tables_of_their_own(result):
    def under(**protocol):
        return seal({**result.content, "protocol": {**result.protocol, **protocol}})

    installed = open_protocol("dimo-views")
    same = under(name="dimo-views", version=installed.version, sha256=installed.sha256)
    old = under(name="dimo-views", version=installed.version + 1, sha256="0" * 64)
    edited = under(name="dimo-views", version=installed.version, sha256="1" * 64)
    foreign = under(name="beauty", sha256="2" * 64)
    assert protocol_status(same) == ""
    assert f"under version {installed.version + 1} of the protocol" in protocol_status(old)
    assert "another protocol of the name dimo-views" in protocol_status(edited)
    assert "'beauty' is not in this package" in protocol_status(foreign)
    assert all(len(members) == 1 for _, members in groups([same, old, edited, foreign]))
    assert [len(members) for _, members in groups([same, same])] == [2]


# --- registry, leaderboard, commands -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(model, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for name, seed in (("caterpillar", 0), ("slug", 1)):
        pipeline = DIMOPipeline(
            tiny_dimo(seed, frames=5), "caterpillar", model.motions, provenance=model.provenance,
            metrics={"protocol": "by eye", "mean": {"psnr": 12.25}},
        )  # fmt: skip
        zoo.publish(pipeline, f"local:dimo/{name}", home=home)
    return home


def test_a_registry_becomes_one_page(home, light, truth, tmp_path, capsys):
    own = tmp_path / "own.json"
    own.write_text(json.dumps(light.content))
    for name in ("caterpillar", "slug"):
        options = ["--protocol", str(own), "--truth", str(truth), "--home", str(home)]
        assert main(["evaluate", f"dimo/{name}", *options]) == 0
    assert "dimo/slug under dimo-views+caterpillar" in capsys.readouterr().out
    stored = zoo.evaluate("dimo/slug", light, truth=truth, home=home)
    name = attach("dimo/slug", [stored], home=home)
    assert zoo.load(name, home=home).metrics["mean"] == {"psnr": 12.25}
    with pytest.raises(EvaluationError, match="of other weights"):
        attach("dimo/caterpillar", [stored], home=home)
    files, collection = write_leaderboard(tmp_path / "board", "local:*", home=home)
    assert len(collection.entries) == 2 and not collection.refused
    html, text = (file.read_text() for file in files)
    assert html.count("<section>") == 2 and html.count("data:image/webp") == 4  # a table, and the old figures
    assert "http" not in html.replace("http-equiv", "") and "<script src" not in html
    assert text.count("| local:dimo/") == 4 and "by no protocol" not in text
    order = [text.index(f"| local:dimo/{each.model.rpartition('/')[2]}") for each in _ranked(collection)]
    assert order == sorted(order), "best first"
    # An altered file is left out, with a sentence.
    file = folder_of(stored, home) / "metrics.json"
    file.write_text(file.read_text().replace('"psnr"', '"psnR"', 1))
    _, again = write_leaderboard(tmp_path / "board", "local:*", home=home)
    assert any("was altered" in sentence for sentence in again.refused)
    assert len(again.entries) == 2, "the attached copy is intact"


def test_the_documentation_has_the_results_of_the_bundled_models(tmp_path):
    """If this fails: `write_tables(Path("docs/evaluation.md"), collect("*", home=EMPTY_FOLDER))`."""
    collection = collect("*", home=tmp_path)
    assert not collection.refused and not [entry for entry in collection.entries if any(entry.marks)]
    page = DOCS / "evaluation.md"
    assert "\n\n".join([BEGIN, *tables(collection)]) in page.read_text("utf-8")
    copy = tmp_path / "copy.md"
    shutil.copy(page, copy)
    write_tables(copy, collection)
    assert copy.read_bytes() == page.read_bytes()


def test_an_unfit_metric_is_explained_once(light, result):
    def entry(object_name: str, reason: str) -> Entry:
        metrics = {"psnr": {**result.metrics["psnr"], "fit": not reason, "reason": reason}}
        rows = [{**row, "mean": {"psnr": row["mean"]["psnr"]}} for row in result.rows]
        content = {**result.content, "object": object_name, "metrics": metrics, "rows": rows}
        return Entry(f"dimo/{object_name}", seal(content))

    late = "scores the truth itself ({}) worse than the truth one frame late ({})"
    still = "scores the truth itself ({}) worse than the first true frame, repeated ({})"
    entries = [entry("egg", late.format(1, 2)), entry("fox", f"{late.format(3, 4)}; {still.format(3, 5)}")]
    words = "psnr is unfit: it scores the truth itself worse than the truth one frame late"
    (note,) = (part for part in tables(Collection(entries)) if "unfit" in part)
    assert note == f"{words}; scores the truth itself worse than the first true frame, repeated (fox)"
    parts = tables(Collection([entry("cat", ""), *entries]))
    (note,) = (part for part in parts if "unfit" in part)
    assert note.startswith(f"{words} (egg, fox);")
    assert any("| psnr \\[dB\\] ↑\\* |" in part for part in parts), (
        "the heading is marked, although cat's is fit"
    )


def test_results_of_the_fitter_are_collected(result, tmp_path, monkeypatch):
    """It is no model: its results are those of the registry, and those of the package that these do not replace."""
    package = tmp_path / "package"
    monkeypatch.setattr("zoo.evaluation.store.BUNDLED", package)
    content = {**result.content, "model": {**result.content["model"], "name": FITTER}}
    older = seal({**content, "object": "older"})
    other = seal({**content, "protocol": {**result.protocol, "sha256": "1" * 64}})
    for each, home in ((seal(content), tmp_path), (older, package), (other, package)):
        each.save(folder_of(each, home) / "metrics.json")
    hashes = {
        pattern: [
            (entry.model, entry.result.sha256)
            for entry in collect(pattern, home=tmp_path).entries
            if FITTER in entry.model
        ]
        for pattern in ("*", "local:*", "bundled:*", "dimo/*")
    }
    assert hashes == {
        "*": [(FITTER, seal(content).sha256), (FITTER, other.sha256)],
        "local:*": [("local:animate3d", seal(content).sha256)],
        "bundled:*": [("bundled:animate3d", other.sha256), ("bundled:animate3d", older.sha256)],
        "dimo/*": [],
    }
    (html, text), _ = write_leaderboard(tmp_path / "board", FITTER, home=tmp_path)
    assert '<th scope="row">animate3d' in html.read_text() and "| animate3d |" in text.read_text()


# Bundled objects that version 2 of the protocols does not list.
UNLISTED = ("fish", "snake", "crab", "flower", "jellyfish", "drop", "human")
EVALUATED = [name for name in zoo.list_models("bundled:dimo/*") if not name.endswith(UNLISTED)]


def test_the_models_that_were_not_evaluated_are_those_of_objects_that_no_protocol_lists():
    listed = set(open_protocol("dimo-views").content["objects"])
    assert listed.isdisjoint(UNLISTED) and {name.rpartition("/")[2] for name in EVALUATED} <= listed


@pytest.mark.parametrize("name", EVALUATED)
def test_the_documentation_and_the_card_have_the_figures_of_the_protocols(name):
    short = name.partition(":")[2] or name
    lines = (DOCS / "dimo.md").read_text("utf-8").splitlines()
    (row,) = (line for line in lines if line.startswith(f"| `{short}` |") and line.endswith("MB |"))
    results = {each.protocol["name"]: each for each in _results_of(name)}
    views, unseen, between = (results[f"dimo-{task}"] for task in ("views", "unseen-motions", "between"))
    worst = [min(each.rows[0]["values"]["psnr"]) for each in (views, unseen)]
    diversity = [row["mean"]["diversity"][0] for row in between.rows if row["role"] == "model"]
    assert [each.strip() for each in row.split("|")[2:-2]] == [
        f"{views.mean('psnr')[0]:.1f} / {worst[0]:.1f} dB",
        f"{views.mean('iou')[0]:.3f}",
        f"{unseen.mean('psnr')[0]:.1f} / {worst[1]:.1f} dB",
        f"{diversity[0]:.2f} / {diversity[1]:.2f}",
    ]
    card = (zoo.info(name).folder / "README.md").read_text("utf-8")
    assert f"| psnr | {views.mean('psnr')[0]:.4g} (" in card
    assert "| mean psnr |" not in card and '"mean psnr"' not in card, "figures under no protocol"


def test_the_readme_has_the_figures_of_the_protocols():
    figures = {
        task: [each.mean("psnr")[0] for name in EVALUATED for each in _results_of(name)
               if each.protocol["name"] == task]
        for task in ("dimo-views", "dimo-unseen-motions")
    }  # fmt: skip
    readme = " ".join((DOCS.parent / "README.md").read_text("utf-8").split())
    for task, values in figures.items():
        assert (
            len(values) == len(EVALUATED)
            and f"{min(values):.1f} to {max(values):.1f} dB (`{task}`)" in readme
        )


def test_the_readme_has_the_figures_of_the_video_model():
    (result,) = (each for each in _results_of("mvvdm/tiny") if each.protocol["name"] == "mvvdm-creatures")
    model, still = result.mean("psnr")[0], result.mean("psnr", "still")[0]
    readme = " ".join((DOCS.parent / "README.md").read_text("utf-8").split())
    assert f"{model:.1f} dB, the still first frame {still:.1f} (`mvvdm-creatures`)" in readme
    assert f"| protocol, 24 clips, PSNR | {model:.2f} | {still:.2f} |" in (DOCS / "training.md").read_text(
        "utf-8"
    )


def _results_of(name: str) -> list[Result]:
    return [checked(each, name) for each in zoo.info(name).metrics["evaluations"].values()]


@pytest.mark.slow
def test_the_page_opens_from_disk_without_a_network(home, light, truth, tmp_path):
    run = browser()
    for name in ("caterpillar", "slug"):
        attach(f"dimo/{name}", [zoo.evaluate(f"dimo/{name}", light, truth=truth, home=home)], home=home)
    (page, _), _ = write_leaderboard(tmp_path, "local:*", home=home)
    models = "[...document.querySelectorAll('table.sortable tbody th')].map(each => each.textContent)"
    shown = run(
        page,
        [
            ["evaluate", "[...document.images].filter(each => !each.naturalWidth).length"],
            ["evaluate", models],
            ["click", "table.sortable thead button"],
            ["click", "table.sortable thead button"],
            ["evaluate", models],
            ["evaluate", "getComputedStyle(document.body).backgroundColor"],
            ["scheme", "dark"],
            ["evaluate", "getComputedStyle(document.body).backgroundColor"],
        ],
        ready="document.documentElement.dataset.ready",
    )
    broken, before, _, _, after, light, _, dark = shown["results"]
    assert broken == 0 and after == before[::-1] and len(set(before)) == 2
    assert light == "rgb(255, 255, 255)" != dark
    assert shown["logs"] == [] and all(url.startswith(("file:", "data:")) for url in shown["requests"])


def _ranked(collection):
    return sorted(collection.entries, key=lambda entry: -entry.result.mean("psnr")[0])


def test_results_of_other_weights_are_marked(home, model, light, truth):
    result = zoo.evaluate("dimo/caterpillar", light, truth=truth, home=home)
    weights = {"model.safetensors": "0" * 64}
    other = seal({**result.content, "model": {**result.content["model"], "weights": weights}})
    path = folder_of(other, home).with_name("elsewhere") / "metrics.json"
    other.save(path)
    marks = [entry.marks for entry in collect("local:dimo/caterpillar", home=home).entries]
    assert any("of other weights than the model has now; evaluate it again" in each for each in marks)
    path.unlink()


def test_results_of_another_fit_are_marked(result, tmp_path, monkeypatch):
    """Only where a task measures it; results without a version are of the first."""
    own = open_protocol("animate-truth")
    name = {"name": own.name, "version": own.version, "sha256": own.sha256}
    content = {**result.content, "model": {"name": FITTER, "family": FITTER, "weights": {}}, "protocol": name}
    fit = "zoo.animate3d, rendered videos"

    def marks(**changes: object) -> tuple[str, ...]:
        path = folder_of(seal({**content, **changes}), tmp_path) / "metrics.json"
        seal({**content, **changes}).save(path)
        return next(e.marks for e in collect("local:*", home=tmp_path).entries if FITTER in e.model)

    def key(protocol: Protocol) -> str:
        entry = {"name": FITTER, "family": FITTER, "weights": {}}
        return evaluation_task(entry, protocol, tmp_path, tmp_path).key

    monkeypatch.setitem(FIT_VERSIONS, "rendered", "1")
    assert marks() == marks(code={fit: "1"}) == ()
    before = [key(own), key(open_protocol("dimo-views"))]
    monkeypatch.setitem(FIT_VERSIONS, "rendered", "7")
    sentence = f"of version 1 of {fit}, this package has version 7; evaluate it again"
    assert marks() == marks(code={fit: "1"}) == (sentence,)
    assert marks(code={fit: "7"}) == ()
    assert measured_code(own, "mvvdm") == {fit.replace("rendered", "generated"): FIT_VERSIONS["generated"]}
    assert key(own) != before[0] and key(open_protocol("dimo-views")) == before[1]
    with pytest.raises(EvaluationError, match="some of its fields are wrong"):
        checked(seal({**content, "code": "7"}).content, "file")


def test_an_interval_is_drawn_on_its_scale():
    svg = drawing([5.0, 2.5, 7.5], (0.0, 10.0), 10.0)
    assert 'x1="32.0" x2="88.0"' in svg and 'cx="60.0"' in svg and 'class="tick" x1="116.0"' in svg


def test_mistakes_at_the_command_line(capsys, tmp_path):
    assert main(["evaluate", "dimo/kangaroo"]) == 2
    assert "expected one of animate-truth" in capsys.readouterr().err
    assert main(["evaluate", "dimo/kangaroo", "--protocol", "dimo-views", "--out", str(tmp_path / "x")]) == 1
    assert "make it with `python -m factory.motions" in capsys.readouterr().err
    assert main(["evaluate", "mvvdm/tiny", "--protocol", "dimo-views", "--truth", str(tmp_path)]) == 2
    assert "evaluates models of the family dimo, got one of mvvdm" in capsys.readouterr().err
    (tmp_path / "thesis.md").write_text("mine")
    assert main(["evaluate", "dimo/kangaroo", "--protocol", "dimo-views", "--out", str(tmp_path)]) == 2
    assert "has other files (thesis.md)" in capsys.readouterr().err
    assert main(["leaderboard", "--out", str(tmp_path / "thesis.md")]) == 2
    assert not (tmp_path / "x").exists()


def test_the_card_shows_results_under_protocols(result):
    fit = {name: {**metric, "fit": True} for name, metric in result.metrics.items()}
    content = {**result.content, "metrics": fit}
    metrics = {"mean": {"psnr": 12.25}, "evaluations": {"a": content, "broken": {"rows": 5}}}
    text = model_card("dimo/egg", "dimo", {"title": "Egg"}, metrics)
    mean, low, high = result.mean("psnr")
    assert "## Protocol dimo-views+caterpillar v2" in text
    assert f"| psnr | {mean:.4g} ({low:.4g} – {high:.4g}) | 100 (100 – 100) |" in text
    assert "12.25" not in text, "measured under no protocol"
    assert '"type": "dimo-views+caterpillar", "revision"' in text
    alone = model_card("dimo/egg", "dimo", {"title": "Egg"}, {"mean": {"psnr": 12.25}})
    assert alone.count("##") == 1 and alone.count("12.25") == 2
