"""`zoo.view` and the `Viewer` it returns."""

from __future__ import annotations

import os
from typing import Any

from renderers.arguments import flag, instance, integer
from zoo.viewer.access import LOOPBACK, make_token
from zoo.viewer.opening import check_subjects, open_scene
from zoo.viewer.server import Server
from zoo.viewer.serving import RunningServer, listen


class Viewer(RunningServer):
    """A running viewer, as returned by `view`. It also works as a context manager, which closes it.

    Attributes:
        url: to open in a browser. If the viewer requires a token, it has it in it.
        port: that the server listens on.
    """


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
    viewer = Viewer(listen(lambda: Server(scenes, host, port, token), host, port), host, token)
    viewer.show(open_browser=open_browser, block=block)
    return viewer
