"""The catalogue of metrics: what each measures, in which range, which direction is better, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renderers.arguments import shown
from zoo.metrics import (
    actionbench,
    appearance,
    clip,
    flow,
    frechet,
    images,
    raft,
    rigidity,
    silhouettes,
    trajectories,
    vbench,
    views,
)
from zoo.metrics.backbones import BACKBONES, Folder, weight_hashes


@dataclass(frozen=True)
class Metric:
    """An entry of the catalogue.

    Attributes:
        function: computes it; its docstring has the shapes.
        kind: what is compared: "images", "silhouettes", "flow", "appearance", "views", "points" or "videos".
        formula: in words.
        range: of its values.
        better: "higher", "lower", or "neither" if a larger value can be better or worse.
        source: where it is defined.
        needs: backbones, keys of `BACKBONES`.
    """

    function: Callable[..., Any]
    kind: str
    formula: str
    range: str
    better: str
    source: str
    needs: tuple[str, ...] = ()

    def hashes(self, weights: Folder | None = None) -> dict[str, str]:
        """File → sha256 of the weights that a value is computed with, to be stored beside it.

        Raises:
            NotComputed: a file is missing or not the published one.
        """
        return weight_hashes(*self.needs, weights=weights)


_BEGIN, _END = "<!-- tables -->", "<!-- end of the tables -->"
_SORKINE = "Sorkine & Alexa 2007, eq. 3"
_DIMO2, _DIMO4 = "DIMO (2025), table 2", "DIMO (2025), table 4"
_VBENCH = "VBench (Huang et al. 2024)"
_ACTION = "ActionBench (Sabathier et al. 2026)"
_OURS = "this project"

METRICS: dict[str, Metric] = {
    "squared_error": Metric(
        images.squared_error, "images", "mean squared difference of all values", "0–1", "lower", "–"
    ),
    "psnr": Metric(
        images.psnr,
        "images",
        "−10 log₁₀ of the mean squared error, in dB; at most 100",
        "0–100",
        "higher",
        "–",
    ),
    "reconstruction_psnr": Metric(
        images.reconstruction_psnr,
        "images",
        "PSNR of images that an autoencoder encoded and decoded",
        "0–∞",
        "higher",
        "–",
    ),
    "ssim": Metric(
        images.ssim,
        "images",
        "structural similarity in Gaussian windows of 11 pixels, σ = 1.5",
        "−1–1",
        "higher",
        "Wang et al. 2004, eq. 13",
    ),
    "lpips": Metric(
        images.lpips,
        "images",
        "weighted squared distance of normalised VGG-16 features",
        "0–∞",
        "lower",
        "Zhang et al. 2018, eq. 1",
        ("vgg16",),
    ),
    "clip_similarity": Metric(
        clip.clip_similarity,
        "images",
        "mean cosine of CLIP embeddings of frames and true frames",
        "−1–1",
        "higher",
        "Consistent4D's protocol; DIMO (2025), table 3",
        ("clip-b32",),
    ),
    "clip_reference_similarity": Metric(
        clip.clip_reference_similarity,
        "images",
        "CLIP-I: mean cosine of CLIP embeddings of frames and the input image",
        "−1–1",
        "higher",
        _DIMO2,
        ("clip-b32",),
    ),
    "iou": Metric(
        silhouettes.iou,
        "silhouettes",
        "intersection over union of the pixels that are more than half covered",
        "0–1",
        "higher",
        "Jaccard 1912",
    ),
    "endpoint_error": Metric(
        flow.endpoint_error,
        "flow",
        "mean distance of the optical flow (Lucas-Kanade) from that of the true video, in pixels",
        "0–∞",
        "lower",
        "Baker et al. 2011; Bouguet 2001",
    ),
    "flow_amount": Metric(
        flow.flow_amount,
        "flow",
        "mean Lucas-Kanade flow of the fastest 5 % of pixels over the shorter side",
        "0–∞",
        "neither",
        _OURS,
    ),
    "flow_smoothness": Metric(
        flow.flow_smoothness,
        "flow",
        "1 − mean difference of odd frames from those between their neighbours along half "
        "the Lucas-Kanade flow",
        "0–1",
        "higher",
        _OURS,
    ),
    "dynamic_degree": Metric(
        raft.dynamic_degree,
        "flow",
        "share of videos of which at least a quarter of the frame pairs at 8 fps move: RAFT "
        "flow of the fastest 5 % above 6 px at 256 px",
        "0–1",
        "neither",
        f"{_VBENCH}, §3.1",
        ("raft",),
    ),
    "motion_amplitude": Metric(
        raft.motion_amplitude,
        "flow",
        "mean of the largest 20 % of RAFT's flow on the object, in pixels",
        "0–∞",
        "neither",
        _DIMO4,
        ("raft",),
    ),
    "color_histogram_overlap": Metric(
        appearance.color_histogram_overlap,
        "appearance",
        "intersection of the object's colour histogram with the first frame's",
        "0–1",
        "higher",
        "Swain & Ballard 1991",
    ),
    "view_error": Metric(
        views.view_error,
        "views",
        "mean colour difference of one point of the true surface in two views",
        "0–1",
        "lower",
        _OURS,
    ),
    "trajectory_error": Metric(
        trajectories.trajectory_error,
        "points",
        "mean distance of points from their true positions, in their unit",
        "0–∞",
        "lower",
        "–",
    ),
    "displacement_error": Metric(
        trajectories.displacement_error,
        "points",
        "mean distance of points from their true positions over the mean true "
        "distance from the first frame; 1 for no motion",
        "0–∞",
        "lower",
        _OURS,
    ),
    "chamfer_3d": Metric(
        actionbench.chamfer_3d,
        "points",
        "CD-3D: Chamfer distance, both directions added, mean over frames, each aligned",
        "0–∞",
        "lower",
        _ACTION,
    ),
    "chamfer_4d": Metric(
        actionbench.chamfer_4d,
        "points",
        "CD-4D: as CD-3D, all frames aligned as the first",
        "0–∞",
        "lower",
        _ACTION,
    ),
    "motion_chamfer": Metric(
        actionbench.motion_chamfer,
        "points",
        "CD-M: mean distance over time of the points nearest to each other in the "
        "first frame, both directions added, aligned as the first frame",
        "0–∞",
        "lower",
        _ACTION,
    ),
    "torn_share": Metric(
        rigidity.torn_share,
        "points",
        "share of points whose median distance from their 6 first neighbours exceeds 1.5 times the first",
        "0–1",
        "lower",
        _OURS,
    ),
    "arap_rotations": Metric(
        trajectories.arap_rotations,
        "points",
        "as-rigid-as-possible energy against the first frame",
        "0–∞",
        "lower",
        _SORKINE,
    ),
    "fvd": Metric(
        frechet.fvd,
        "videos",
        "Fréchet distance of Gaussians fitted to I3D features of generated and true videos",
        "0–∞",
        "lower",
        "Unterthiner et al. 2018; StyleGAN-V's weights",
        ("i3d",),
    ),
    "clip_frame_consistency": Metric(
        clip.clip_frame_consistency,
        "videos",
        "CLIP-F: mean cosine of CLIP embeddings of successive frames",
        "−1–1",
        "higher",
        _DIMO2,
        ("clip-b32",),
    ),
    "i2v_subject": Metric(
        vbench.i2v_subject,
        "videos",
        "½ largest cosine of a frame's DINO feature to the input image's + ½ mean cosine of "
        "successive frames",
        "0–1",
        "higher",
        "VBench-I2V (Huang et al. 2024)",
        ("dino-b16",),
    ),
    "subject_consistency": Metric(
        vbench.subject_consistency,
        "videos",
        "mean cosine of a frame's DINO feature to the previous and the first frame's",
        "0–1",
        "higher",
        _VBENCH,
        ("dino-b16",),
    ),
    "background_consistency": Metric(
        vbench.background_consistency,
        "videos",
        "as subject_consistency, with CLIP embeddings; for videos with a scene",
        "0–1",
        "higher",
        _VBENCH,
        ("clip-b32",),
    ),
    "motion_smoothness": Metric(
        vbench.motion_smoothness,
        "videos",
        "1 − mean difference of odd frames from those that AMT-S interpolates; for non-commercial use",
        "0–1",
        "higher",
        f"{_VBENCH}; AMT (Li et al. 2023)",
        ("amt-s",),
    ),
    "aesthetic_quality": Metric(
        vbench.aesthetic_quality,
        "videos",
        "LAION's linear score of CLIP embeddings, a tenth of it",
        "0–1",
        "higher",
        _VBENCH,
        ("clip-l14", "aesthetic-l14"),
    ),
}


def metric(name: str) -> Metric:
    """The entry of a metric.

    Raises:
        ValueError: there is none of this name.
    """
    if not isinstance(name, str) or name not in METRICS:
        raise ValueError(f"metric: expected one of {', '.join(METRICS)}, got {shown(name)}")
    return METRICS[name]


def markdown_tables() -> str:
    """The tables of metrics and of weights in docs/metrics.md."""
    lines = ["| metric | kind | formula | range | better | needs | source |", "|" + "---|" * 7]
    for name, entry in METRICS.items():
        needs = ", ".join(f"`{each}`" for each in entry.needs) or "–"
        cells = (f"`{name}`", entry.kind, entry.formula, entry.range, entry.better, needs, entry.source)
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| weights | file in `weights=FOLDER` | sha256 | source | licence |", "|" + "---|" * 5]
    for name, file in BACKBONES.items():
        digest = file.sha256 if len(file.sha256) == 64 else f"{file.sha256}…"
        lines.append(f"| `{name}` | `{file.file}` | `{digest}` | <{file.url}> | {file.licence} |")
    return "\n".join(lines) + "\n"


def write_tables(page: Path) -> None:
    """Replace the tables in a page, which are between two comments."""
    text = page.read_text("utf-8")
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n\n{markdown_tables()}\n{_END}{after}", "utf-8")
