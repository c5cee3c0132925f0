"""The `main` functions of all commands that have options of their own."""

from __future__ import annotations

import factory.curate
import factory.motions
import factory.publish
import factory.render
import factory.train
import zoo.__main__

MAINS = {
    "render": factory.render.main,
    "motions": factory.motions.main,
    "train": factory.train.main,
    "curate": factory.curate.main,
    "publish": factory.publish.main,
    "zoo": zoo.__main__.main,
}
