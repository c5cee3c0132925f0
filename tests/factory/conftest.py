from __future__ import annotations

import numpy as np
import pytest

from renderers.video import encode_h264


@pytest.fixture(scope="session")
def torchcodec():
    """torchcodec's decoders, which `datasets` decodes with; skips where they do not load."""
    try:
        import torchcodec.decoders as decoders

        decoders.VideoDecoder(encode_h264(np.zeros((1, 16, 16, 3), np.uint8), 24))
    except (ImportError, RuntimeError):
        pytest.skip("torchcodec does not load here: it needs FFmpeg's shared libraries")
    return decoders
