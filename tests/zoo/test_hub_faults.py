"""A hub that fails in every way, through its real client: the sentence, the cache, and what is left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip(
    "huggingface_hub", reason='the hub\'s client is not installed: pip install "menagerie4d[zoo]"'
)
SUPPORT = Path(__file__).parents[1] / "support"

# The server runs in the process of the client, whose pauses and timeouts are shortened.
_PROLOGUE = f"""
import errno, json, logging, os, shutil, sys, warnings
from pathlib import Path
sys.path.insert(0, {str(SUPPORT)!r})
from hub_server import Fault, HubServer
base = Path(sys.argv[1])
hub = HubServer(base / "hub").__enter__()
os.environ.update(hub.environment(base / "hf"))
os.environ["MENAGERIE_HOME"] = str(base / "registry")
import huggingface_hub.utils._http
huggingface_hub.utils._http.time.sleep = lambda seconds: None
from huggingface_hub import _tree_cache, constants, file_download
constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = file_download._ETAG_RETRY_TIMEOUT = 0.1
from zoo import huggingface
huggingface.READ_TIMEOUT_S = huggingface.PUBLISH_TIMEOUT_S = 0.1
logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
lines = []
class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
logging.getLogger("zoo").addHandler(Lines())
CACHE = base / "hf/hub"

def on(place, fault):
    method, _, part = place.partition(" ")
    hub.hook = lambda request: fault if request.method == method and part in request.path else None

FAULTS = {{
    "401": Fault(401, message="Invalid credentials in Authorization header"),
    "403 gated": Fault(403, "GatedRepo", "Access is restricted"),
    "403": Fault(403, "Forbidden", "no"),
    "404": Fault(404, "RepoNotFound", "Repository not found"),
    "409": Fault(409, "Conflict", "no"),
    "416": Fault(416),
    "429": Fault(429, headers=(("Retry-After", "7"),)),
    "500": Fault(500),
    "503": Fault(503),
    "slow": Fault(delay_s=0.3),
    "drop": "drop",
    "cut": Fault(sent=0.5),
    "wrong hash": Fault(damage=True),
    "wrong length": Fault(headers=(("X-Linked-Size", "7"),)),
}}
"""

_MODELS = """
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
first, second = hub.repository("models", "org/clock"), None
def newest(name):  # which of the two commits the hub calls main
    repository = hub.repository("models", "org/clock")
    repository["branches"]["main"] = name.split("@")[1]
    hub.save("models", "org/clock", repository)

PLACES = {"info": "GET /api/models/org/clock", "tree": "GET /tree/", "head": "HEAD /resolve/",
          "get": "GET /resolve/", "weights": "GET model.safetensors"}
answer = {"old": weights(pendulum(0)), "new": weights(pendulum(1)), "runs": []}
for name, fault in FAULTS.items():
    for place in (("head", "weights") if name.startswith("wrong") else ("info", "tree", "head", "get")):
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
        run["exact"] = attempt(zoo.load, old)
        hub.hook = None
        run["now"] = attempt(zoo.load, "hub:org/clock")
        answer["runs"].append(run)
print(json.dumps(answer))
"""


def child(folder: Path, code: str, *flags: str) -> dict:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-P", "-c", f"{_PROLOGUE}\n{code}", str(folder), *flags]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=clean)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


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
    assert len(runs) == (1 if fault.startswith("wrong") else 3 if fault == "cut" else 4)
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
            assert line.endswith("from the cache") and "loading revision" in line and "again" not in line
        else:
            assert cached["error"] == SENTENCES[fault][0] and not cached["lines"]
            if fault in ("401", "403", "403 gated", "409"):
                assert "HF_HUB_OFFLINE=1 loads revision" in cached["message"]
        assert run["exact"] == {"value": models["old"], "lines": []}
        assert run["now"] == {"value": models["new"], "lines": []}
