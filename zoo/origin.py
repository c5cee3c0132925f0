"""The repository that a model in memory was loaded from: publishing it unchanged gives the same files again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo import repository
from zoo.provenance import KEY

_PREVIEW, _README = "preview.mp4", "README.md"
_NOT_SHOWN = ("card", "object", KEY)  # arguments in config.json that no preview shows
_ATTRIBUTE = "_zoo_origin"  # of loaded models


@dataclass(frozen=True)
class Origin:
    """The repository that a model in memory was loaded from.

    Attributes:
        name: of the model, as its README.md states it.
        config, metrics: content of config.json and metrics.json.
        files: of the manifest.
        folder: contains the files.
    """

    name: str
    config: repository.Config
    metrics: dict[str, Any]
    files: dict[str, dict[str, Any]]
    folder: Path

    def restore(self, folder: Path, config: repository.Config) -> None:
        """Replace the preview by the one of this repository if the model still shows the same.

        A video encoder gives other bytes on another machine, and the revision depends on them.
        """
        if _PREVIEW not in self.files or not (folder / _PREVIEW).exists():
            return
        same_weights = all(
            repository.matches(folder / name, entry)
            for name, entry in self.files.items()
            if name.endswith(".safetensors")
        )
        if same_weights and _shown(config) == _shown(self.config):
            self._copy(_PREVIEW, folder)

    def readme(self, name: str, config: repository.Config, metrics: dict[str, Any]) -> str | None:
        """README.md of this repository if it describes the same model under the same name, else None."""
        known = (self.name, self.config.card, self.metrics)
        file = self.folder / _README
        if (name, _as_json(config.card), _as_json(metrics)) != known or _README not in self.files:
            return None
        return file.read_text("utf-8") if repository.matches(file, self.files[_README]) else None

    def _copy(self, name: str, folder: Path) -> None:
        if repository.matches(self.folder / name, self.files[name]):  # it may have been deleted since
            shutil.copyfile(self.folder / name, folder / name)


def remember(model: Any, origin: Origin) -> None:
    """Note on a loaded model where it is from."""
    try:
        setattr(model, _ATTRIBUTE, origin)
    except AttributeError:  # a class with __slots__
        pass


def origin_of(model: Any) -> Origin | None:
    """Where a model was loaded from; None if it was made here."""
    return getattr(model, _ATTRIBUTE, None)


def _shown(config: repository.Config) -> Any:
    """The arguments of a model that its preview may show."""
    return _as_json({name: value for name, value in config.init.items() if name not in _NOT_SHOWN})


def _as_json(content: Any) -> Any:
    """Content as it is after it was written and read: tuples are lists, keys are strings."""
    try:
        return json.loads(json.dumps(content))
    except (TypeError, ValueError):  # reported when it is written
        return content
