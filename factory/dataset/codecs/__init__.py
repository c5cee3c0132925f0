"""Encoding and decoding of a clip's columns: video, alpha, depth, normals, flow and tracks.

Names are imported on first use, because the decoders compile with numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from factory.dataset.codecs.modalities import (
        MODALITIES,
        decode_modality,
        decode_tracks,
        encode_modalities,
        modalities_of,
    )
    from factory.dataset.codecs.mp4 import Mp4Index, read_index
    from factory.dataset.codecs.video import (
        bleed_colour,
        decode_h264,
        decode_on,
        decoded_planes,
        pack_alpha,
        unpack_alpha,
    )

__all__ = [
    "MODALITIES",
    "Mp4Index",
    "bleed_colour",
    "decode_h264",
    "decode_modality",
    "decode_on",
    "decode_tracks",
    "decoded_planes",
    "encode_modalities",
    "modalities_of",
    "pack_alpha",
    "read_index",
    "unpack_alpha",
]
_MODULES = {
    "MODALITIES": "factory.dataset.codecs.modalities",
    "decode_modality": "factory.dataset.codecs.modalities",
    "decode_tracks": "factory.dataset.codecs.modalities",
    "encode_modalities": "factory.dataset.codecs.modalities",
    "modalities_of": "factory.dataset.codecs.modalities",
    "Mp4Index": "factory.dataset.codecs.mp4",
    "read_index": "factory.dataset.codecs.mp4",
    "bleed_colour": "factory.dataset.codecs.video",
    "decode_h264": "factory.dataset.codecs.video",
    "decode_on": "factory.dataset.codecs.video",
    "decoded_planes": "factory.dataset.codecs.video",
    "pack_alpha": "factory.dataset.codecs.video",
    "unpack_alpha": "factory.dataset.codecs.video",
}

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
