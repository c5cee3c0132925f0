"""Datasets on a hub that fails: loading and publishing, through the real client."""

from __future__ import annotations

import pytest
from failing_hub import child

_DATASETS = """
import factory
from cluster import StorageError
from factory.dataset.release import publish
from tiny_dataset import grow
from zoo.errors import ZooError

def attempt(call, *args, **options):
    try:
        return {"value": call(*args, **options)}
    except (ZooError, StorageError, OSError, ValueError) as error:
        return {"error": type(error).__name__, "message": str(error)}

def reset():  # the file system remembers what it listed
    import fsspec
    fsspec.get_filesystem_class("hf").clear_instance_cache()

data = base / "data"
"""

_LOADING = (
    _DATASETS
    + """
grow(data, 0, 4)
publish(data, "hub:org/discs", tag="v1")
def read(name="hub:org/discs"):
    clips = factory.load_clips(name)
    return [clips.table(["clip_id"])["clip_id"].to_pylist(), clips[1].read(frames=0).frames.shape[1]]

PLACES = {"info": "GET /api/datasets/org/discs", "tree": "GET /tree/", "get": "GET .parquet"}
answer = {"runs": [], "value": read()}
for name, fault in FAULTS.items():
    for place in PLACES:
        if name == "wrong length":
            continue
        reset()
        on(PLACES[place], fault)
        run = {"fault": name, "place": place, "result": attempt(read)}
        hub.hook = None
        reset()
        run["after"] = attempt(read)
        answer["runs"].append(run)

reset()
clips = factory.load_clips("hub:org/discs")
for name in ("503", "drop", "429"):
    on("GET .parquet", FAULTS[name])
    answer["later " + name] = attempt(lambda: clips[2].metadata["clip_id"])
hub.hook = None
answer["later"] = clips[2].metadata["clip_id"]
for name in ("hub:org/discs", "hub:org/discs@v1", "hf://datasets/org/discs", "hf://datasets/org/discs@v1", "org/discs",
             "org/discs@v1", "hub:datasets/org/discs"):
    answer[name] = attempt(read, name)
for name in ("hub:org/nothing", "org/nothing", "hub:org/discs@v9", "hub:models/org/discs", "hub:a/b/c"):
    answer[name] = attempt(read, name)
(base / "out").mkdir()
os.chdir(base)
answer["out/discs"] = attempt(read, "out/discs")
publish(data, f"local:{base / 'shelf'}")
answer["local:shelf"] = attempt(read, "local:shelf")
from factory.motion_videos.subjects import find_subjects
for name in ("hub:org/discs", "local:shelf", str(data)):
    answer["motions " + name] = attempt(lambda: [subject.name for subject in find_subjects([name])])
answer["republished"] = attempt(lambda: publish("hub:org/discs@v1", f"local:{base / 'copy'}").revision)
answer["copy"] = attempt(read, f"local:{base / 'copy'}")
print(json.dumps(answer))
"""
)
LOADING = {
    "401": ("StorageError", "did not accept the token", "hf auth login", "HF_TOKEN to a valid token"),
    "403 gated": ("StorageError", "org/discs is gated", "/datasets/org/discs with the account of your token"),
    "403": ("StorageError", "does not give access (HTTP 403)", "/datasets/org/discs"),
    "404": ("FileNotFoundError", "no dataset hub:org/discs: not on the hub", "or private"),
    "409": ("StorageError", "(HTTP 409)", "run the same command again"),
    "416": ("StorageError", "(HTTP 416)", "run the same command again"),
    "429": ("StorageError", "limits the number of requests (HTTP 429)", "wait 7 s"),
    "500": ("StorageError", "has a failure of its own (HTTP 500)", "again later"),
    "503": ("StorageError", "has a failure of its own (HTTP 503)", "again later"),
    "slow": ("StorageError", "did not answer in time", "run the same command again"),
    "drop": ("StorageError", "cut the connection", "run the same command again"),
    "cut": ("StorageError", "cut the connection", "run the same command again"),
}


