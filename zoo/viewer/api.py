"""`zoo.view` and the `Viewer` it returns."""

from __future__ import annotations

import errno
import os
import sys
import threading
import webbrowser
from typing import TYPE_CHECKING, Any

from renderers.arguments import flag, instance, integer
from zoo.errors import OptionError
from zoo.viewer.access import LOOPBACK, make_token
from zoo.viewer.opening import check_subjects, open_scene
from zoo.viewer.server import Server

if TYPE_CHECKING:
    from typing import Self

_ANY = {"0.0.0.0": LOOPBACK, "::": "::1"}  # addresses to bind to that are not addresses to open


class Viewer:
    """A running viewer, as returned by `view`. It also works as a context manager, which closes it.

    Attributes:
        url: to open in a browser. If the viewer requires a token, it has it in it.
        port: that the server listens on.
    """

    def __init__(self, server: Server, host: str, token: str | None) -> None:
        self._server = server
        self.port = server.server_port
        name = _ANY.get(host, host)
        self.url = f"http://{f'[{name}]' if ':' in name else name}:{self.port}/" + (
            f"?token={token}" if token else ""
        )
        self._thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="viewer", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        titles = ", ".join(scene.title for scene in self._server.scenes)
        return f"Viewer({titles!r}, {self.url})"

    def wait(self) -> None:
        """Wait until the viewer is closed, or until Ctrl-C, which closes it."""
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


def view(
    *things: Any,
    host: str = LOOPBACK,
    port: int = 0,
    token: str | None = None,
    open_browser: bool = True,
    block: bool | None = None,
    home: str | os.PathLike[str] | None = None,
) -> Viewer:
    """Show a model, a result or a file in the browser, or two of them side by side.

    Args:
        things: one or two of: the name of a DIMO model; the path of a .glb, .gltf, .ply or .spz file, of a folder of
            splat files (one per frame), of a video, or of a folder with one video per view; a `DIMOPipeline`,
            `Motion`, `Animation`, `Asset` or `MVVDMOutput`.
        host: address to listen on. Other machines can connect only if it is not 127.0.0.1, and then need the token.
        port: to listen on; 0 is any free one.
        token: to require; None requires a random one if `host` is not a loopback address, and none otherwise.
        open_browser: open the page.
        block: wait for Ctrl-C; None waits unless Python is interactive, as in a notebook.
        home: folder of the local registry, for names of models.

    Returns:
        The running viewer, or a closed one after Ctrl-C.

    Raises:
        TypeError, ValueError: an argument is of another type or out of range.
        OptionError: the port is in use, or the address is not one of this machine.
        UnknownModelError, FileNotFoundError, UnsupportedError: there is nothing to show.
    """
    check_subjects(things)
    instance(host, str, "view: host")
    port = integer(port, "view: port", 0, 65535)
    if token is not None:
        instance(token, str, "view: token")
    open_browser = flag(open_browser, "view: open_browser")
    block = None if block is None else flag(block, "view: block")
    token = make_token(host, token)
    scenes = [open_scene(thing, home=home) for thing in things]
    viewer = Viewer(_listen(scenes, host, port, token), host, token)
    if open_browser:
        _open(viewer.url)
    if block or (block is None and not _is_interactive()):
        print(f"{viewer.url}  (Ctrl-C ends the viewer)", flush=True)
        viewer.wait()
    return viewer


def _listen(scenes: list[Any], host: str, port: int, token: str | None) -> Server:
    try:
        return Server(scenes, host, port, token)
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
