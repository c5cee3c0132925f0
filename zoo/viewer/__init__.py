"""A viewer in the browser: `zoo.view(model)` and `python -m zoo view NAME`.

    opening   what is shown: a model, a file, a folder, or a result → a scene
    motions   trained motions, samples, sentences, blends and points of the map, as the page requests them
    latent_map  a plane through the latent space
    skinned, frames, meshes, videos  scenes: DIMO, folders of .ply, glTF and `Animation`, videos of MV-VDM
    wire      arrays in a response
    access    which requests are answered: address, token, origin
    serving   the HTTP server of any page: headers, errors, thread
    server    that of scenes
    api       `view`, `Viewer`
    page/     HTML, CSS and JavaScript; splats are drawn by `zoo/export/html/splats.js`

A scene sends its Gaussians or meshes once, and every motion as trajectories of key points or vertices, which the
browser plays. The server keeps no state of a page: a request names everything that its answer depends on.
"""

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.viewer.api import Viewer, view

__all__ = ["Viewer", "view"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, {"Viewer": "zoo.viewer.api", "view": "zoo.viewer.api"})
