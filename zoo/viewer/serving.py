"""The HTTP server of pages in the browser: access rules, headers, errors, and its life in a thread.

A server of pages is a `PageServer` with a handler that derives from `PageHandler` and answers paths. The handler's
pages come from the package; nothing is served by the path that a request names.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import threading
import traceback
import webbrowser
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from zoo.console import describe
from zoo.errors import OptionError, ZooError
from zoo.viewer.access import LOOPBACK, Access

if TYPE_CHECKING:
    from typing import Self

IDLE_S = 60.0  # after which an unused connection is closed
TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".png": "image/png", ".mp4": "video/mp4",
    ".json": "application/json",
}  # fmt: skip
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Errors of a request, answered with their sentence. Others are bugs.
_EXPECTED = (ZooError, LookupError, ValueError, TypeError, RuntimeError, OSError, ImportError, MemoryError)
_ANY = {"0.0.0.0": LOOPBACK, "::": "::1"}  # addresses to bind to that are not addresses to open
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


class PageServer(ThreadingHTTPServer):
    """Serves pages to any number of browsers.

    Attributes:
        title: what is shown, for `repr` of the running server.
    """

    daemon_threads = True
    allow_reuse_address = True
    title = ""

    def __init__(self, host: str, port: int, token: str | None, handler: type[PageHandler]) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be used.
        """
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)
        self.access = Access(self.server_address[1], token)

    def server_bind(self) -> None:
        """Bind, without the look-up of the host's name that `HTTPServer` does and that may ask a name server."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report bugs; a browser that closes a connection is none."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class PageHandler(BaseHTTPRequestHandler):
    """Checks a request, calls `answer`, and reports its errors."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "menagerie4d", ""
    timeout = IDLE_S

    def answer(self, path: str, query: dict[str, str]) -> None:
        """Send the answer to a request that may be answered.

        Args:
            path: of the URL, as sent.
            query: parameters of the URL, decoded.
        """
        raise NotImplementedError

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: their URLs may have the token in them."""

    def do_GET(self) -> None:
        try:
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query, max_num_fields=16))
        except ValueError:
            self.send_text(400, "This is not an address of the page.")
            return
        server = self.server
        assert isinstance(server, PageServer)
        access = server.access
        if url.path == "/" and access.is_token(query.get("token", "")):
            # A redirection, so that the token is not kept in the history. Not SameSite=Strict: after a link on another
            # site, browsers would leave the cookie out.
            cookie = f"{access.cookie}={access.token}; HttpOnly; SameSite=Lax; Path=/"
            self.send(303, b"", "text/plain", {"Location": "/", "Set-Cookie": cookie})
            return
        refusal = access.refusal(url.path, self.headers)
        if refusal is not None:
            self.send_text(403, f"Refused: {refusal}.")
            return
        try:
            self.answer(url.path, query)
        except ConnectionError:
            raise
        except _EXPECTED as error:
            unexpected = isinstance(error, KeyError | IndexError) and not isinstance(error, ZooError)
            if unexpected:
                traceback.print_exc()
            self.send_text(500 if unexpected else 400, describe(error))
        except Exception:
            traceback.print_exc()
            self.send_text(500, "The viewer failed; the terminal that it was started in has the details.")

    do_HEAD = do_GET

    def send_text(self, status: int, text: str) -> None:
        """Send a sentence."""
        self.send(status, text.encode("utf-8", "replace"), "text/plain")

    def send(self, status: int, data: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        """Send an answer with the headers that every answer has.

        Args:
            status: HTTP status.
            data: body; left out of the answer to a HEAD request.
            kind: media type.
            headers: further ones, or others in place of the usual ones.
        """
        self.send_response(status)
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        fixed = {
            "Content-Type": kind + charset,
            "Content-Length": str(len(data)),
            "Content-Security-Policy": _POLICY,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cache-Control": "no-store",
        }
        for name, value in (fixed | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_part(self, data: bytes, kind: str) -> None:
        """Send a file, or the range of its bytes that the request asks for, as videos are fetched."""
        span = byte_range(self.headers.get("Range", ""), len(data))
        if span is None:
            self.send(200, data, kind, {"Accept-Ranges": "bytes"})
        elif span[0] >= span[1]:
            self.send(416, b"", kind, {"Content-Range": f"bytes */{len(data)}"})
        else:
            content = {
                "Accept-Ranges": "bytes",
                "Content-Range": f"bytes {span[0]}-{span[1] - 1}/{len(data)}",
            }
            self.send(206, data[span[0] : span[1]], kind, content)


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """The bytes [begin, end) of a file that a Range header names; None for the whole file (also of several ranges)."""
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match[0] == "bytes=-" or any(len(number) > 18 for number in match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


class RunningServer:
    """A server that runs in a thread. It also works as a context manager, which closes it.

    Attributes:
        url: to open in a browser. If the server requires a token, it has it in it.
        port: that the server listens on.
    """

    def __init__(self, server: PageServer, host: str, token: str | None) -> None:
        self._server = server
        self.port = server.server_port
        name = _ANY.get(host, host)
        self.url = f"http://{f'[{name}]' if ':' in name else name}:{self.port}/" + (
            f"?token={token}" if token else ""
        )
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="viewer", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._server.title!r}, {self.url})"

    def wait(self) -> None:
        """Wait until the server is closed, or until Ctrl-C, which closes it."""
        try:
            while self._thread.is_alive():
                self._thread.join(0.5)
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """Stop the server. Repeated calls have no effect."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, *, open_browser: bool, block: bool | None) -> None:
        """Open the page.

        Args:
            open_browser: open it in the browser of this machine, if there is a display.
            block: wait for Ctrl-C; None waits unless Python is interactive, as in a notebook.
        """
        if open_browser:
            _open(self.url)
        if block or (block is None and not _is_interactive()):
            print(f"{self.url}  (Ctrl-C ends the viewer)", flush=True)
            self.wait()


def listen(make: Callable[[], PageServer], host: str, port: int) -> PageServer:
    """Start to listen.

    Args:
        make: makes the server, which listens.
        host, port: its address, for messages.

    Raises:
        OptionError: the port is in use, or the address is not one of this machine.
    """
    try:
        return make()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OptionError(
                f"port {port} of {host} is in use: choose another with --port, or --port 0 for any free one"
            ) from None
        if error.errno == errno.EACCES:
            raise OptionError(
                f"port {port} may not be used without privileges: choose one above 1023"
            ) from None
        reason = error.strerror or str(error)
        raise OptionError(f"--host {host}: cannot listen on this address: {reason}") from None


def _open(url: str) -> None:
    """Open a graphical browser. Without a display, `webbrowser` would start one in this terminal."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return
    webbrowser.open(url)


def _is_interactive() -> bool:
    return hasattr(sys, "ps1") or bool(sys.flags.interactive) or "ipykernel" in sys.modules
