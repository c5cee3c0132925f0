"""Open 3D models in a worker, in any format that can be animated."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from factory.assets.record import AssetRecord
from factory.sources import Source, open_source
from factory.sources.downloads import file_sha256
from factory.sources.folder import SUFFIXES as GLTF_SUFFIXES
from factory.sources.folder import FolderSource
from renderers.gltf.editing import GltfEditor

if TYPE_CHECKING:
    from zoo.animate3d import StillModel


def open_models(uri: str) -> Source:
    """Open a source; folders and files may have any format that `zoo.animate` accepts.

    Raises:
        SourceError: see `factory.sources.open_source`.
    """
    from zoo.animate3d.loading import MODEL_SUFFIXES

    source = open_source(uri)
    if isinstance(source, FolderSource):
        return FolderSource(source.path, tuple(dict.fromkeys((*GLTF_SUFFIXES, *MODEL_SUFFIXES))))
    return source


class ModelCache:
    """The 3D model that a worker opened last: consecutive tasks mostly have the same one."""

    def __init__(self) -> None:
        self._key: tuple[str, str] | None = None
        self._model: tuple[StillModel, str] | None = None

    def open(self, record: AssetRecord, credit: str = "") -> tuple[StillModel, str]:
        """Fetch and load a 3D model.

        Args:
            record: of the model.
            credit: stored as the file's copyright if the file names neither a copyright nor a licence.

        Returns:
            The model, and the hexadecimal SHA-256 of its main file.

        Raises:
            GltfError, ModelError: the file cannot be used.
            DownloadError, DeadLink, WrongChecksum: see `Source.fetch`.
        """
        key = (record.fingerprint, credit)
        if self._model is None or self._key != key:
            self._model = None  # frees the memory of the previous one first
            self._model = _load(record, credit)
            self._key = key
        return self._model


def _load(record: AssetRecord, credit: str) -> tuple[StillModel, str]:
    from zoo.animate3d.loading import load_model

    source = open_models(record.location)
    data = source.fetch(record)
    sha256 = file_sha256(data) if isinstance(data, Path) else hashlib.sha256(data).hexdigest()
    if isinstance(data, Path) and data.suffix.lower() in GLTF_SUFFIXES:
        # The files that a .gltf refers to may be anywhere in the source's folder.
        data = GltfEditor(data, name=record.uid, root=source.root(record)).to_glb()
    model = load_model(data, name=record.uid)
    if credit:
        editor = model.editor()
        owner = editor.json["asset"]
        extras = owner.get("extras")
        if "copyright" not in owner and not (isinstance(extras, dict) and "license" in extras):
            owner["copyright"] = credit
            model = replace(model, glb=editor.to_glb())
    return model, sha256