@pytest.fixture(scope="module")
def loading(tmp_path_factory) -> dict:
    return child(tmp_path_factory.mktemp("loading"), _LOADING)


@pytest.mark.parametrize("fault", LOADING)
def test_a_dataset_cannot_be_loaded(loading, fault):
    """At any request: one sentence, and the clips as soon as the hub works again."""
    error, *words = LOADING[fault]
    runs = [run for run in loading["runs"] if run["fault"] == fault]
    assert [run["place"] for run in runs] == ["info", "tree", "get"]
    for run in runs:
        result = run["result"]
        assert result["error"] == error, (run["place"], result)
        assert all(word in result["message"] for word in ("org/discs", *words)), (run["place"], result)
        assert not any(
            word in result["message"] for word in ("write", "render", "Client Error", "damaged", "\n")
        )
        assert run["after"] == {"value": loading["value"]}


def test_a_damaged_answer_is_no_traceback(loading):
    info, tree, get = (run["result"] for run in loading["runs"] if run["fault"] == "wrong hash")
    for result in (info, tree):
        assert result["error"] == "StorageError" and "sent an answer that cannot be read" in result["message"]
    assert (
        get["error"] == "DatasetError"
        and "incomplete or damaged; run the same command again" in get["message"]
    )
    assert "part-00000.parquet of hf://datasets/org/discs" in get["message"]


def test_a_hub_that_fails_later(loading):
    """After the dataset was opened, while clips are read."""
    for fault in ("503", "drop", "429"):
        result = loading[f"later {fault}"]
        assert result["error"] == LOADING[fault][0] and all(
            word in result["message"] for word in LOADING[fault][1:]
        )
    assert loading["later"] == "0000000000000002"


def test_datasets_have_the_same_names_everywhere(loading):
    for name in (
        "hub:org/discs", "hub:org/discs@v1", "hf://datasets/org/discs", "hf://datasets/org/discs@v1", "org/discs",
        "org/discs@v1", "hub:datasets/org/discs", "local:shelf", "copy",
    ):  # fmt: skip
        assert loading[name] == {"value": loading["value"]}, name
    motions = {name: result for name, result in loading.items() if name.startswith("motions ")}
    assert len(motions) == 3 and all(result == {"value": ["disc-0", "disc-1"]} for result in motions.values())
    assert len(loading["republished"]["value"]) == 40
    words = {
        "hub:org/nothing": "no dataset hub:org/nothing: not on the hub",
        "org/nothing": "and there is no folder org/nothing here",
        "hub:org/discs@v9": "the hub has org/discs, but not in that revision",
        "hub:models/org/discs": "is the address of a model: zoo.load loads models",
        "hub:a/b/c": "is not a repository name: expected hub:org/name",
        "out/discs": "no clips in out/discs: expected files like",  # a mistyped folder, since there is a folder out/
    }
    for name, sentence in words.items():
        assert sentence in loading[name]["message"], name


# --- publishing ----------------------------------------------------------------------------------------

