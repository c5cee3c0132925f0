"""What a run report shows of motion videos: one motion of each object, and the reasons of those left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from factory.motion_videos.run import SubjectVideos
from zoo.export.html.report import video

MOST_OBJECTS, MOST_FRAMES, SIDE = 12, 24, 128


def rejected(subjects: Sequence[SubjectVideos]) -> Counter[str]:
    """Reason → number of animations of all objects that were left out."""
    return sum((subject.rejected for subject in subjects), Counter[str]())


def pictures(subjects: Sequence[SubjectVideos]) -> Iterator[str]:
    """The first motion of each object in one view, as small looping videos."""
    from zoo.dimo.data import MotionVideos, over

    for subject in [each for each in subjects if each.folder][:MOST_OBJECTS]:
        assert subject.folder is not None
        try:
            videos = MotionVideos.open(subject.folder)
            step = -(-videos.frames // MOST_FRAMES)
            side = min(SIDE, videos.resolution) // 2 * 2
            frames = videos.read([0], [0], range(0, videos.frames, step), side)[0, 0]
        except (OSError, ValueError):
            continue  # the run itself reports folders that cannot be read
        pixels = (255 * over(frames)[0]).round().byte().numpy()
        yield video(pixels, 8.0, f"{subject.name}: {videos.sentences[0]}")
