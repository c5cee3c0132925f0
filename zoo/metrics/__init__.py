"""The metrics that models are evaluated with, each defined once. None of them knows a model family.

    images        mean squared error, PSNR, SSIM, LPIPS; PSNR of an autoencoder's reconstructions
    silhouettes   foreground masks, intersection over union
    flow          optical flow and its error against a reference video
    appearance    colour histograms over time
    views         colour consistency between views
    rigidity      points torn off their neighbours
    trajectories  rigidity energy and distance of 3D point tracks

What a family measures with them, and the protocol in its metrics.json, is in its `evaluation` module.
"""

from zoo.metrics.appearance import color_histogram_overlap
from zoo.metrics.flow import endpoint_error, flow_between_frames, optical_flow
from zoo.metrics.images import lpips, psnr, psnr_from_mse, reconstruction_psnr, squared_error, ssim
from zoo.metrics.rigidity import nearest_neighbours, torn_share
from zoo.metrics.silhouettes import foreground_mask, intersection_and_union, iou
from zoo.metrics.trajectories import arap_rotations, trajectory_error
from zoo.metrics.views import view_error

__all__ = [
    "arap_rotations",
    "color_histogram_overlap",
    "endpoint_error",
    "flow_between_frames",
    "foreground_mask",
    "intersection_and_union",
    "iou",
    "lpips",
    "nearest_neighbours",
    "optical_flow",
    "psnr",
    "psnr_from_mse",
    "reconstruction_psnr",
    "squared_error",
    "ssim",
    "torn_share",
    "trajectory_error",
    "view_error",
]
