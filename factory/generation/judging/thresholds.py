"""`Thresholds`: which scores of a video are accepted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from renderers.arguments import shown
from renderers.fields import Range, check_fields, field_types
from renderers.files import atomic_path, file_path

Limit: TypeAlias = Annotated[float, Range(low=0)]


@dataclass(frozen=True)
class Thresholds:
    """Limits of the scores: `min_NAME` and `max_NAME` of the measure NAME. None switches a limit off.

    The defaults separate known motions of the bundled creatures from the same motions with known faults
    (`python -m benchmarks.judges`). The formula, range and unit of a measure are in the docstring of its function.

    Attributes:
        min_motion: displacement of the fastest part, lengths of the object. Below it the video is frozen.
        max_jump: displacement for one step or one frame, lengths of the object.
        max_cut: change between two frames beside those before and after, a ratio.
        max_mirrored: how much better a frame continues its mirrored predecessor, a ratio.
        max_background_motion: path of a textured background, shares of the frame's side.
        max_zoom: change of scale before a plain background, |ln|.
        max_roll: rotation in the image before a plain background, radians times a share.
        max_pan: displacement of all of the object before a plain background, shares of the frame's side.
        max_final_roll: rotation of the last frame against the first before a plain background, radians times a share.
        max_final_pan: displacement of the last frame against the first before a plain background, shares of the
            frame's side.
        max_flicker: alternating change of brightness or colour, share of the brightness.
        max_color_change: lasting distance of the colours from the first frame's, CIELAB units.
        max_color_step: distance of the colours between two frames in succession, CIELAB units.
        max_shape_change: lasting change of the silhouette's proportions, |ln|.
        max_first_frame: distance of the first frame from the picture, share of full scale.
        max_border_contact: length of the object at the frame's border, lengths of the object.
        min_least_visible: smallest area of the object, share of the area in the first frame.
        min_mask_consistency: IoU of masks along the flow.
        max_overlay: share of the frame under static text or logos.
        max_bands: width of a band along a side of the frame, share of the side.
        max_sharpness_loss: loss of sharpness against the first frame, share.
        max_view_height: disagreement of the views on the object's height, lengths of the object.
        max_view_color: disagreement of the views on the object's colours, CIELAB units.
        max_view_silhouettes: disagreement of the silhouettes with the cameras, lengths of the object.
        min_answers: smallest probability of a right answer of a vision-language model, 0..1.
    """

    min_motion: Limit | None = 0.028
    max_jump: Limit | None = 0.04
    max_cut: Limit | None = 1.65
    max_mirrored: Limit | None = 1.1
    max_background_motion: Limit | None = 0.05
    max_zoom: Limit | None = 0.12
    max_roll: Limit | None = 0.22
    max_pan: Limit | None = 0.22
    max_final_roll: Limit | None = 0.18
    max_final_pan: Limit | None = 0.15
    max_flicker: Limit | None = 0.02
    max_color_change: Limit | None = 12.0
    max_color_step: Limit | None = 14.5
    max_shape_change: Limit | None = 0.65
    max_first_frame: Limit | None = 0.1
    max_border_contact: Limit | None = 0.3
    min_least_visible: Limit | None = 0.35
    min_mask_consistency: Limit | None = 0.4
    max_overlay: Limit | None = 0.002
    max_bands: Limit | None = 0.01
    max_sharpness_loss: Limit | None = 0.25
    max_view_height: Limit | None = 0.3
    max_view_color: Limit | None = 11.0
    max_view_silhouettes: Limit | None = 0.1
    min_answers: Limit | None = 0.5

    def __post_init__(self) -> None:
        check_fields(self)

    def to_json(self) -> dict[str, float | None]:
        """Return the fields as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Thresholds:
        """Create thresholds from an object with some of the fields; the others have their defaults.

        Raises:
            TypeError, ValueError: not an object, a field that does not exist, or a value out of its range.
        """
        if not isinstance(data, Mapping):
            raise TypeError(f"Thresholds: expected an object with thresholds by name, got {shown(data)}")
        known = field_types(cls)
        if unknown := sorted(map(str, data.keys() - known.keys())):
            raise ValueError(f"Thresholds: no threshold {unknown[0]!r}; expected some of {', '.join(known)}")
        return cls(**data)

    def save(self, path: str | Path) -> None:
        """Write a JSON file that can be edited."""
        with atomic_path(file_path(path, "Thresholds.save: path")) as part:
            part.write_text(json.dumps(self.to_json(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Thresholds:
        """Read a JSON file with some of the thresholds; the others have their defaults.

        Raises:
            FileNotFoundError: no such file.
            TypeError, ValueError: the file is no JSON, or `from_json` refuses it.
        """
        file = file_path(path, "Thresholds.load: path")
        if not file.is_file():
            raise FileNotFoundError(
                f"{file}: no such file; expected JSON with thresholds, as `save` writes it"
            )
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file}: expected JSON with thresholds, got something else ({error})") from None
        try:
            return cls.from_json(data)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{file}: {error}") from None
