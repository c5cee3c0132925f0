"""Task payloads of motion videos, as the driver writes them and the workers read them.

The JSON is part of the ledger: tasks that an earlier run committed carry it, so its keys must not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory.assets.record import AssetRecord
from factory.motion_videos.plan import MotionPlan


@dataclass(frozen=True)
class DatasetClips:
    """Clips of one asset in an MV-Video dataset.

    Attributes:
        dataset: folder or URL.
        clips: clip ids; empty in a `MotionJob`, whose plan names the one clip it needs.
    """

    dataset: str
    clips: tuple[str, ...] = ()


Origin = AssetRecord | DatasetClips  # an asset to render, or clips that were rendered before


@dataclass(frozen=True)
class MotionsJob:
    """Plan every motion of one object.

    Attributes:
        object: name of the object's folder and model.
        origin: where its motions come from.
    """

    object: str
    origin: Origin

    def to_json(self) -> dict[str, Any]:
        return {"object": self.object, **_origin_to_json(self.origin)}

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> MotionsJob:
        return cls(payload["object"], _origin_from_json(payload))


@dataclass(frozen=True)
class MotionJob:
    """Render one motion of an object, or copy its frames from a dataset.

    Attributes:
        object, origin: as in `MotionsJob`.
        motion: plan of the motion.
        file: name of its files in the object's folder, without extension.
    """

    object: str
    origin: Origin
    motion: MotionPlan
    file: str

    def to_json(self) -> dict[str, Any]:
        return {
            "object": self.object,
            **_origin_to_json(self.origin),
            "motion": self.motion.to_json(),
            "file": self.file,
        }

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> MotionJob:
        motion = MotionPlan.from_json(payload["motion"])
        return cls(payload["object"], _origin_from_json(payload), motion, payload["file"])


def read_job(payload: Mapping[str, Any]) -> MotionsJob | MotionJob:
    """The job in a task's payload: a `MotionJob` if it contains a motion, otherwise a `MotionsJob`."""
    return MotionJob.from_json(payload) if "motion" in payload else MotionsJob.from_json(payload)


def _origin_to_json(origin: Origin) -> dict[str, Any]:
    if isinstance(origin, AssetRecord):
        return {"asset": origin.to_json()}
    clips = {"clips": list(origin.clips)} if origin.clips else {}
    return {"dataset": origin.dataset, **clips}


def _origin_from_json(payload: Mapping[str, Any]) -> Origin:
    if "asset" in payload:
        return AssetRecord.from_json(payload["asset"])
    return DatasetClips(payload["dataset"], tuple(payload.get("clips", ())))
