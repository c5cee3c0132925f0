"""A Hugging Face hub on the loopback interface, for the real client: models and datasets, kept in a folder.

It implements the endpoints that `huggingface_hub` and `datasets` call: create, preupload, LFS, commit, info, tree,
paths, resolve with ranges, tags, branches, refs, history, listing. Its content survives a restart on the same folder.
The client reads its settings at import, so tests run it in child processes with `server.environment(home)`.

    with HubServer(tmp_path / "hub") as hub:
        hub.interrupt(3, "drop")                         # drop the connection of the third request from now
        subprocess.run([sys.executable, script], env=hub.environment(tmp_path / "home"))
        hub.requests, hub.uploaded                       # all requests and uploads so far
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

_LFS_SUFFIXES = (
    "7z arrow avi bin ckpt gif glb gz jpg jpeg mp4 npy npz parquet pkl ply png pt pth safetensors tar wav"
)
_LFS_SUFFIXES = tuple(f".{suffix}" for suffix in (*_LFS_SUFFIXES.split(), "webm", "webp", "zip"))
_ATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LFS_SUFFIXES).encode()
_LFS_SIZE = 10 * 2**20  # larger files of any kind use LFS as well
_PAGE = 1000


@dataclass(frozen=True)
class Request:
    """One request: its number since the server started (from 1), its method and its path with the query."""

    number: int
    method: str
    path: str


@dataclass(frozen=True)
class Fault:
    """How a request is answered wrongly.

    Attributes:
        status: HTTP status; None = the right one.
        code, message: of the hub, with a status: X-Error-Code and X-Error-Message.
        headers: added to the answer, or replacing its own.
        delay_s: seconds before the answer.
        sent: part of the body that is sent before the connection is cut.
        damage: the body's last byte is another one, with the same length.
        length: bytes that the headers announce more than the body has.
    """

    status: int | None = None
    code: str = ""
    message: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    delay_s: float = 0.0
    sent: float | None = None
    damage: bool = False
    length: int = 0


class HubServer:
    """The server, running from `__enter__` to `__exit__`.

    Attributes:
        url: the value for HF_ENDPOINT.
        requests: all requests so far, in order of arrival.
        uploaded: sha256 of every object uploaded with PUT, in order of arrival.
        hook: called in the server's thread before a request is answered. It returns None (answer normally), "drop"
            (close the connection without processing), "lose" (process, then close the connection without answering),
            an HTTP status to answer with, or a `Fault`. The client retries some requests after 429, 5xx and lost
            connections, but not after 403.
        account: answer to the question whom a token belongs to.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.requests: list[Request] = []
        self.uploaded: list[str] = []
        self.hook: Callable[[Request], str | int | Fault | None] | None = None
        self.account: dict = {
            "type": "user",
            "name": "user",
            "orgs": [{"name": "org"}],
            "auth": {"type": "access_token"},
        }
        self._lock = threading.RLock()
        self._at_work = 0  # requests that are being answered
        self._idle = threading.Condition(self._lock)

    def __enter__(self) -> HubServer:
        (self.folder / "objects").mkdir(parents=True, exist_ok=True)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def environment(self, home: str | os.PathLike[str], token: str | None = "hf_any") -> dict[str, str]:
        """Return the environment of a child process that uses this hub and has its cache in `home`."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
        }
        environment |= {"HF_ENDPOINT": self.url, "HF_HOME": os.fspath(home), "HF_HUB_DISABLE_XET": "1"}
        environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        environment |= {"HF_HUB_DISABLE_UPDATE_CHECK": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return environment | ({"HF_TOKEN": token} if token else {})

    def interrupt(self, nth: int, how: str | int | Callable[[Request], object], times: int = 1) -> None:
        """Apply the fault `how` to `times` requests, starting with the nth from now (1 is the next); see `hook`.

        A function is called with the request (to kill the client, say), and then the line is cut.
        """
        first = len(self.requests) + nth

        def hook(request: Request) -> str | int | None:
            if not first <= request.number < first + times:
                return None
            if callable(how):
                how(request)
                return "drop"
            return how

        self.hook = hook

    def settle(self) -> None:
        """Wait until every request has been answered, also those whose client has given up waiting."""
        with self._idle:
            assert self._idle.wait_for(lambda: not self._at_work, timeout=60)

    # --- storage: one JSON file per repository, and contents by sha256 ----------------------------------

    def names(self, kind: str) -> list[str]:
        """List the repositories of a kind, "models" or "datasets"."""
        return sorted(f"{path.parent.name}/{path.stem}" for path in (self.folder / kind).glob("*/*.json"))

    def repository(self, kind: str, name: str) -> dict | None:
        """{"branches": {name: commit}, "tags": …, "commits": {id: {"parent", "title", "date", "files"}}}."""
        try:
            return json.loads((self.folder / kind / f"{name}.json").read_bytes())
        except FileNotFoundError:
            return None

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return the contents of a revision."""
        repository = self.repository(kind, name)
        files = repository["commits"][_resolve(repository, revision)]["files"]
        return {path: self.object(entry["sha256"]).read_bytes() for path, entry in files.items()}

    def object(self, sha256: str) -> Path:
        return self.folder / "objects" / sha256

    def put(self, data: bytes) -> str:
        """Store a content; return its sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        _replace(self.object(sha256), data)
        return sha256

    def save(self, kind: str, name: str, repository: dict) -> None:
        _replace(self.folder / kind / f"{name}.json", json.dumps(repository).encode())

    def commit(self, kind: str, name: str, branch: str, title: str, files: dict[str, dict]) -> str:
        """Add a commit to a branch; return its id."""
        repository = self.repository(kind, name) or {"branches": {}, "tags": {}, "commits": {}}
        parent = repository["branches"].get(branch)
        date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        commit = {"parent": parent, "title": title, "date": date, "files": files}
        commit_id = hashlib.sha1(json.dumps(commit, sort_keys=True).encode()).hexdigest()
        repository["commits"][commit_id] = commit
        repository["branches"][branch] = commit_id
        self.save(kind, name, repository)
        return commit_id


class _Refusal(Exception):
    """An error response: HTTP status, the hub's error code, and a message."""

    def __init__(self, status: int, code: str, message: str, **more: object) -> None:
        super().__init__(message)
        self.status, self.code, self.more = status, code, more


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answer(self) -> None:
        with self.hub._idle:
            self.hub._at_work += 1
        try:
            self._answer_one()
        finally:
            with self.hub._idle:
                self.hub._at_work -= 1
                self.hub._idle.notify_all()

    def _answer_one(self) -> None:
        with self.hub._lock:
            request = Request(len(self.hub.requests) + 1, self.command, self.path)
            self.hub.requests.append(request)
            fault = self.hub.hook(request) if self.hub.hook else None
        if fault == "drop":
            self.close_connection = True
            return
        self.body = self._read_body()
        self.fault = fault if isinstance(fault, Fault) else Fault()
        threading.Event().wait(self.fault.delay_s)  # tests replace time.sleep
        try:
            if isinstance(fault, int):
                raise _Refusal(fault, "Interrupted", "the test makes this request fail")
            if self.fault.status is not None:
                raise _Refusal(self.fault.status, self.fault.code, self.fault.message)
            with self.hub._lock:
                answer = self._route()
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": str(refusal)}
            answer = refusal.status, {"error": str(refusal), **refusal.more}, headers
        if fault == "lose":
            self.close_connection = True
        else:
            self._send(*answer)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        """Send JSON or bytes; for a HEAD request, only the headers."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if self.fault.damage and data:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(data) + self.fault.length),
            **(headers or {}),
            **dict(self.fault.headers),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data if self.fault.sent is None else data[: int(len(data) * self.fault.sent)])
        if self.fault.sent is not None:
            self.close_connection = True

    # --- requests ---------------------------------------------------------------------------------

    def _route(self) -> tuple:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        method = "GET" if self.command == "HEAD" else self.command
        for verb, pattern, answer in _ROUTES:
            if verb == method and (match := re.fullmatch(pattern, url.path)):
                signed = self.headers.get("Authorization", "").startswith("Bearer ")
                if method != "GET" and answer not in _WITHOUT_TOKEN and not signed:
                    raise _Refusal(401, "Unauthorized", "Invalid username or password.")
                groups = {name: unquote(value) for name, value in match.groupdict(default="").items()}
                return answer(self, **groups)
        raise _Refusal(404, "NotFound", f"Sorry, we can't find {self.command} {self.path}")

    def create(self) -> tuple:
        asked = json.loads(self.body)
        kind, name = f"{asked.get('type') or 'model'}s", f"{asked['organization'] or 'user'}/{asked['name']}"
        prefix = "datasets/" if kind == "datasets" else ""
        url = f"{self.hub.url}/{prefix}{name}"
        if self.hub.repository(kind, name):
            raise _Refusal(409, "Conflict", "You already created this repo", url=url)
        files = {".gitattributes": _entry(self.hub.put(_ATTRIBUTES), _ATTRIBUTES, lfs=False)}
        self.hub.commit(kind, name, "main", "initial commit", files)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.save(kind, name, {**self.hub.repository(kind, name), "private": bool(private)})
        return 200, {"url": url, "name": name, "id": name}

    def validate_yaml(self) -> tuple:
        return 200, {"errors": [], "warnings": []}

    def whoami(self) -> tuple:
        return 200, self.hub.account

    def list(self, kind: str) -> tuple:
        author, tags = self.query.get("author"), set(self.query.get("filter", []))
        search = self.query.get("search", [""])[0].lower()
        found = [self._info(kind, name, "main") for name in self.hub.names(kind)]
        found = [info for info in found if not author or info["author"] == author[0]]
        found = [info for info in found if tags <= set(info["tags"]) and search in info["id"].lower()]
        return 200, found[: int(self.query.get("limit", [_PAGE])[0])]

    def info(self, kind: str, name: str, revision: str) -> tuple:
        return 200, self._info(kind, name, revision or "main")

    def _info(self, kind: str, name: str, revision: str) -> dict:
        commit_id, commit = self._commit(kind, name, revision)
        siblings = []
        for path, entry in sorted(commit["files"].items()):
            sibling = {"rfilename": path}
            if self.query.get("blobs"):
                sibling |= {"size": entry["size"], "blobId": entry["oid"]}
                sibling |= {"lfs": _lfs(entry)} if entry["lfs"] else {}
            siblings.append(sibling)
        return {
            "_id": hashlib.sha1(name.encode()).hexdigest()[:24],
            "id": name,
            **({"modelId": name} if kind == "models" else {}),
            "author": name.split("/")[0],
            "sha": commit_id,
            "lastModified": commit["date"],
            "createdAt": commit["date"],
            "private": self._repository(kind, name).get("private", False),
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": self._tags(commit["files"].get("README.md")),
            "siblings": siblings,
        }

    def _tags(self, card: dict | None) -> list[str]:
        """Return `tags` and `library_name` of a card's front matter, which must have one item per line."""
        text = self.hub.object(card["sha256"]).read_text() if card else ""
        matter = text.split("---\n")[1] if text.startswith("---\n") else ""
        tags = re.search(r"^tags:\n((?:\s*- .*\n)*)", matter, re.MULTILINE)
        library = re.findall(r"^library_name: (.*)$", matter, re.MULTILINE)
        return library + (re.findall(r"- ['\"]?(.*?)['\"]?\n", tags[1]) if tags else [])

    def tree(self, kind: str, name: str, revision: str, path: str) -> tuple:
        commit_id, commit = self._commit(kind, name, revision)
        recursive, expand = (
            self.query.get(key, [""])[0].lower() in ("true", "1") for key in ("recursive", "expand")
        )
        prefix = f"{path.strip('/')}/" if path else ""
        found = {file: entry for file, entry in commit["files"].items() if file.startswith(prefix)}
        if prefix and not found:
            raise _Refusal(404, "EntryNotFound", f"{path} does not exist on {revision!r}")
        listed = self._folders(found, prefix, recursive)
        listed += [
            _describe(file, entry)
            for file, entry in found.items()
            if recursive or "/" not in file[len(prefix) :]
        ]
        listed.sort(key=lambda item: item["path"])
        if expand:
            last = {"id": commit_id, "title": commit["title"], "date": commit["date"]}
            listed = [{**item, "lastCommit": last} for item in listed]
        start = int(self.query.get("cursor", ["0"])[0])
        headers = {}
        if start + _PAGE < len(listed):
            query = f"recursive={recursive}&expand={expand}&cursor={start + _PAGE}"
            headers["Link"] = f'<{self.hub.url}{urlsplit(self.path).path}?{query}>; rel="next"'
        return 200, listed[start : start + _PAGE], headers

    @staticmethod
    def _folders(files: dict, prefix: str, recursive: bool) -> list[dict]:
        folders = set()
        for file in files:
            parts = file[len(prefix) :].split("/")[:-1]
            folders |= {
                prefix + "/".join(parts[: i + 1])
                for i in range(len(parts) if recursive else min(1, len(parts)))
            }
        oid = hashlib.sha1
        return [
            {"type": "directory", "path": f, "size": 0, "oid": oid(f.encode()).hexdigest()} for f in folders
        ]

    def paths_info(self, kind: str, name: str, revision: str) -> tuple:
        _, commit = self._commit(kind, name, revision)
        is_json = "json" in self.headers.get("Content-Type", "")
        asked = json.loads(self.body)["paths"] if is_json else parse_qs(self.body.decode()).get("paths", [])
        answer = []
        for path in (path.strip("/") for path in asked):
            if path in commit["files"]:
                answer.append(_describe(path, commit["files"][path]))
            elif any(file.startswith(f"{path}/") for file in commit["files"]):
                oid = hashlib.sha1(path.encode()).hexdigest()
                answer.append({"type": "directory", "path": path, "size": 0, "oid": oid})
        return 200, answer

    def preupload(self, kind: str, name: str, revision: str) -> tuple:
        _, commit = self._commit(kind, name, revision)
        answer = []
        for file in json.loads(self.body)["files"]:
            lfs = file["path"].lower().endswith(_LFS_SUFFIXES) or file["size"] > _LFS_SIZE
            mode = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if entry := commit["files"].get(file["path"]):
                mode["oid"] = entry["sha256"] if entry["lfs"] else entry["oid"]
            answer.append(mode)
        return 200, {"files": answer, "commitOid": self._commit(kind, name, revision)[0]}

    def lfs_batch(self, datasets: str, name: str) -> tuple:
        self._commit("datasets" if datasets else "models", name, "main")
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if not self.hub.object(wanted["oid"]).exists():
                answer["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{wanted['oid']}", "header": {}}}
            objects.append(answer)
        return 200, {"transfer": "basic", "objects": objects}

    def lfs_put(self, oid: str) -> tuple:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Refusal(400, "BadDigest", "the content does not match its sha256")
        self.hub.uploaded.append(self.hub.put(self.body))
        return 200, b""

    def make_commit(self, kind: str, name: str, revision: str) -> tuple:
        commit_id, commit = self._commit(kind, name, revision)
        lines = [json.loads(line) for line in self.body.splitlines() if line]
        header, files = lines[0]["value"], dict(commit["files"])
        if header.get("parentCommit") not in (None, commit_id):
            raise _Refusal(
                412, "PreconditionFailed", "A commit has happened since. Please refresh and try again."
            )
        for value, key in ((line["value"], line["key"]) for line in lines[1:]):
            path = value["path"]
            if key == "file":
                data = base64.b64decode(value["content"])
                files[path] = _entry(self.hub.put(data), data, lfs=False)
            elif key == "lfsFile":
                if not self.hub.object(value["oid"]).exists():
                    raise _Refusal(
                        400, "BadRequest", f"LFS pointer of {path} points to a file that does not exist"
                    )
                files[path] = _entry(value["oid"], self.hub.object(value["oid"]), lfs=True)
            elif key == "deletedFile":
                if files.pop(path, None) is None:
                    raise _Refusal(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
            elif key == "deletedFolder":
                files = {
                    file: entry
                    for file, entry in files.items()
                    if not file.startswith(f"{path.rstrip('/')}/")
                }
        new = self.hub.commit(kind, name, revision, header["summary"], files)
        return 200, {"success": True, "commitOid": new, "commitUrl": f"{self.hub.url}/{name}/commit/{new}"}

    def resolve(self, datasets: str, name: str, revision: str, path: str) -> tuple:
        commit_id, commit = self._commit("datasets" if datasets else "models", name, revision)
        entry = commit["files"].get(path)
        if entry is None:
            raise _Refusal(404, "EntryNotFound", f"{path} does not exist in {name} at {revision}")
        headers = {"X-Repo-Commit": commit_id, "Accept-Ranges": "bytes"}
        headers["ETag"] = f'"{entry["sha256"] if entry["lfs"] else entry["oid"]}"'
        if entry["lfs"]:
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(entry["size"])}
        return self._content(self.hub.object(entry["sha256"]), headers)

    def _content(self, file: Path, headers: dict[str, str]) -> tuple:
        size = file.stat().st_size
        start, end, status = 0, size, 200
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)|bytes=-(\d+)", self.headers.get("Range", "")):
            first, last, suffix = (int(number) if number else None for number in asked.groups())
            start = first if suffix is None else max(0, size - suffix)
            end = size if last is None else min(last + 1, size)
            if start >= end:
                return 416, b"", {**headers, "Content-Range": f"bytes */{size}"}
            status, headers = 206, {**headers, "Content-Range": f"bytes {start}-{end - 1}/{size}"}
        with file.open("rb") as content:
            content.seek(start)
            return status, content.read(end - start), headers

    def refs(self, kind: str, name: str) -> tuple:
        repository = self._repository(kind, name)
        answer: dict[str, list] = {"converts": []}
        for group, where in (("branches", "heads"), ("tags", "tags")):
            answer[group] = [
                {"name": ref, "ref": f"refs/{where}/{ref}", "targetCommit": commit}
                for ref, commit in repository[group].items()
            ]
        return 200, answer

    def commits(self, kind: str, name: str, revision: str) -> tuple:
        commit_id, _ = self._commit(kind, name, revision)
        history, answer = self._repository(kind, name)["commits"], []
        while commit_id:
            commit = history[commit_id]
            answer.append({"id": commit_id, "title": commit["title"], "message": "", "date": commit["date"]})
            answer[-1]["authors"] = [{"user": "user"}]
            commit_id = commit["parent"]
        return 200, answer

    def make_tag(self, kind: str, name: str, revision: str) -> tuple:
        return self._new_ref(kind, name, "tags", json.loads(self.body)["tag"], revision)

    def make_branch(self, kind: str, name: str, revision: str) -> tuple:
        start = json.loads(self.body or b"{}").get("startingPoint") or "main"
        return self._new_ref(kind, name, "branches", revision, start)

    def _new_ref(self, kind: str, name: str, group: str, ref: str, revision: str) -> tuple:
        commit_id, _ = self._commit(kind, name, revision)
        repository = self._repository(kind, name)
        if ref in repository[group]:
            raise _Refusal(409, "Conflict", f"Reference already exists: {ref}")
        repository[group][ref] = commit_id
        self.hub.save(kind, name, repository)
        return 200, {}

    def delete_tag(self, kind: str, name: str, revision: str) -> tuple:
        repository = self._repository(kind, name)
        if repository["tags"].pop(revision, None) is None:
            raise _Refusal(404, "RevisionNotFound", f"no tag {revision}")
        self.hub.save(kind, name, repository)
        return 200, {}

    def _repository(self, kind: str, name: str) -> dict:
        if (repository := self.hub.repository(kind, name)) is None:
            raise _Refusal(404, "RepoNotFound", "Repository not found")
        return repository

    def _commit(self, kind: str, name: str, revision: str) -> tuple[str, dict]:
        repository = self._repository(kind, name)
        commit_id = _resolve(repository, revision)
        if commit_id is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit_id, repository["commits"][commit_id]


