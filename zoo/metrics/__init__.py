"""The metrics that models are evaluated with, each defined once. None of them knows a model family.

    images        mean squared error, PSNR, SSIM, LPIPS; PSNR of an autoencoder's reconstructions
    clip          CLIP similarities to the truth, to the input image, and over time
    silhouettes   foreground masks, intersection over union
    flow          optical flow, its error against a reference video, amount and smoothness of motion
    raft          VBench's dynamic degree and DIMO's motion amplitude, from RAFT's flow
    appearance    colour histograms over time
    views         colour consistency between views
    rigidity      points torn off their neighbours
    trajectories  rigidity energy and distance of 3D point tracks
    actionbench   ActionBench's CD-3D, CD-4D and CD-M of animated surfaces
    frechet       Fréchet video distance
    vbench        VBench's consistency, smoothness and aesthetic scores; amt runs the network for smoothness
    backbones     published weights: files, sha256, sources
    catalogue     a table of all of them: formula, range, direction, needs, source

What a family measures with them, and the protocol in its metrics.json, is in its `evaluation` module.
"""

from zoo.metrics.actionbench import (
    Alignment,
    align,
    align_first,
    chamfer_3d,
    chamfer_4d,
    chamfer_distance,
    motion_chamfer,
    sample_surface,
)
from zoo.metrics.appearance import color_histogram_overlap
from zoo.metrics.backbones import BACKBONES, NotComputed, WeightFile, find_weights, weight_hashes
from zoo.metrics.catalogue import METRICS, Metric, metric
from zoo.metrics.clip import clip_frame_consistency, clip_reference_similarity, clip_similarity
from zoo.metrics.flow import endpoint_error, flow_amount, flow_between_frames, flow_smoothness, optical_flow
from zoo.metrics.frechet import frechet_distance, fvd
from zoo.metrics.images import lpips, psnr, psnr_from_mse, reconstruction_psnr, squared_error, ssim
from zoo.metrics.raft import dynamic_degree, motion_amplitude, raft_flow
from zoo.metrics.rigidity import nearest_neighbours, torn_share
from zoo.metrics.silhouettes import foreground_mask, intersection_and_union, iou
from zoo.metrics.trajectories import arap_rotations, displacement_error, trajectory_error
from zoo.metrics.vbench import (
    aesthetic_quality,
    background_consistency,
    i2v_subject,
    motion_smoothness,
    subject_consistency,
)
from zoo.metrics.views import view_error

__all__ = [
    "BACKBONES",
    "METRICS",
    "Alignment",
    "Metric",
    "NotComputed",
    "WeightFile",
    "aesthetic_quality",
    "align",
    "align_first",
    "arap_rotations",
    "background_consistency",
    "chamfer_3d",
    "chamfer_4d",
    "chamfer_distance",
    "clip_frame_consistency",
    "clip_reference_similarity",
    "clip_similarity",
    "color_histogram_overlap",
    "displacement_error",
    "dynamic_degree",
    "endpoint_error",
    "find_weights",
    "flow_amount",
    "flow_between_frames",
    "flow_smoothness",
    "foreground_mask",
    "frechet_distance",
    "fvd",
    "i2v_subject",
    "intersection_and_union",
    "iou",
    "lpips",
    "metric",
    "motion_amplitude",
    "motion_chamfer",
    "motion_smoothness",
    "nearest_neighbours",
    "optical_flow",
    "psnr",
    "psnr_from_mse",
    "raft_flow",
    "reconstruction_psnr",
    "sample_surface",
    "squared_error",
    "ssim",
    "subject_consistency",
    "torn_share",
    "trajectory_error",
    "view_error",
    "weight_hashes",
]