_PUBLISH = (
    _DATASETS
    + """
grow(data, 0, 2)
PLACES = {"create": "POST /repos/create", "info": "GET /api/datasets/org/discs", "tree": "GET /tree/",
          "refs": "GET /refs", "preupload": "POST /preupload/", "batch": "POST /lfs/objects/batch", "put": "PUT /lfs/",
          "commit": "POST /commit/"}
publish(data, "hub:org/discs")
whole = hub.repository("datasets", "org/discs")
empty = {**whole, "branches": {"main": min(whole["commits"], key=lambda name: len(whole["commits"][name]["files"]))}}
def state():
    return sorted(hub.files("datasets", "org/discs"))
answer = {"runs": [], "whole": state()}
for name, fault in FAULTS.items():
    if name in ("416", "cut", "wrong hash", "wrong length"):
        continue
    for place in PLACES if name in ("503", "403") else ("info", "batch", "commit"):
        hub.settle()  # a slow commit of the case before would be made after the client has given up
        hub.save("datasets", "org/discs", empty)
        if place == "put":
            shutil.rmtree(hub.folder / "objects")
            (hub.folder / "objects").mkdir()
            from hub_server import _ATTRIBUTES
            hub.put(_ATTRIBUTES)
        on(PLACES[place], fault)
        run = {"fault": name, "place": place, "result": attempt(lambda: publish(data, "hub:org/discs").revision)}
        hub.hook = None
        run["state"] = state()
        answer["runs"].append(run)
    hub.settle()
    answer["again " + name] = attempt(lambda: publish(data, "hub:org/discs").address)
    answer["state " + name] = state()

def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/publish-x/part")
import factory.dataset.release_hub as release_hub
addition, release_hub._Commits.addition = release_hub._Commits.addition, full
hub.save("datasets", "org/discs", empty)
answer["full"] = attempt(lambda: publish(data, "hub:org/discs").revision)
release_hub._Commits.addition = addition
for target in ("hf://datasets/org/other", "hub:org/third"):
    answer[target] = attempt(lambda: publish(data, target).address)
for target in ("org/discs", "hub:org/discs@v1", "hf://org/discs", "hub:discs", "local:", "s3://org/discs"):
    answer[target] = attempt(lambda: publish(data, target).address)
print(json.dumps(answer))
"""
)
PUBLISHING = {
    "401": ("did not accept the token", "(HTTP 401)", "HF_TOKEN to a token with write access"),
    "403 gated": ("org/discs is gated", "/datasets/org/discs with the account of your token"),
    "403": ("does not let this account publish there (HTTP 403)", "may write to 'org'"),
    "404": ("does not let this account publish there (HTTP 404)", "may write to 'org'"),
    "409": ("(HTTP 409)", "publish again"),
    "429": ("limits the number of requests (HTTP 429)", "wait 7 s"),
    "500": ("has a failure of its own (HTTP 500)", "again later; nothing is lost"),
    "503": ("has a failure of its own (HTTP 503)", "again later; nothing is lost"),
    "slow": ("did not answer in time", "run the same command again"),
    "drop": ("cut the connection", "run the same command again"),
}


@pytest.fixture(scope="module")
def publishing(tmp_path_factory) -> dict:
    return child(tmp_path_factory.mktemp("publishing"), _PUBLISH)


@pytest.mark.parametrize("fault", PUBLISHING)
def test_a_dataset_cannot_be_published(publishing, fault):
    """At any request: one sentence, no card without its shards, and the same call completes the publication."""
    runs = [run for run in publishing["runs"] if run["fault"] == fault]
    assert len(runs) == (8 if fault in ("503", "403") else 3)
    for run in runs:
        if run["place"] == "create" and fault in ("401", "403 gated", "403", "409"):
            continue  # then the client only asks whether the repository exists
        where = (run["place"], run["result"])
        assert run["result"].get("error") == "HubError", where
        message = run["result"]["message"]
        assert message.startswith("org/discs") and all(word in message for word in PUBLISHING[fault]), where
        assert "\n" not in message and "Client Error" not in message
        assert "README.md" not in run["state"], where
    assert publishing[f"again {fault}"] == {"value": "org/discs"}
    assert publishing[f"state {fault}"] == publishing["whole"]


def test_a_full_disk_is_not_the_hubs_fault(publishing):
    message = publishing["full"]["message"]
    assert message.startswith("org/discs was not published (No space left on device: /tmp/publish-x/part)")
    assert "repair the disk, and publish again" in message and "the hub" not in message


def test_targets_of_a_publication(publishing):
    assert publishing["hf://datasets/org/other"] == {"value": "org/other"}
    assert publishing["hub:org/third"] == {"value": "org/third"}
    for target, words in {
        "org/discs": "expected hub:org/name or local:PATH",
        "hub:org/discs@v1": "expected hub:org/discs; --tag v1 names the version",
        "hf://org/discs": "is the address of a model",
        "hub:discs": "'hub:discs' is not a repository name",
        "local:": "expected hub:org/name or local:PATH",
        "s3://org/discs": "expected hub:org/name or local:PATH",
    }.items():
        assert publishing[target]["error"] == "PublishError" and words in publishing[target]["message"]
