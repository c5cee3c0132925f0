"""Task payloads of `factory.render`, as the driver writes them and the workers read them.

The JSON is part of the ledger: tasks that an earlier run committed carry it, so its keys must not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from factory.assets.licences import Policy
from factory.assets.record import AssetRecord
from factory.clips.plan import ClipPlan

ANY_LICENCE = Policy()


@dataclass(frozen=True)
class AssetJob:
    """Open an asset and plan its clips.

    Attributes:
        asset: record of the asset, as its source lists it.
        terms: licence policy that the asset must satisfy; ANY_LICENCE is left out of the JSON.
    """

    asset: AssetRecord
    terms: Policy = ANY_LICENCE

    def to_json(self) -> dict[str, Any]:
        payload: dict[str, Any] = {"asset": self.asset.to_json()}
        if self.terms != ANY_LICENCE:
            payload["terms"] = self.terms.to_json()
        return payload

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> AssetJob:
        return cls(AssetRecord.from_json(payload["asset"]), Policy.from_json(payload.get("terms", {})))


@dataclass(frozen=True)
class ClipJob:
    """Render one planned clip of an asset.

    Attributes:
        asset: record of the asset, completed with the licence and title found in its file.
        clip: animation, timestamps, framing and cameras of the clip.
    """

    asset: AssetRecord
    clip: ClipPlan

    def to_json(self) -> dict[str, Any]:
        return {"asset": self.asset.to_json(), "clip": self.clip.to_json()}

    @classmethod
    def from_json(cls, payload: Mapping[str, Any]) -> ClipJob:
        return cls(AssetRecord.from_json(payload["asset"]), ClipPlan.from_json(payload["clip"]))


def read_job(payload: Mapping[str, Any]) -> AssetJob | ClipJob:
    """The job in a task's payload: a `ClipJob` if it contains a clip, otherwise an `AssetJob`."""
    return ClipJob.from_json(payload) if "clip" in payload else AssetJob.from_json(payload)
