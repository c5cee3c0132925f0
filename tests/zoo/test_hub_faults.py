"""A hub that fails in every way, through its real client: the sentence, the cache, and what is left behind."""

from __future__ import annotations

import pytest
from failing_hub import child

pytest.importorskip(
    "huggingface_hub", reason='the hub\'s client is not installed: pip install "menagerie4d[zoo]"'
)

_TINY = """
import zoo
from tiny_family import pendulum
zoo.register_family("tiny", "tiny_family:Pendulum")

def weights(model):
    return {name: tensor.tolist() for name, tensor in model.weights.items()}

def attempt(call, *args, **options):
    del lines[:]
    try:
        result = call(*args, **options)
        return {"value": result if isinstance(result, str) else weights(result), "lines": list(lines)}
    except zoo.ZooError as error:
        return {"error": type(error).__name__, "message": str(error), "lines": list(lines)}

def left():
    return sorted(p.name for p in CACHE.rglob("*") if p.name.endswith((".incomplete", ".part")))

def forget():
    shutil.rmtree(CACHE, ignore_errors=True)
    _tree_cache._IN_MEMORY_TREE_CACHE.clear()

old = zoo.publish(pendulum(0), "hub:org/clock")
new = zoo.publish(pendulum(1), "hub:org/clock")
def newest(name):  # which of the two commits the hub calls main
    repository = hub.repository("models", "org/clock")
    repository["branches"]["main"] = name.split("@")[1]
    hub.save("models", "org/clock", repository)

"""

_MODELS = (
    _TINY
    + """
PLACES = {"info": "GET /api/models/org/clock", "tree": "GET /tree/", "head": "HEAD /resolve/",
          "get": "GET /resolve/", "weights": "GET model.safetensors"}
answer = {"old": weights(pendulum(0)), "new": weights(pendulum(1)), "runs": []}
for name, fault in FAULTS.items():
    places = ("info", "tree", "head", "get") if name in ("503", "401", "cut", "slow") else ("info", "get")
    for place in ("head", "weights") if name.startswith("wrong") else places:
        if name == "cut" and place == "head":  # has no body
            continue
        if name == "wrong length" and place != "head" or name == "wrong hash" and place == "head":
            continue
        newest(new)
        forget()
        on(PLACES[place], fault)
        run = {"fault": name, "place": place, "fresh": attempt(zoo.load, "hub:org/clock"), "left": left()}
        run["plain"] = attempt(zoo.load, "org/clock")
        hub.hook = None
        run["after"] = attempt(zoo.load, "hub:org/clock")
        forget()  # now with an older revision in the cache
        newest(old)
        zoo.load("hub:org/clock")
        newest(new)
        on(PLACES[place], fault)
        run["cached"] = attempt(zoo.load, "hub:org/clock")
        run["twice"] = attempt(zoo.load, "hub:org/clock")
        run["exact"] = attempt(zoo.load, old)
        hub.hook = None
        run["now"] = attempt(zoo.load, "hub:org/clock")
        answer["runs"].append(run)
print(json.dumps(answer))
"""
)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict:
    return child(tmp_path_factory.mktemp("models"), _MODELS)


# Fault → error for a model that is not in the cache, and words of its sentence.
SENTENCES = {
    "401": ("HubError", "did not accept the token", "(HTTP 401)", "hf auth login", "HF_TOKEN"),
    "403 gated": ("HubError", "org/clock is gated", "/org/clock with the account of your token"),
    "403": ("HubError", "does not give access", "(HTTP 403)", "ask its owner on http://127.0.0.1"),
    "404": ("UnknownModelError", "there is no model", "not on the hub", "or private", "hf auth login"),
    "409": ("HubError", "(HTTP 409)", "run the same command again"),
    "416": ("HubError", "(HTTP 416)", "run the same command again"),
    "429": ("HubError", "limits the number of requests (HTTP 429)", "wait 7 s"),
    "500": ("HubError", "has a failure of its own (HTTP 500)", "again later"),
    "503": ("HubError", "has a failure of its own (HTTP 503)", "again later"),
    "slow": ("HubError", "did not answer in time", "run the same command again"),
    "drop": ("HubError", "cut the connection", "run the same command again"),
    "cut": ("HubError", "cut the connection", "run the same command again"),
    "wrong hash": ("RepositoryError", "model.safetensors does not match manifest.json", "Ask its author"),
    "wrong length": ("HubError", "sent a file of another size", "run the same command again"),
}
OUTAGES = ("416", "429", "500", "503", "slow", "drop", "cut", "wrong length")


