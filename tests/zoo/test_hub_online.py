"""The hub through its real client, against a test server on the loopback interface."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import HubServer
from tiny_family import pendulum

import zoo
from zoo import families

pytest.importorskip(
    "huggingface_hub", reason='the hub\'s client is not installed: pip install "menagerie4d[zoo]"'
)
SUPPORT = Path(__file__).parents[1] / "support"
_PROLOGUE = f"""
import json, sys
sys.path.insert(0, {str(SUPPORT)!r})
import zoo
from tiny_family import pendulum
zoo.register_family("tiny", "tiny_family:Pendulum")
def weights(model):
    return {{name: tensor.tolist() for name, tensor in model.weights.items()}}
def attempt(call, *args):
    try:
        return call(*args)
    except zoo.ZooError as error:
        return type(error).__name__ + ": " + str(error)
"""


@pytest.fixture
def hub(tmp_path):
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(families, "_registered", {})
    zoo.register_family("tiny", "tiny_family:Pendulum")


def child(hub: HubServer, home: Path, code: str, token: str | None = "hf_any", **environment: str) -> object:
    """The value of `answer` after running code in a process that uses this hub; None if it was killed."""
    environment = {**hub.environment(home, token), "MENAGERIE_HOME": str(home / "menagerie"), **environment}
    code = f"{_PROLOGUE}\n{code}\nprint(json.dumps(answer))"
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=180
    )
    if run.returncode == -signal.SIGKILL:
        return None
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def weights(seed: int) -> dict:
    return {name: tensor.tolist() for name, tensor in pendulum(seed).weights.items()}


def test_published_listed_loaded_bit_for_bit(hub, tmp_path):
    """Publish twice on one machine; list, describe and load on another; then load while the hub is unreachable."""
    names = child(
        hub,
        tmp_path / "author",
        """
answer = [zoo.publish(pendulum(0, metrics={"psnr": 3.5}), "hub:org/clock") for _ in range(2)]
zoo.publish(pendulum(1), "local:tiny/swing")
answer += [zoo.publish("tiny/swing", "hub:org/swing")]
""",
    )
    assert names[0] == names[1] and names[0].startswith("hub:org/clock@")
    assert len(hub.repository("models", "org/clock")["commits"]) == 2, "the initial commit, and ours"
    published = hub.files("models", "org/clock")
    assert 'zoo.load("hub:org/clock")' in published["README.md"].decode()

    code = f"""
known = zoo.info("hub:org/clock")
answer = {{
    "list": zoo.list_models("hub:org/*"), "wild": zoo.list_models("hub:*/s*"),
    "weights": weights(zoo.load("hub:org/clock")), "exact": weights(zoo.load({names[0]!r})),
    "plain": weights(zoo.load("org/swing")), "family": known.family, "name": known.name, "metrics": known.metrics,
    "licence": known.card["license"], "files": {{p: (known.folder / p).read_bytes().hex() for p in known.files}},
}}"""
    reader = tmp_path / "reader"
    seen = child(hub, reader, code, token=None)
    assert seen["list"] == ["hub:org/clock", "hub:org/swing"] and seen["wild"] == ["hub:org/swing"]
    assert seen["weights"] == seen["exact"] == weights(0) and seen["plain"] == weights(1)
    assert seen["family"] == "tiny" and seen["metrics"] == {"psnr": 3.5} and seen["licence"] == "CC0-1.0"
    assert seen["name"] == names[0]
    assert {path: bytes.fromhex(data) for path, data in seen["files"].items()} == {
        path: data for path, data in published.items() if path not in (".gitattributes", "manifest.json")
    }

    before = len(hub.requests)
    again = 'answer = weights(zoo.load("hub:org/clock"))'
    assert child(hub, reader, again, HF_HUB_OFFLINE="1") == weights(0)
    assert len(hub.requests) == before
    hub.hook = lambda request: "drop"
    assert child(hub, reader, again) == weights(0), "nor when the connection is dropped"


def test_refusals_and_errors_have_clear_messages(hub, tmp_path):
    """Each next to a control that succeeds."""
    home = tmp_path / "home"
    child(hub, home, 'answer = zoo.publish(pendulum(), "hub:org/clock")')
    files = hub.repository("models", "org/clock")["commits"]
    files = files[hub.repository("models", "org/clock")["branches"]["main"]]["files"]
    size = {"sha256": hub.put(b"import os"), "size": 9, "oid": "0" * 40, "lfs": False}
    hub.commit("models", "org/pickled", "main", "x", {**files, "pytorch_model.bin": size})
    hub.commit("models", "org/code", "main", "x", {**files, "modeling.py": size})
    hub.commit("models", "org/altered", "main", "x", {**files, "README.md": size})
    hub.commit("models", "org/more", "main", "x", {**files, "more.json": size})
    hub.commit("models", "org/other", "main", "x", {"model.safetensors": size, "config.json": size})
    before = len(hub.requests)
    code = """
