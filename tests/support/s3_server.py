"""An S3 server on loopback, behind a proxy that counts the requests and injects the faults of a real one.

The server is moto's, which is written in Python and accepts any signature, or s3rver, an independent one in JavaScript
that stores files and checks the signatures.

`python s3_server.py ADDRESS PORT` runs it with the proxy at an address of this host, for other hosts. It prints
"ready", reads faults from standard input, one JSON object per line, and answers each with a line of JSON: the counts.
"""

from __future__ import annotations

import http.client
import json
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit

ERROR = '<?xml version="1.0"?><Error><Code>{}</Code><Message>{}</Message></Error>'
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass
class Faults:
    """What the proxy does to requests; may be changed while it runs.

    Attributes:
        rate: requests per second; those beyond are answered with 503 SlowDown. 0 for no limit.
        errors: fraction of requests that are answered with 500, half of them after the server has processed them.
        cuts: fraction of responses that end in the middle, with the connection.
        slow: fraction of responses that are delayed by `slow_s` seconds.
        expired: access keys that are refused with ExpiredToken.
        unknown: headers whose requests are refused with NotImplemented.
    """

    rate: float = 0.0
    errors: float = 0.0
    cuts: float = 0.0
    slow: float = 0.0
    slow_s: float = 2.0
    expired: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