def runs_of(models: dict, fault: str) -> list[dict]:
    runs = [run for run in models["runs"] if run["fault"] == fault]
    assert len(runs) == (
        1 if fault.startswith("wrong") else {"503": 4, "401": 4, "slow": 4, "cut": 3}.get(fault, 2)
    )
    return runs


@pytest.mark.parametrize("fault", SENTENCES)
def test_a_model_that_is_not_in_the_cache(models, fault):
    """At any request: one sentence, nothing half-written, and the model as soon as the hub works again."""
    error, *words = SENTENCES[fault]
    for run in runs_of(models, fault):
        for name, result in (("hub:org/clock", run["fresh"]), ("org/clock", run["plain"])):
            assert result["error"] == error, (run["place"], result)
            assert all(word in result["message"] for word in ("org/clock", *words)), (run["place"], result)
            assert "write" not in result["message"] and "Client Error" not in result["message"]
            assert "\n" not in result["message"] and len(result["message"]) < 600
            assert error == "UnknownModelError" or f"no model '{name}'" not in result["message"]
        assert run["left"] == []
        assert run["after"] == {"value": models["new"], "lines": []}, run["place"]


@pytest.mark.parametrize("fault", SENTENCES)
def test_a_model_that_is_in_the_cache(models, fault):
    """An outage gives the cached revision and one line; a refusal is reported. A commit never needs the hub."""
    for run in runs_of(models, fault):
        cached = run["cached"]
        if fault in OUTAGES:
            assert cached["value"] == models["old"], (run["place"], cached)
            (line,) = cached["lines"]
            assert line.startswith("org/clock: the hub http://127.0.0.1") and SENTENCES[fault][1] in line
            assert run["twice"]["value"] == models["old"], "the cache still has it"
            assert line.endswith("from the cache") and "loading revision" in line and "again" not in line
        else:
            assert cached["error"] == SENTENCES[fault][0] and not cached["lines"]
            if fault in ("401", "403", "403 gated", "409"):
                assert "HF_HUB_OFFLINE=1 loads revision" in cached["message"]
        assert run["exact"] == {"value": models["old"], "lines": []}
        assert run["now"] == {"value": models["new"], "lines": []}


# --- the cache on this machine -----------------------------------------------------------------------

