"""Conversion of rendered frames to the planes of a video, by kernels."""
