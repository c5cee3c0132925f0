"""The test hub behaves like the real one towards its real client, for datasets too."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hub_server import HubServer

pytest.importorskip("huggingface_hub", reason="is the client")

_DATASET = """
import json, sys
from pathlib import Path
import huggingface_hub.utils._http
from huggingface_hub import HfApi, HfFileSystem, errors, snapshot_download
huggingface_hub.utils._http.time.sleep = lambda seconds: None
api, folder, answer = HfApi(), Path(sys.argv[1]), {}
api.create_repo("org/clips", repo_type="dataset", exist_ok=True)
api.create_repo("org/clips", repo_type="dataset", exist_ok=True)
first = api.upload_folder(folder_path=folder, repo_id="org/clips", repo_type="dataset")
(folder / "data" / "part-1.parquet").write_bytes(b"second" * 1000)
api.upload_folder(folder_path=folder, repo_id="org/clips", repo_type="dataset")
api.create_tag("org/clips", tag="v1", revision=first.oid, repo_type="dataset")
def tree(revision):
    return api.list_repo_tree("org/clips", "data", revision=revision, repo_type="dataset")
answer["files"] = {revision: sorted(file.path for file in tree(revision)) for revision in ("v1", "main")}
refs = api.list_repo_refs("org/clips", repo_type="dataset")
answer["refs"] = [ref.name for ref in refs.branches + refs.tags]
answer["titles"] = len(api.list_repo_commits("org/clips", repo_type="dataset"))
with HfFileSystem().open("datasets/org/clips/data/part-1.parquet", "rb", block_size=1000) as file:
    file.seek(-5, 2)
    answer["end"] = file.read().decode()
copy = Path(snapshot_download("org/clips", repo_type="dataset"))
answer["same"] = all((copy / f.relative_to(folder)).read_bytes() == f.read_bytes() for f in folder.rglob("*.*"))
def fails(call):
    try:
        call()
    except Exception as error:
        return type(error).__name__
answer["errors"] = [
    fails(lambda: api.dataset_info("org/none")),
    fails(lambda: api.dataset_info("org/clips", revision="v2")),
    fails(lambda: api.hf_hub_download("org/clips", "none", repo_type="dataset")),
    fails(lambda: list(api.list_repo_tree("org/clips", "none", repo_type="dataset"))),
    fails(lambda: api.create_repo("org/clips", repo_type="dataset")),
]
print(json.dumps(answer))
"""


def test_a_growing_dataset(tmp_path):
    """Only new files are uploaded; ranges, tags, history and errors are as the client expects."""
    folder = tmp_path / "clips"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text("---\npretty_name: Clips\n---\n")
    (folder / "data" / "part-0.parquet").write_bytes(b"first" * 1000)
    with HubServer(tmp_path / "hub") as hub:
        command = [sys.executable, "-c", _DATASET, str(folder)]
        hub.interrupt(7, "drop", times=2)  # the client retries
        run = subprocess.run(
            command, env=hub.environment(tmp_path / "home"), capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stderr
        answer = json.loads(run.stdout)
        assert len(hub.uploaded) == 2 == len(set(hub.uploaded)), "each shard is uploaded once"
        assert len([r for r in hub.requests if r.method == "PUT"]) > 2, (
            "control: some uploads were interrupted"
        )
    with HubServer(tmp_path / "hub") as again:
        assert again.files("datasets", "org/clips")["data/part-1.parquet"] == b"second" * 1000
        assert again.names("datasets") == ["org/clips"] and again.names("models") == []
    shards = ["data/part-0.parquet", "data/part-1.parquet"]
    assert answer["files"] == {"v1": shards[:1], "main": shards}
    assert answer["refs"] == ["main", "v1"] and answer["titles"] == 3
    assert answer["end"] == "econd" and answer["same"]
    assert answer["errors"] == [
        "RepositoryNotFoundError", "RevisionNotFoundError", "RemoteEntryNotFoundError", "RemoteEntryNotFoundError",
        "HfHubHTTPError",
    ]  # fmt: skip
