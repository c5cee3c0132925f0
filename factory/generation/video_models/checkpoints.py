"""Published image-to-video models: their adapters, licences, and the makers' figures for memory and time.

A name that is not in this table is loaded as well; its licence is read from its model card, and its cost is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from zoo.licences import UNKNOWN


@dataclass(frozen=True)
class Figure:
    """A published figure for the time of one video.

    Attributes:
        seconds: per video.
        card: the card it was measured on. card_gb: its memory.
        video: frames, size and steps.
        source: where it is published.
    """

    seconds: float
    card: str
    card_gb: int
    video: str
    source: str


@dataclass(frozen=True)
class Checkpoint:
    """A published model.

    Attributes:
        name: on the hub. adapter: name of its adapter.
        licence: SPDX identifier, or "LicenseRef-NAME".
        restrictions: what the licence forbids or demands, one sentence each.
        weights_gb: size of all weights in 16 bits, estimated from the numbers of parameters that the makers state.
        least_gb: GPU memory with all offloading that the makers or diffusers' documentation name; 0 if not published.
        figures: published times.
        steps, guidance: instead of the adapter's defaults, for distilled models.
    """

    name: str
    adapter: str
    licence: str
    weights_gb: float
    restrictions: tuple[str, ...] = ()
    least_gb: float = 0.0
    figures: tuple[Figure, ...] = ()
    steps: int | None = None
    guidance: float | None = None


_COGVIDEOX = "LicenseRef-CogVideoX"
_COGVIDEOX_TERMS = (
    "CogVideoX licence: commercial use requires a registration with the makers and has a limit of visits per month.",
)
_COG = "README of github.com/zai-org/CogVideo"
CHECKPOINTS: tuple[Checkpoint, ...] = (
    Checkpoint(
        "zai-org/CogVideoX-5b-I2V",
        "cogvideox",
        _COGVIDEOX,
        weights_gb=21.0,
        restrictions=_COGVIDEOX_TERMS,
        least_gb=5.0,
        figures=(
            Figure(180, "A100", 80, "49 frames of 720×480, 50 steps", _COG),
            Figure(90, "H100", 80, "49 frames of 720×480, 50 steps", _COG),
        ),
    ),
    Checkpoint(
        "zai-org/CogVideoX1.5-5B-I2V",
        "cogvideox-1.5",
        _COGVIDEOX,
        weights_gb=21.0,
        restrictions=_COGVIDEOX_TERMS,
        least_gb=10.0,
        figures=(
            Figure(1000, "A100", 80, "81 frames of 1360×768, 50 steps", _COG),
            Figure(550, "H100", 80, "81 frames of 1360×768, 50 steps", _COG),
        ),
    ),
    Checkpoint(
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", "wan-2.1", "Apache-2.0", weights_gb=46.0, least_gb=13.0
    ),
    Checkpoint("Wan-AI/Wan2.2-I2V-A14B-Diffusers", "wan-2.2", "Apache-2.0", weights_gb=69.0, least_gb=13.0),
    Checkpoint(
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers",
        "wan-2.2-5b",
        "Apache-2.0",
        weights_gb=24.0,
        figures=(
            Figure(
                540, "RTX 4090", 24, "121 frames of 1280×704", "model card: 5 s of 720P in under 9 minutes"
            ),
        ),
    ),
    Checkpoint(
        "Lightricks/LTX-Video",
        "ltx",
        "LicenseRef-LTX-Video-Open-Weights",
        weights_gb=14.0,
        restrictions=(
            "LTX-Video licences differ by version; commercial use depends on the version's licence file.",
        ),
        least_gb=10.0,
    ),
    Checkpoint(
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v",
        "hunyuan-1.5",
        "LicenseRef-Tencent-Hunyuan-Community",
        weights_gb=35.0,
        restrictions=(
            "Tencent Hunyuan community licence: it does not apply in the European Union, the United Kingdom and South "
            "Korea, where the model and its output may not be used.",
        ),
        least_gb=14.0,
    ),
    Checkpoint(
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v_step_distilled",
        "hunyuan-1.5",
        "LicenseRef-Tencent-Hunyuan-Community",
        weights_gb=35.0,
        restrictions=(
            "Tencent Hunyuan community licence: it does not apply in the European Union, the United Kingdom and South "
            "Korea, where the model and its output may not be used.",
        ),
        least_gb=14.0,
        steps=12,
        guidance=1.0,
        figures=(
            Figure(
                75,
                "RTX 4090",
                24,
                "480p, 8 or 12 steps",
                "README of github.com/Tencent-Hunyuan/HunyuanVideo-1.5",
            ),
        ),
    ),
    Checkpoint(
        "stabilityai/stable-video-diffusion-img2vid",
        "svd",
        "LicenseRef-Stability-AI-Community",
        weights_gb=4.5,
        restrictions=("Stability AI licence: commercial use has conditions, see stability.ai/license.",),
    ),
    Checkpoint(
        "stabilityai/stable-video-diffusion-img2vid-xt",
        "svd",
        "LicenseRef-Stability-AI-Community",
        weights_gb=4.5,
        restrictions=("Stability AI licence: commercial use has conditions, see stability.ai/license.",),
        least_gb=8.0,
    ),
)
_CARD_LICENCE = re.compile(r"^(license(?:_name)?):[ \t]*[\"']?([^\"'\n#]{1,80})", re.MULTILINE)
# Names of licences in model cards of the hub → SPDX.
_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "cc-by-4.0": "CC-BY-4.0", "cc0-1.0": "CC0-1.0"}


def find_checkpoint(name: str) -> Checkpoint | None:
    """The published model of this name on the hub."""
    return next((each for each in CHECKPOINTS if each.name.casefold() == name.casefold()), None)


def licence_of(name: str, folder: Path | None) -> tuple[str, tuple[str, ...]]:
    """Licence of a model and its restrictions.

    Args:
        name: on the hub.
        folder: the model's folder, whose README.md may state the licence.
    """
    if (known := find_checkpoint(name)) is not None:
        return known.licence, known.restrictions
    card = folder / "README.md" if folder is not None else None
    if card is not None and card.is_file():
        head = card.read_text("utf-8", "replace")[:20_000]
        front = head.split("---")[1] if head.startswith("---") and head.count("---") >= 2 else ""
        stated = {key: value.strip() for key, value in _CARD_LICENCE.findall(front)}
        licence = stated.get("license", "")
        if licence.lower() in _SPDX:
            return _SPDX[licence.lower()], ()
        if licence:
            own = stated.get("license_name", licence)
            return f"LicenseRef-{re.sub(r'[^A-Za-z0-9.-]+', '-', own)}", (
                f"Licence {own!r}: read it before videos or models made with this model are shared.",
            )
    return UNKNOWN, ("Licence unknown: read it before videos or models made with this model are shared.",)
