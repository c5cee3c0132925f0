"""A child process with a hub that fails on request, the real client of it, and short pauses and timeouts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# The server runs in the process of the client, whose pauses and timeouts are shortened.
PROLOGUE = f"""
import errno, json, logging, os, shutil, sys, warnings
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from hub_server import Fault, HubServer
base = Path(sys.argv[1])
hub = HubServer(base / "hub").__enter__()
os.environ.update(hub.environment(base / "hf"))
os.environ["MENAGERIE_HOME"] = str(base / "registry")
import huggingface_hub.utils._http
huggingface_hub.utils._http.time.sleep = lambda seconds: None
from huggingface_hub import _tree_cache, constants, file_download
constants.HF_HUB_ETAG_TIMEOUT = constants.HF_HUB_DOWNLOAD_TIMEOUT = file_download._ETAG_RETRY_TIMEOUT = 0.3
from zoo import huggingface
huggingface.READ_TIMEOUT_S = huggingface.PUBLISH_TIMEOUT_S = 0.3
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
    "slow": Fault(delay_s=0.6),
    "drop": "drop",
    "cut": Fault(sent=0.5),
    "wrong hash": Fault(damage=True),
    "wrong length": Fault(headers=(("X-Linked-Size", "7"),)),
}}
"""


def child(folder: Path, code: str, *flags: str) -> dict:
    """The JSON that code prints, in a process with a hub in `folder` and these things to make it fail:

    `hub`, a `HubServer`; `FAULTS`, and `on("GET /resolve/", fault)` to answer such requests with one; `CACHE`, the
    client's; `lines`, what the zoo logged.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    command = [sys.executable, "-P", "-c", f"{PROLOGUE}\n{code}", str(folder), *flags]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=clean)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])
