"""The memory of frames is used again, but never while an array in it exists."""

from __future__ import annotations

import numpy as np
import pytest

from renderers.meshes import buffers
from renderers.meshes.buffers import reused_empty

SHAPE = (2, 3, 8, 8, 4)


@pytest.fixture(autouse=True)
def no_spare():
    buffers._spare.clear()
    yield
    buffers._spare.clear()


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_of_deleted_frames_is_used_again():
    frames = reused_empty(SHAPE)
    before = address(frames)
    assert (
        frames.shape == SHAPE
        and frames.dtype == np.uint8
        and frames.flags.c_contiguous
        and frames.flags.writeable
    )
    del frames
    assert address(reused_empty(SHAPE)) == before
    smaller = reused_empty((2, 2, 8, 8, 4))  # more than half of it
    assert address(smaller) == before and smaller.shape == (2, 2, 8, 8, 4)


def test_memory_is_not_used_again_while_any_view_of_it_exists():
    frames = reused_empty(SHAPE)
    view = frames[1:, ::2].view("<u4")[..., 0]
    view[:] = 7
    del frames
    other = reused_empty(SHAPE)
    other[:] = 1
    assert not np.shares_memory(view, other) and (view == 7).all()


def test_at_most_one_block_is_kept_and_only_for_frames_of_about_its_size():
    arrays = [reused_empty(SHAPE) for _ in range(3)]
    del arrays
    assert len(buffers._spare) == 1
    reused_empty((1, 1, 4, 4, 4))  # less than half of it: another block, which is kept instead
    assert [len(block) for block in buffers._spare] == [64]
    assert reused_empty((0, 3, 8, 8, 4)).size == 0
