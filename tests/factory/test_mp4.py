"""The mp4 index parser compared with FFmpeg's demuxer."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest

from factory.dataset.codecs.mp4 import read_index
from renderers.video import encode_h264


def noise(frames: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (frames, size, size, 3), np.uint8)


def by_x264s_defaults(frames: np.ndarray) -> bytes:
    """Several B pictures in a row, one key frame."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    return target.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        encode_h264(noise(1), 24),
        encode_h264(noise(20), 24),
        encode_h264(noise(20, 34), 24, gop=250),
        encode_h264(noise(30, 256), 24, crf=1),  # more than one chunk
        by_x264s_defaults(noise(20)),
    ],
    ids=["one", "ours", "one group", "chunks", "x264"],
)
def test_the_index_is_what_ffmpeg_finds(data):
    index = read_index(data)
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert (index.width, index.height) == (stream.width, stream.height)
        assert index.config == stream.codec_context.extradata
    assert [data[start:end] for start, end in index.spans] == [bytes(packet) for packet in packets]
    assert index.frames == np.argsort(np.argsort([packet.pts for packet in packets])).tolist()
    assert index.keys == [place for place, packet in enumerate(packets) if packet.is_keyframe]


def test_the_cases_differ():
    """Controls: pictures out of order, and a file with its pictures in several chunks."""
    assert read_index(encode_h264(noise(20), 24)).frames != list(range(20))
    spans = read_index(encode_h264(noise(30, 256), 24, crf=1)).spans
    assert sum(end - start for start, end in spans) > 2**20


def test_damage_is_refused():
    data = encode_h264(noise(9), 24)
    for damaged in (b"", data[:100], data[:-9], b"\0\0\0\0" + data, b"not a video" * 99):
        with pytest.raises(ValueError, match=f"^{len(damaged)} bytes are"):
            read_index(damaged)
    index = data.index(b"stsz") + 12
    with pytest.raises(ValueError, match="an mp4"):
        read_index(data[: index + 3] + b"\x08" + data[index + 4 :])  # eight sizes for nine pictures
    with pytest.raises(ValueError, match="an mp4"):
        read_index(data[:index] + b"\x7f" + data[index + 1 :])  # a huge one
