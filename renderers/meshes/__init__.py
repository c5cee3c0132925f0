"""Animated meshes to clips: one function for every back end."""

from renderers.meshes.clip import GREY, WHITE, RenderedClip, RenderError, RenderSettings, Shot, composite

__all__ = ["GREY", "WHITE", "RenderError", "RenderSettings", "RenderedClip", "Shot", "composite"]
