"""The downloader against a server that behaves badly: nothing half, nothing twice, nothing lost."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sketchfab_server import SketchfabServer

from factory.sources import downloads
from factory.sources.downloads import Cache, DeadLink, DownloadError, WrongChecksum

DATA = random.Random(0).randbytes(600_000)
SUM = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server():
    with SketchfabServer() as server:
        server.static["/file"] = DATA
        yield server


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Cache:
    monkeypatch.setattr(downloads, "_BACK_OFF_S", 0.001)
    monkeypatch.delenv("MENAGERIE_MIRROR", raising=False)
    return Cache(tmp_path / "cache")


def left_over(cache: Cache) -> list[str]:
    return [path.name for path in (cache.root / "partial").iterdir()]


def test_a_file_is_fetched_once_and_kept_by_its_content(server, cache):
    first = cache.fetch(f"{server.url}/file")
    again = cache.fetch(f"{server.url}/file")
    elsewhere = cache.fetch(f"{server.url}/another-address", sha256=SUM)
    assert first == again == elsewhere and first.read_bytes() == DATA and first.name == SUM
    assert len(server.requests) == 1
    assert left_over(cache) == []


def test_the_cache_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MENAGERIE_CACHE", str(tmp_path / "mine"))
    assert Cache().root == tmp_path / "mine"
    monkeypatch.delenv("MENAGERIE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert Cache().root == tmp_path / "xdg" / "menagerie4d"


def test_a_broken_off_download_goes_on_where_it_stopped(server, cache):
    server.misbehave = lambda request: "cut" if request.number < 4 else None
    assert cache.fetch(f"{server.url}/file").read_bytes() == DATA
    first, *rest = [request.range.removeprefix("bytes=").removesuffix("-") for request in server.requests]
    assert first == "" and len(rest) == 3
    for start, came in zip(map(int, rest), (1 / 2, 3 / 4, 7 / 8), strict=True):  # half of what was missing
        assert came * len(DATA) - 3 * 16384 <= start <= came * len(DATA)


def test_where_the_server_sends_no_parts_it_starts_again(server, cache):
    server.ranges = False
    server.misbehave = lambda request: "cut" if request.number == 1 else None
    assert cache.fetch(f"{server.url}/file").read_bytes() == DATA
    assert [request.range for request in server.requests] == ["", ""]


def test_a_file_that_changed_meanwhile_is_not_glued_together(server, cache):
    def misbehave(request):
        if request.number == 1:
            return "cut"
        server.static["/file"] = DATA[::-1]
        return None

    server.misbehave = misbehave
    assert cache.fetch(f"{server.url}/file").read_bytes() == DATA[::-1]


def test_passing_trouble_is_waited_out(server, cache):
    troubles = iter([500, "drop", 502, "throttle:0.01"])
    server.misbehave = lambda request: next(troubles, None)
    assert cache.fetch(f"{server.url}/file").read_bytes() == DATA


def test_trouble_that_stays_is_an_error_that_names_file_and_cause(server, cache):
    server.misbehave = lambda request: 500
    with pytest.raises(
        DownloadError, match=r"/file: download failed after 5 attempts \(HTTP 500\).*--retry-quarantined"
    ):
        cache.fetch(f"{server.url}/file")
    assert len(server.requests) == 5


@pytest.mark.parametrize("status", [404, 410, 403, 451])
def test_a_dead_link_is_told_at_once(server, cache, status):
    server.misbehave = lambda request: status
    with pytest.raises(DeadLink) as caught:
        cache.fetch(f"{server.url}/file")
    assert caught.value.reason == f"HTTP {status}" and len(server.requests) == 1


@pytest.mark.parametrize(
    "url", ["ftp://host/x", "file:///etc/passwd", "http://", "http://[", "", "http://a b/"]
)
def test_what_is_no_web_address_is_a_dead_link(cache, url):
    with pytest.raises((DeadLink, ValueError)):
        cache.fetch(url, name="x")


def test_retry_after_is_obeyed_by_all(server, cache):
    server.misbehave = lambda request: "throttle:0.5" if request.number == 1 else None
    with subprocess.Popen(
        [sys.executable, "-c", _FETCH, str(cache.root), f"{server.url}/file?other"], stdout=subprocess.PIPE
    ) as other:  # its imports take longer than the first request here
        assert cache.fetch(f"{server.url}/file").read_bytes() == DATA
        other.communicate()
    first, *rest = server.requests
    assert len(rest) == 2 and min(request.time for request in rest) - first.time >= 0.49


def test_a_host_that_wants_too_long_a_rest_is_left_alone(server, cache):
    server.misbehave = lambda request: "throttle:86400"
    for _ in range(2):
        with pytest.raises(DownloadError, match=r"rate limit ends in 8\d{4} s"):
            cache.fetch(f"{server.url}/file")
    assert len(server.requests) == 1


def test_a_date_in_retry_after(server, cache):
    server.misbehave = lambda request: (
        "throttle:Thu, 01 Jan 2015 00:00:00 GMT" if request.number == 1 else None
    )
    assert cache.fetch(f"{server.url}/file").read_bytes() == DATA


def test_requests_to_one_host_keep_their_distance(cache, monkeypatch):
    monkeypatch.setattr(downloads, "_INTERVALS_S", {"slow.example": 0.1})
    started = time.monotonic()
    for _ in range(4):
        cache._wait_for("slow.example")
    assert 0.3 <= time.monotonic() - started < 2


def test_a_corrupted_transfer_is_noticed_and_repeated(server, cache):
    server.misbehave = lambda request: "corrupt" if request.number == 1 else None
    assert cache.fetch(f"{server.url}/file", sha256=SUM).read_bytes() == DATA
    assert len(server.requests) == 2


def test_a_file_that_is_another_one_is_refused(server, cache):
    with pytest.raises(WrongChecksum, match=r"/file: wrong checksum: expected sha256 0000.*it has changed"):
        cache.fetch(f"{server.url}/file", sha256="0" * 64)
    assert len(server.requests) == 2 and left_over(cache) == []


def test_control_without_a_checksum_a_corrupted_file_is_taken(server, cache):
    server.misbehave = lambda request: "corrupt"
    assert cache.fetch(f"{server.url}/file").read_bytes() != DATA


def test_an_expired_link_is_asked_for_again(server, cache):
    server.files["a"] = {"glb": DATA}
    links = iter([f"{server.url}/media/a/glb?expires=0", f"{server.url}/media/a/glb?expires=99999999999"])
    assert cache.fetch(lambda: next(links), name="a").read_bytes() == DATA
    with pytest.raises(DeadLink):  # one that is never good is dead
        cache.fetch(lambda: f"{server.url}/media/a/glb?expires=0", name="b")


def test_a_signed_address_is_not_in_the_error(server, cache):
    server.misbehave = lambda request: "drop"
    with pytest.raises(DownloadError) as caught:
        cache.fetch(lambda: f"{server.url}/file?signature=secret", name="the model")
    assert "secret" not in str(caught.value) and "the model" in str(caught.value)


def test_a_file_larger_than_anything_is_refused(server, cache):
    with pytest.raises(DownloadError, match="exceeds the size limit"):
        cache.fetch(f"{server.url}/file", largest=1000)


def test_a_full_disk_is_told_with_its_place(server, cache):
    """Truth: the kernel's own ENOSPC, from /dev/full."""
    name = f"{server.url}/file"
    partial = cache._partial(name)
    partial.parent.mkdir(parents=True)
    partial.symlink_to("/dev/full")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # keep the full disk in place
        with pytest.raises(
            DownloadError, match=r"cannot be written to the cache .*cache.*MENAGERIE_CACHE"
        ) as caught:
            cache.fetch(name)
    assert caught.value.errno == errno.ENOSPC


