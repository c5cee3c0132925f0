"""Web pages that play results in three dimensions. A page is a single file that needs no network.

    arrays     numbers as 16-bit integers in a compressed block, and back
    page       the page: title, facts, script, data block, content security policy
    splats     3D Gaussians that key points deform by linear blend skinning
    meshes     glTF meshes that the nodes of a deformation graph carry
    materials  draw calls and shaders of a glTF asset

A page consists of `page.html`, `page.css`, `data.js` (decodes the block), one renderer (`splats.js`, or `mesh_scene.js`
with `skinned_mesh.js`), and `player.js` (camera, playback, controls), which knows no renderer. Another kind of scene is
another module beside `splats` and another renderer with the same interface, described at the top of `player.js`.
"""

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.export.html.page import read_page
    from zoo.export.html.splats import SkinnedSplats, write_splats

__all__ = ["SkinnedSplats", "read_page", "write_splats"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "SkinnedSplats": "zoo.export.html.splats",
            "read_page": "zoo.export.html.page",
            "write_splats": "zoo.export.html.splats",
        },
    )
