"""`factory.browse` and the `DatasetBrowser` it returns."""

from __future__ import annotations

import os

from cluster.arguments import instance, location
from factory.browser.catalogue import Catalogue
from factory.browser.server import BrowserServer
from factory.dataset.reader import ClipDataset, load_clips
from renderers.arguments import flag, integer
from zoo.viewer.access import LOOPBACK, make_token
from zoo.viewer.serving import RunningServer, listen


class DatasetBrowser(RunningServer):
    """A running browser of a dataset, as returned by `browse`. It also works as a context manager, which closes it.

    Attributes:
        url: to open in a browser. If the server requires a token, it has it in it.
        port: that the server listens on.
    """


def browse(
    dataset: str | os.PathLike[str] | ClipDataset,
    *,
    host: str = LOOPBACK,
    port: int = 0,
    token: str | None = None,
    open_browser: bool = True,
    block: bool | None = None,
) -> DatasetBrowser:
    """Show the clips of a dataset in the browser: thumbnails, filters, and a page per clip.

    Args:
        dataset: a folder, a URL that fsspec opens, "hub:org/name", "local:PATH", or an open dataset.
        host: address to listen on. Other machines can connect only if it is not 127.0.0.1, and then need the token.
        port: to listen on; 0 is any free one.
        token: to require; None requires a random one if `host` is not a loopback address, and none otherwise.
        open_browser: open the page.
        block: wait for Ctrl-C; None waits unless Python is interactive, as in a notebook.

    Returns:
        The running server, or a closed one after Ctrl-C.

    Raises:
        TypeError, ValueError: an argument is of another type or out of range.
        OptionError: the port is in use, or the address is not one of this machine.
        FileNotFoundError, DatasetError, StorageError: as of `load_clips`.
    """
    instance(host, str, "browse: host")
    port = integer(port, "browse: port", 0, 65535)
    if token is not None:
        instance(token, str, "browse: token")
    open_browser = flag(open_browser, "browse: open_browser")
    block = None if block is None else flag(block, "browse: block")
    token = make_token(host, token)
    catalogue = open_catalogue(dataset)
    server = listen(lambda: BrowserServer(catalogue, host, port, token), host, port)
    running = DatasetBrowser(server, host, token)
    running.show(open_browser=open_browser, block=block)
    return running


def open_catalogue(dataset: str | os.PathLike[str] | ClipDataset) -> Catalogue:
    """Open a dataset for pages; see `browse`."""
    if isinstance(dataset, ClipDataset):
        return Catalogue(dataset, dataset.url)
    location(dataset, "browse: dataset")
    clips = load_clips(dataset)
    return Catalogue(clips, os.fspath(dataset))
