"""Which output folders are accepted."""

from __future__ import annotations

import os
import uuid

import pytest

from cluster import ForeignFolderError, Storage, StorageError, check_output

MARK = b"made by us"


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"


def check(root: str) -> None:
    check_output(root, ours=("models/*/refs",), pages={"README.md": MARK})


@pytest.mark.parametrize(
    "files",
    [
        [],
        [".DS_Store", "Thumbs.db"],
        ["_factory/done/ab/abcd.json"],
        ["_factory/runs/1.json", "notes.txt"],
        ["models/egg/refs/main", "notes.txt"],
    ],
)
def test_accepted(root, files):
    for name in files:
        Storage(root).write(name, b"x")
    check(root)


@pytest.mark.parametrize(
    "files",
    [
        ["README.md"],
        ["contact_sheet.png"],
        [".git/config"],
        ["deep/down/file"],
        ["models/egg.glb"],
    ],
)
def test_refused(root, files):
    for name in files:
        Storage(root).write(name, b"of somebody else")
    with pytest.raises(ForeignFolderError, match="did not write"):
        check(root)


def test_a_page_of_somebody_else_beside_a_ledger(root):
    storage = Storage(root)
    storage.write("_factory/done/ab/abcd.json", b"x")
    storage.write("README.md", b"mine")
    with pytest.raises(ForeignFolderError, match=r"README\.md was not written by this program"):
        check(root)
    storage.write("README.md", b"---\n" + MARK)
    check(root)


def test_a_name_in_the_message_obeys_no_terminal(tmp_path):
    (tmp_path / "a\x1b[2J\nb").touch()
    with pytest.raises(ForeignFolderError) as error:
        check(str(tmp_path))
    assert "\x1b" not in str(error.value) and "\n" not in str(error.value)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="is a file, expected a folder"):
        check(str(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_cannot_be_listed(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(StorageError, match="Permission denied"):
        check(str(tmp_path / "closed"))