names = ("pickled", "code", "altered", "more", "other", "nothing")
answer = {name: attempt(zoo.info, "hub:org/" + name) for name in names}
answer["clock"] = zoo.info("hub:org/clock").family
answer["revision"] = attempt(zoo.info, "hub:org/clock@v9")
answer["plain"] = attempt(zoo.info, "org/klock")
answer["foreign"] = attempt(zoo.publish, pendulum(), "hub:org/other")
"""
    result = child(hub, home, code)
    assert result["clock"] == "tiny"
    assert result["pickled"].startswith("RepositoryError: hub:org/pickled: pytorch_model.bin can be a pickle")
    assert result["code"].startswith("RepositoryError: hub:org/code: modeling.py is not allowed in a model")
    assert "README.md does not match manifest.json" in result["altered"]
    assert "more.json is not in manifest.json" in result["more"]
    assert result["other"].startswith(
        "RepositoryError: hub:org/other: has no manifest.json, so it is not a model of the zoo"
    )
    assert result["nothing"].startswith("UnknownModelError: there is no model 'hub:org/nothing'")
    assert result["revision"].startswith("UnknownModelError: there is no model 'hub:org/clock@v9'")
    assert "but not in that revision" in result["revision"]
    assert result["plain"].startswith("UnknownModelError: there is no model 'org/klock'")
    assert result["foreign"].startswith("HubError: hub:org/other is not a model of the zoo")
    fetched = [request.path for request in hub.requests[before:] if "/resolve/" in request.path]
    assert not [path for path in fetched if "/pickled/" in path or "/code/" in path], (
        "refused before any download"
    )
    assert [path for path in fetched if "/altered/" in path], "control: others were downloaded"
    assert set(hub.files("models", "org/other")) == {"model.safetensors", "config.json"}


def test_without_an_account_or_a_network(hub, tmp_path):
    code = 'answer = attempt(zoo.publish, pendulum(), "hub:org/clock")'
    result = child(hub, tmp_path / "a", code, token=None)
    assert result.startswith("HubError") and "hf auth login" in result and "HF_TOKEN" in result
    assert hub.names("models") == []
    result = child(hub, tmp_path / "a", 'answer = attempt(zoo.load, "hub:org/clock")', HF_HUB_OFFLINE="1")
    assert result.startswith("HubError: the hub http://127.0.0.1")
    assert result.endswith("cannot be reached, and its cache here has no org/clock")
    assert child(hub, tmp_path / "a", code).startswith("hub:org/clock@")


_CUT = """
import os
from hub_server import HubServer
with HubServer({folder!r}) as hub:
    os.environ.update(hub.environment({home!r}))  # before the client is imported, in this process
    import huggingface_hub.utils._http
    huggingface_hub.utils._http.time.sleep = lambda seconds: None  # skip the pauses between retries
    zoo.publish(pendulum(1), "hub:org/clock")
    before = len(hub.requests)
    zoo.publish(pendulum(2), "hub:org/clock")
    requests, seed, answer = len(hub.requests) - before, 2, []
    for how in ("drop", "lose", 403):
        for nth in range(1, requests + 1):
            before, seed = weights(zoo.load("hub:org/clock")), seed + 1
            hub.interrupt(nth, how)
            result = attempt(zoo.publish, pendulum(seed), "hub:org/clock")
            hub.hook = None
            now = weights(zoo.load("hub:org/clock"))
            again = zoo.publish(pendulum(seed), "hub:org/clock")
            after = weights(zoo.load(again))
            assert after == weights(zoo.load("hub:org/clock")) == weights(pendulum(seed))
            assert now in (before, after), (how, nth)
            assert now == after or not result.startswith("hub:"), (how, nth, result)
            answer.append([how, nth, "new" if now == after else "old", result])
"""


@pytest.mark.slow
def test_a_publication_interrupted_at_any_request_loses_nothing(tmp_path):
    """Each request in turn gets no response, loses its response, or is refused: the hub then has the old or the new
    model, the error explains what happened, and repeating the call publishes the new one."""
    code = (
        _PROLOGUE
        + _CUT.format(folder=str(tmp_path / "hub"), home=str(tmp_path / "home"))
        + "\nprint(json.dumps(answer))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=clean)
    assert run.returncode == 0, run.stderr
    outcomes = json.loads(run.stdout)
    assert len(outcomes) >= 3 * 6
    assert {state for _, _, state, _ in outcomes} == {"old", "new"}
    assert all(result.startswith(("hub:", "HubError: ")) for *_, result in outcomes)
    assert any(result.startswith("HubError: org/clock: the hub http://127.0.0.1") for *_, result in outcomes)


@pytest.mark.slow
def test_a_publisher_killed_at_any_request_loses_nothing(hub, tmp_path):
    home, pid = tmp_path / "home", tmp_path / "pid"
    publish = f'import os\nopen({str(pid)!r}, "w").write(str(os.getpid()))\n'
    publish += 'answer = zoo.publish(pendulum({}), "hub:org/clock")'
    child(hub, home, publish.format(0))
    before = len(hub.requests)
    child(hub, home, publish.format(1))
    requests = len(hub.requests) - before
    for nth in range(1, requests + 1):
        head = hub.files("models", "org/clock")["model.safetensors"]
        hub.interrupt(nth, lambda request: os.kill(int(pid.read_text()), signal.SIGKILL))
        assert child(hub, home, publish.format(10 + nth)) is None
        hub.hook = None
        assert hub.files("models", "org/clock")["model.safetensors"] == head, (
            "the only commit has not been created yet"
        )
    assert child(hub, home, publish.format(10 + requests)).startswith("hub:org/clock@")
    assert child(hub, home, 'answer = weights(zoo.load("hub:org/clock"))') == weights(10 + requests)