def _resolve(repository: dict, revision: str) -> str | None:
    if revision in repository["commits"]:
        return revision
    return repository["branches"].get(revision) or repository["tags"].get(revision)


def _entry(sha256: str, content: bytes | Path, lfs: bool) -> dict:
    """A file of a commit. `oid` is the git hash of the content, or of its LFS pointer."""
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    blob = pointer if lfs else content
    oid = hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest()
    return {"sha256": sha256, "size": size, "oid": oid, "lfs": lfs}


def _lfs(entry: dict) -> dict:
    return {"oid": entry["sha256"], "sha256": entry["sha256"], "size": entry["size"], "pointerSize": 134}


def _describe(path: str, entry: dict) -> dict:
    described = {"type": "file", "path": path, "size": entry["size"], "oid": entry["oid"]}
    return {**described, "lfs": _lfs(entry)} if entry["lfs"] else described


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{uuid.uuid4().hex}")
    unfinished.write_bytes(data)
    os.replace(unfinished, path)


# POST requests that only read, and the upload URL of an LFS object.
_WITHOUT_TOKEN = (_Handler.paths_info, _Handler.validate_yaml, _Handler.lfs_put)
_API = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
_ROUTES = [
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", r"/api/validate-yaml", _Handler.validate_yaml),
    ("GET", r"/api/whoami-v2", _Handler.whoami),
    ("GET", r"/api/(?P<kind>models|datasets)", _Handler.list),
    ("GET", _API + r"(?:/revision/(?P<revision>[^/]+))?", _Handler.info),
    ("GET", _API + r"/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", _Handler.tree),
    ("POST", _API + r"/paths-info/(?P<revision>[^/]+)", _Handler.paths_info),
    ("POST", _API + r"/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (
        "POST",
        r"/(?P<datasets>datasets/)?(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch",
        _Handler.lfs_batch,
    ),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.lfs_put),
    ("POST", _API + r"/commit/(?P<revision>[^/]+)", _Handler.make_commit),
    ("GET", _API + r"/refs", _Handler.refs),
    ("GET", _API + r"/commits/(?P<revision>[^/]+)", _Handler.commits),
    ("POST", _API + r"/tag/(?P<revision>[^/]+)", _Handler.make_tag),
    ("DELETE", _API + r"/tag/(?P<revision>[^/]+)", _Handler.delete_tag),
    ("POST", _API + r"/branch/(?P<revision>[^/]+)", _Handler.make_branch),
    (
        "GET",
        r"/(?P<datasets>datasets/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)",
        _Handler.resolve,
    ),
]