def client_env(url: str, key: str = "key", secret: str = "secret") -> dict[str, str]:
    """Environment variables of a client of the server at a URL."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


class S3Server:
    """The server, as a context manager.

    Args:
        bucket: created at the start; "" for none.
        address, port: of the proxy; port 0 for a free one.
        kind: "moto" or "s3rver". The latter has to be installed (`s3rver_program`).

    Attributes:
        key, secret: credentials that the server accepts.
        faults: injected from now on.
        requests: operation → number of requests that clients made. answers: status code → number.
        written: path → number of times that the server has written it, also where the client was not told.
    """

    def __init__(
        self, bucket: str = "bucket", address: str = "127.0.0.1", port: int = 0, kind: str = "moto"
    ) -> None:
        self.bucket, self._address, self._port, self.kind = bucket, address, port, kind
        self.key, self.secret = ("key", "secret") if kind == "moto" else ("S3RVER", "S3RVER")
        self.faults = Faults()
        self.requests: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.written: Counter[str] = Counter()
        self._random = random.Random(1)
        self._lock = threading.Lock()
        self._budget, self._budget_at = 0.0, time.monotonic()

    def __enter__(self) -> S3Server:
        self._server = _Moto() if self.kind == "moto" else _S3rver(self.bucket)
        self.upstream = self._server.address
        handler = type("Handler", (_Handler,), {"s3": self})
        self._proxy = ThreadingHTTPServer((self._address, self._port), handler)
        self._proxy.daemon_threads = True
        threading.Thread(target=self._proxy.serve_forever, daemon=True).start()
        if self.bucket and self.kind == "moto":
            self._direct("PUT", f"/{self.bucket}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._proxy.shutdown()
        self._proxy.server_close()
        self._server.close()

    @property
    def url(self) -> str:
        return f"http://{self._address}:{self._proxy.server_address[1]}"

    def env(self, key: str = "") -> dict[str, str]:
        """Environment variables of a client. `key`: its access key, if it is another one (moto only)."""
        return client_env(self.url, key or self.key, self.secret)

    def _direct(self, method: str, path: str, body: bytes = b"") -> bytes:
        """A request without faults."""
        connection = http.client.HTTPConnection(*self.upstream, timeout=60)
        connection.request(method, path, body)
        answer = connection.getresponse().read()
        connection.close()
        return answer

    def uploads(self) -> int:
        """Number of multipart uploads that are neither completed nor aborted."""
        return self._direct("GET", f"/{self.bucket}?uploads").count(b"<Upload>")

    def refusal(self, headers: Message) -> tuple[int, str, str] | None:
        """Status, code and message of a fault that takes the place of the answer."""
        authorization = headers.get("Authorization", "")
        with self._lock:
            faults, now = self.faults, time.monotonic()
            if any(name in headers for name in faults.unknown):
                return (
                    501,
                    "NotImplemented",
                    "A header you provided implies functionality that is not implemented.",
                )
            if any(f"Credential={key}/" in authorization for key in faults.expired):
                return 400, "ExpiredToken", "The provided token has expired."
            if faults.rate:
                self._budget = min(self._budget + (now - self._budget_at) * faults.rate, faults.rate)
                self._budget_at = now
                if self._budget < 1:
                    return 503, "SlowDown", "Please reduce your request rate."
                self._budget -= 1
            if self._random.random() < faults.errors / 2:
                return 500, "InternalError", "We encountered an internal error. Please try again."
        return None

    def strikes(self, fraction: float) -> bool:
        """Draw whether a fault happens."""
        with self._lock:
            return self._random.random() < fraction


class _Moto:
    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it logs every request
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.address: tuple[str, int] = self._server.get_host_and_port()

    def close(self) -> None:
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        connection.request("POST", "/moto-api/reset")
        connection.getresponse().read()
        connection.close()
        self._server.stop()


def s3rver_program() -> Path | None:
    """The script of the npm package s3rver in a `node_modules` above this file, or in MENAGERIE_S3RVER."""
    package = os.environ.get("MENAGERIE_S3RVER")
    folders = [Path(package)] if package else [p / "node_modules/s3rver" for p in Path(__file__).parents]
    programs = [folder / "bin" / "s3rver.js" for folder in folders]
    return next((program for program in programs if program.exists()), None)


class _S3rver:
    def __init__(self, bucket: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        program = s3rver_program()
        assert program is not None
        argv = ["node", str(program), "-d", self._folder.name, "-a", "127.0.0.1", "-p", "0", "--silent"]
        argv += ["--no-vhost-buckets", *(["--configure-bucket", bucket] if bucket else [])]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        match = None
        while match is None:
            line = self._process.stdout.readline()
            assert line, "s3rver did not start"
            match = re.search(r"(127\.0\.0\.1):(\d+)", line)
        self.address = (match[1], int(match[2]))

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()


def operation(method: str, path: str) -> str:
    """The S3 operation of a request, as price lists name them."""
    parts = urlsplit(path)
    query, has_key = parse_qs(parts.query, keep_blank_values=True), parts.path.strip("/").count("/") > 0
    if "uploads" in query:
        return "list uploads" if method == "GET" else "create upload"
    if "uploadId" in query:
        return {"PUT": "put part", "POST": "complete upload", "DELETE": "abort upload"}[method]
    if "delete" in query:
        return "delete many"
    if method == "GET":
        return "get" if has_key else "list"
    return {"PUT": "put", "HEAD": "head", "DELETE": "delete"}[method]


class _Handler(BaseHTTPRequestHandler):
    s3: S3Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.s3.requests[operation(self.command, self.path)] += 1
        if refused := self.s3.refusal(self.headers):
            status, code, message = refused
            self._answer(status, [("Content-Type", "application/xml")], ERROR.format(code, message).encode())
            return
        connection = http.client.HTTPConnection(*self.s3.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if self.command == "PUT" and answer.status == 200:
            self.s3.written[urlsplit(self.path).path] += 1
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in HOP_BY_HOP]
        if self.s3.strikes(self.s3.faults.slow):
            time.sleep(self.s3.faults.slow_s)
        if self.s3.strikes(
            self.s3.faults.errors / 2
        ):  # the request had its effect, and the client does not know
            self._answer(
                500, [("Content-Type", "application/xml")], ERROR.format("InternalError", "late").encode()
            )
            return
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        cut = self.s3.strikes(self.s3.faults.cuts)
        self._answer(answer.status, kept, content, length, cut=cut)

    def _answer(
        self,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes,
        length: str | None = None,
        cut: bool = False,
    ) -> None:
        self.s3.answers[status] += 1
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        with suppress(OSError):  # the client has gone
            if cut:
                self.send_header("Connection", "close")
                self.close_connection = True
                if not content:  # there is no middle: the connection ends without an answer
                    self._headers_buffer: list[bytes] = []
                    return
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // 2] if cut else content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle


def main() -> None:
    """Serve other hosts until standard input ends."""
    with S3Server(address=sys.argv[1], port=int(sys.argv[2])) as server:
        print("ready", flush=True)
        for line in sys.stdin:
            server.faults = Faults(**json.loads(line))
            counted = {"requests": server.requests, "answers": server.answers, "written": server.written}
            print(json.dumps(counted), flush=True)


if __name__ == "__main__":
    main()