_CACHE = (
    _TINY
    + """
answer = {"old": weights(pendulum(0)), "new": weights(pendulum(1))}
blobs = lambda: sorted(path.stat().st_size for path in CACHE.glob("models--*/blobs/*"))

http_get, makedirs = file_download.http_get, os.makedirs
def full(url, temp_file, **options):
    temp_file.write(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` raises it
def locked(path, *args, **options):
    if str(CACHE) in str(path) and not os.path.isdir(path):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
    return makedirs(path, *args, **options)

for name, broken in (("full", (full, makedirs)), ("read-only", (http_get, locked))):
    forget()
    newest(new)
    file_download.http_get, os.makedirs = broken
    run = {"fresh": attempt(zoo.load, "hub:org/clock"), "left": left(), "blobs": blobs()}
    file_download.http_get, os.makedirs = http_get, makedirs
    run["after"] = attempt(zoo.load, "hub:org/clock")
    forget()
    newest(old)
    zoo.load("hub:org/clock")
    file_download.http_get, os.makedirs = broken
    run["cached"] = attempt(zoo.load, "hub:org/clock")
    newest(new)
    run["older"] = attempt(zoo.load, "hub:org/clock")
    file_download.http_get, os.makedirs = http_get, makedirs
    run["now"] = attempt(zoo.load, "hub:org/clock")
    answer[name] = run

forget()
newest(old)
zoo.load("hub:org/clock")
newest(new)
def killed(*args, **options):
    raise KeyboardInterrupt
file_download.http_get = killed
try:
    zoo.load("hub:org/clock")
except KeyboardInterrupt:
    answer["stopped"] = left()
file_download.http_get = http_get
hub.hook = lambda request: 503
answer["after a stop"] = attempt(zoo.load, "hub:org/clock")
hub.hook = None

forget()
shutil.rmtree(CACHE, ignore_errors=True)
CACHE.write_text("a file")
answer["a file"] = attempt(zoo.load, "hub:org/clock")
CACHE.unlink()

def damage(how):
    for blob in CACHE.glob("models--*/blobs/*"):
        data = blob.read_bytes()
        if data == (zoo.info(new).folder / "model.safetensors").read_bytes():
            blob.unlink() if how == "gone" else blob.write_bytes(data[:-1] + (b"" if how == "short" else b"!"))
            return

for how in ("short", "changed", "gone"):
    forget()
    zoo.load("hub:org/clock")
    damage(how)
    answer[how] = attempt(zoo.load, "hub:org/clock")
    damage(how)
    answer[how + ", exact"] = attempt(zoo.load, new)
forget()
zoo.load("hub:org/clock")
damage("changed")
hub.hook = lambda request: 503
answer["damaged in an outage"] = attempt(zoo.load, "hub:org/clock")
answer["and again"] = attempt(zoo.load, "hub:org/clock")
hub.hook = None
answer["after the outage"] = attempt(zoo.load, "hub:org/clock")

forget()
del os.environ["HF_TOKEN"]
for name, fault in (("gated", Fault(401, "GatedRepo", "Access is restricted")), ("429", Fault(429)),
                    ("401", Fault(401, "", "Invalid username or password."))):
    on("GET /api/models/org/clock", fault)
    answer["anonymous " + name] = attempt(zoo.load, "hub:org/clock")
hub.hook = None
os.environ["HF_TOKEN"] = "any"
for name in ("hf://org/clock", "hub:models/org/clock", "hf://models/org/clock@main", "hub:org/clock", "org/clock"):
    answer[name] = attempt(zoo.load, name)
answer["hf://datasets/org/clock"] = attempt(zoo.load, "hf://datasets/org/clock")
answer["hf://"] = attempt(zoo.publish, pendulum(2), "hf://org/other")["value"].split("@")[0]
hub.__exit__()
huggingface_hub.close_session()  # the server's threads keep answering on open connections
answer["no hub"] = attempt(zoo.load, "hub:org/clock")
answer["no hub, not cached"] = attempt(zoo.load, "hub:org/nothing")
print(json.dumps(answer))
"""
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> dict:
    return child(tmp_path_factory.mktemp("cache"), _CACHE)


def test_a_cache_that_is_full_or_read_only_is_named_and_not_the_hub(cache):
    for name, reason, advice in (
        ("full", "(No space left on device)", "free some space there"),
        ("read-only", "(Read-only file system: ", "make it writable"),
    ):
        run = cache[name]
        assert run["fresh"]["error"] == "ZooError"
        message = run["fresh"]["message"]
        assert message.startswith("org/clock cannot be stored in the cache of the hub's client, ")
        assert reason in message and advice in message and message.endswith("another folder with HF_HOME")
        assert run["left"] == run["blobs"] == [], "nothing half-written"
        assert run["after"]["value"] == cache["new"]
        assert run["cached"] == {"value": cache["old"], "lines": []}, "nothing needs to be written"
        assert run["older"]["value"] == cache["old"]
        (line,) = run["older"]["lines"]
        assert reason in line and "cannot be stored in the cache" in line and line.endswith("from the cache")
        assert run["now"] == {"value": cache["new"], "lines": []}
    assert "(Not a directory: " in cache["a file"]["message"] and cache["a file"]["error"] == "ZooError"


def test_a_damaged_cache_is_repaired(cache):
    for how in ("short", "changed", "gone"):
        assert cache[how] == cache[f"{how}, exact"] == {"value": cache["new"], "lines": []}
    damaged = cache["damaged in an outage"]
    assert damaged["error"] == "RepositoryError" and "(HTTP 503)" in damaged["message"]
    assert "model.safetensors in the cache was damaged and is removed" in damaged["message"]
    assert "(HTTP 503)" in cache["and again"]["message"]
    assert cache["after the outage"] == {"value": cache["new"], "lines": []}


def test_a_download_that_was_stopped_leaves_the_older_revision(cache):
    assert cache["stopped"] == [] and cache["after a stop"]["value"] == cache["old"]


def test_without_an_account(cache):
    gated, limited, refused = (cache[f"anonymous {name}"]["message"] for name in ("gated", "429", "401"))
    assert gated.startswith("org/clock is gated on the hub") and gated.endswith(
        "/org/clock, then log in with `hf auth login`, or set HF_TOKEN"
    )
    assert "with an account the limit is higher: log in with `hf auth login`" in limited
    assert "requires an account (HTTP 401): log in" in refused and "write" not in refused


def test_a_model_on_the_hub_has_the_names_of_a_dataset(cache):
    for name in (
        "hf://org/clock",
        "hub:models/org/clock",
        "hf://models/org/clock@main",
        "hub:org/clock",
        "org/clock",
    ):
        assert cache[name] == {"value": cache["new"], "lines": []}, name
    assert cache["hf://"] == "hub:org/other", "published"
    refused = cache["hf://datasets/org/clock"]
    assert refused["error"] == "UnknownModelError"
    assert refused["message"].startswith(
        "'hf://datasets/org/clock' is the address of a dataset: factory.load_clips"
    )


def test_no_hub_at_all(cache):
    assert cache["no hub"]["value"] == cache["new"]
    (line,) = cache["no hub"]["lines"]
    assert "cannot be reached" in line and line.endswith("from the cache")
    missing = cache["no hub, not cached"]
    assert missing["error"] == "HubError"
    assert missing["message"].endswith("cannot be reached, and its cache here has no org/nothing")


# --- publishing ----------------------------------------------------------------------------------------

_PUBLISH = (
    _TINY
    + """
PLACES = {"create": "POST /repos/create", "info": "GET /api/models/org/clock", "preupload": "POST /preupload/",
          "batch": "POST /lfs/objects/batch", "put": "PUT /lfs/", "commit": "POST /commit/"}
answer = {"runs": []}
for name, fault in FAULTS.items():
    for place in PLACES if name in ("503", "403") else ("info", "put", "commit"):
        if name in ("416", "wrong hash", "wrong length", "cut"):
            continue
        seed = len(answer["runs"]) + 10
        before = hub.files("models", "org/clock")
        on(PLACES[place], fault)
        run = {"fault": name, "place": place, "result": attempt(zoo.publish, pendulum(seed), "hub:org/clock")}
        hub.hook = None
        run["unchanged"] = hub.files("models", "org/clock") == before
        run["again"] = attempt(zoo.publish, pendulum(seed), "hub:org/clock")
        run["loads"] = attempt(zoo.load, "hub:org/clock")["value"] == weights(pendulum(seed))
        answer["runs"].append(run)
on("GET /api/models/org/fresh", FAULTS["404"])
answer["no organisation"] = attempt(zoo.publish, pendulum(), "hub:org/fresh")
del os.environ["HF_TOKEN"]
hub.hook = None
answer["no account"] = attempt(zoo.publish, pendulum(), "hub:org/clock")
os.environ["HF_TOKEN"] = "any"
import tempfile
def full(*args, **options):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))
copyfile, shutil.copyfile = shutil.copyfile, full
answer["full"] = attempt(zoo.publish, "hub:org/clock", "hub:org/copy")
shutil.copyfile = copyfile
answer["names"] = hub.names("models")
print(json.dumps(answer))
"""
)
PUBLISHING = {
    "401": ("did not accept the token", "(HTTP 401)", "HF_TOKEN to a token with write access"),
    "403 gated": ("org/clock is gated", "with the account of your token"),
    "403": ("does not let this account publish there (HTTP 403)", "with write access", "may write to 'org'"),
    "404": ("does not let this account publish there (HTTP 404)", "may write to 'org'"),
    "409": ("was changed by another process at the same time (HTTP 409)", "publish again"),
    "429": ("limits the number of requests (HTTP 429)", "wait 7 s"),
    "500": ("has a failure of its own (HTTP 500)", "again later; nothing is lost"),
    "503": ("has a failure of its own (HTTP 503)", "again later; nothing is lost"),
    "slow": ("did not answer in time", "run the same command again"),
    "drop": ("cut the connection", "run the same command again"),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> dict:
    return child(tmp_path_factory.mktemp("published"), _PUBLISH)


@pytest.mark.parametrize("fault", PUBLISHING)
def test_a_publication_that_fails_says_why_and_changes_nothing(published, fault):
    runs = [run for run in published["runs"] if run["fault"] == fault]
    assert len(runs) == (6 if fault in ("503", "403") else 3)
    for run in runs:
        if run["place"] == "create" and fault in ("401", "403 gated", "403", "409"):
            continue  # then the client only asks whether the repository exists
        where = (run["place"], run["result"])
        assert run["result"]["error"] == "HubError", where
        message = run["result"]["message"]
        assert message.startswith("org/clock") and all(word in message for word in PUBLISHING[fault]), where
        assert "\n" not in message and "Client Error" not in message and len(message) < 400
        assert run["unchanged"], where
        assert run["again"]["value"].startswith("hub:org/clock@") and run["loads"], where


def test_a_publication_without_the_right_to_publish_or_without_space(published):
    missing = published["no organisation"]["message"]
    assert "does not let this account publish there (HTTP 404)" in missing and "'org'" in missing
    account = published["no account"]["message"]
    assert "requires an account (HTTP 401): log in with `hf auth login`" in account
    assert account.endswith("or set HF_TOKEN to a token with write access")
    full = published["full"]["message"]
    assert "No space left on device" in full and "hub:org/copy was not published" in full
    assert "org/copy" not in published["names"]
