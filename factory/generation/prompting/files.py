"""The files that a user may edit: the vocabulary, meta prompts, the request to chat models and the rubric.

A folder of the user's own replaces any of the packaged files by a file of the same name:

    vocabulary.json     motions by kind of body, and which categories have which kind
    meta_prompts.json   category → appearance, expression and initial state
    meta_request.txt    asks a chat model for the meta prompt of a category that is not in that file
    request.txt         asks a chat model for motions
    rubric.txt          rules for a sentence, part of the request
"""

from __future__ import annotations

import hashlib
import json
import os
import string
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.errors import OptionError

NAMES = ("vocabulary.json", "meta_prompts.json", "meta_request.txt", "request.txt", "rubric.txt")
PACKAGED = Path(__file__).with_name("files")
_LARGEST = 4 << 20  # bytes of one file


class MetaPrompt(BaseModel):
    """A structured description of the object before it moves (DIMO, section 3.1: the "meta" prompt)."""

    model_config = ConfigDict(extra="ignore", str_strip_whitespace=True)
    appearance: str = Field(min_length=1, max_length=600)
    expression: str = Field(default="", max_length=300)
    initial_state: str = Field(min_length=1, max_length=300)


class BodyKind(BaseModel):
    """Motions of one kind of body.

    Attributes:
        categories: names of objects that have this body.
        body: description of the body. state: of its pose before it moves.
        motions: sentences. gestures: short motions that may be added to them.
    """

    model_config = ConfigDict(extra="forbid")
    categories: list[str]
    body: str
    state: str
    motions: list[str] = Field(min_length=1)
    gestures: list[str] = []


class VocabularyFile(BaseModel):
    """The content of vocabulary.json."""

    model_config = ConfigDict(extra="ignore")
    kinds: dict[str, BodyKind]


class PromptFiles:
    """The packaged files, some of them replaced by those of a folder.

    Args:
        folder: a folder with files of the names above; None for the packaged ones.

    Raises:
        OptionError: the folder does not exist, or has none of these files.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and not any((self.folder / name).is_file() for name in NAMES):
            raise OptionError(
                f"prompt files: {self.folder} has none of {', '.join(NAMES)}; copy those of {PACKAGED} "
                f"there and edit them"
            )

    def path(self, name: str) -> Path:
        """The file of this name that is used."""
        own = self.folder / name if self.folder is not None else None
        return own if own is not None and own.is_file() else PACKAGED / name

    def text(self, name: str) -> str:
        path = self.path(name)
        if path.stat().st_size > _LARGEST:
            raise OptionError(f"prompt files: {path} is larger than {_LARGEST >> 20} MiB")
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise OptionError(f"prompt files: {path} is not UTF-8: {error}") from None

    def json(self, name: str) -> Any:
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            raise OptionError(f"prompt files: {self.path(name)} is not JSON: {error}") from None

    @cached_property
    def vocabulary(self) -> dict[str, BodyKind]:
        """Kinds of body by name."""
        try:
            return VocabularyFile.model_validate(self.json("vocabulary.json")).kinds
        except ValidationError as error:
            raise OptionError(f"prompt files: {self.path('vocabulary.json')}: {_first(error)}") from None

    def kind_of(self, category: str) -> str:
        """The kind of body of a category: by its last word that the vocabulary lists, else "any"."""
        words = category.casefold().split()
        for word in (category.casefold(), *reversed(words)):
            for name, kind in self.vocabulary.items():
                if word == name or word in (each.casefold() for each in kind.categories):
                    return name
        return "any" if "any" in self.vocabulary else next(iter(self.vocabulary))

    def meta_prompt(self, category: str) -> MetaPrompt | None:
        """The meta prompt that the file has for a category; None if it has none."""
        entries = self.json("meta_prompts.json")
        entry = entries.get(category.casefold()) if isinstance(entries, dict) else None
        if entry is None:
            return None
        try:
            return MetaPrompt.model_validate(entry)
        except ValidationError as error:
            raise OptionError(
                f"prompt files: {self.path('meta_prompts.json')}: {category}: {_first(error)}"
            ) from None

    def body_prompt(self, category: str) -> MetaPrompt:
        """A meta prompt from the category's kind of body."""
        kind = self.vocabulary[self.kind_of(category)]
        return MetaPrompt(appearance=kind.body, initial_state=kind.state)

    def fill(self, name: str, **values: object) -> str:
        """A text file with $placeholders replaced.

        Raises:
            OptionError: the file has a placeholder that has no value.
        """
        try:
            return string.Template(self.text(name)).substitute(
                {key: str(value) for key, value in values.items()}
            )
        except (KeyError, ValueError) as error:
            raise OptionError(
                f"prompt files: {self.path(name)}: unknown placeholder {error}; write $$ for a dollar sign, and use "
                f"{', '.join(f'${key}' for key in values)}"
            ) from None

    def digest(self) -> str:
        """SHA-256 over the names and contents of all files."""
        total = hashlib.sha256()
        for name in NAMES:
            total.update(f"{name}\0{self.text(name)}\0".encode())
        return total.hexdigest()


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