def test_a_cache_that_may_not_be_written_is_told(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Cache(tmp_path / "file" / "cache").fetch(f"{server.url}/file")


# --- several processes --------------------------------------------------------------------------------

_FETCH = """
import sys
from factory.sources.downloads import Cache
for url in sys.argv[2:]:
    print(Cache(sys.argv[1]).fetch(url))
"""


def test_processes_share_one_download(server, cache):
    command = [sys.executable, "-c", _FETCH, str(cache.root), f"{server.url}/file"]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {other.communicate(timeout=60)[0] for other in others}
    assert len(said) == 1 and Path(said.pop().strip()).read_bytes() == DATA
    assert len(server.requests) == 1


def test_killed_at_any_moment_and_resumed(server, cache):
    """Each process is killed when the server has seen one more request; what came stays."""
    server.misbehave = lambda request: "cut" if request.number < 6 else None
    urls = [f"{server.url}/file?{number}" for number in range(3)]
    command = [sys.executable, "-c", _FETCH, str(cache.root), *urls]
    for _ in range(2):
        before = len(server.requests)
        child = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while len(server.requests) == before and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        child.wait()
    subprocess.run(command, check=True, timeout=60)
    assert all(cache.find(url).read_bytes() == DATA for url in urls)
    assert left_over(cache) == []
    assert len(server.requests) <= 10


# --- trees, made files and APIs -----------------------------------------------------------------------


def test_a_tree_is_whole_or_not_there(cache):
    def fails(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        cache.tree("t", fails)
    made = cache.tree("t", lambda folder: (folder / "whole").write_text("x"))
    assert os.listdir(made) == ["whole"]
    assert cache.tree("t", fails) == made


def test_a_made_file_is_made_once(cache):
    made = cache.make("m", lambda target: target.write_bytes(b"glb"))
    assert made.read_bytes() == b"glb" and cache.make("m", lambda target: 1 / 0) == made


def test_an_api_is_asked_every_time_and_told_from_a_web_page(server, cache):
    server.static["/answer"] = b'{"a": 1}'
    server.misbehave = lambda request: "throttle:0.01" if request.number == 1 else None
    assert cache.ask(f"{server.url}/answer") == cache.ask(f"{server.url}/answer") == {"a": 1}
    assert len(server.requests) == 3
    server.static["/page"] = b"<html>"
    with pytest.raises(DownloadError, match="not JSON"):
        cache.ask(f"{server.url}/page")


def test_a_mirror_stands_for_every_secure_host(server, cache, monkeypatch):
    server.static["/models.example/a/b.glb"] = b"mirrored"
    monkeypatch.setenv("MENAGERIE_MIRROR", server.url)
    assert cache.fetch("https://models.example/a/b.glb").read_bytes() == b"mirrored"
