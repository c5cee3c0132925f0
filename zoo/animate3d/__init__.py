"""Animate a still 3D model so that it moves as a sentence says or as videos show.

    animation = zoo.animate("dragon.glb", "roars and shakes its head")
    animation.save("dragon-roars.glb")

    api         `animate`: the whole way
    loading     files of 3D models; viewpoints: cameras around them; videos, matte: videos of them
    alignment, agreement  whether videos show the model, and agree with each other
    surface, graph, solver, tracking, fitting  `fit`: the motion of a deformation graph from videos
    hexplane, still_splats, rigidity, paper, refine  Animate3D's own method, and 4D-SDS
    splats      the same for Gaussian splats instead of a mesh
    animation   `Animation`: cut, render, save (gltf_*, saving)

Names are imported on first use.
"""

from typing import TYPE_CHECKING

from zoo.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.animate3d.agreement import Agreement, view_agreement
    from zoo.animate3d.alignment import AlignmentError
    from zoo.animate3d.animation import Animation
    from zoo.animate3d.api import animate
    from zoo.animate3d.fit_report import FitReport
    from zoo.animate3d.fitting import Fit, fit
    from zoo.animate3d.loading import StillModel, load_model
    from zoo.animate3d.motion import GraphMotion
    from zoo.animate3d.paper import PaperSettings
    from zoo.animate3d.splats.animation import SplatAnimation
    from zoo.animate3d.splats.fitting import SplatFit, fit_splats
    from zoo.animate3d.splats.model import SplatModel, load_splats
    from zoo.animate3d.splats.motion import SplatMotion
    from zoo.animate3d.videos import Videos, read_videos
    from zoo.animate3d.viewpoints import cameras_around, render_stills

__all__ = [
    "Agreement",
    "AlignmentError",
    "Animation",
    "Fit",
    "FitReport",
    "GraphMotion",
    "PaperSettings",
    "SplatAnimation",
    "SplatFit",
    "SplatModel",
    "SplatMotion",
    "StillModel",
    "Videos",
    "animate",
    "cameras_around",
    "fit",
    "fit_splats",
    "load_model",
    "load_splats",
    "read_videos",
    "render_stills",
    "view_agreement",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "Agreement": "zoo.animate3d.agreement",
            "AlignmentError": "zoo.animate3d.alignment",
            "Animation": "zoo.animate3d.animation",
            "Fit": "zoo.animate3d.fitting",
            "FitReport": "zoo.animate3d.fit_report",
            "GraphMotion": "zoo.animate3d.motion",
            "PaperSettings": "zoo.animate3d.paper",
            "SplatAnimation": "zoo.animate3d.splats.animation",
            "SplatFit": "zoo.animate3d.splats.fitting",
            "SplatModel": "zoo.animate3d.splats.model",
            "SplatMotion": "zoo.animate3d.splats.motion",
            "StillModel": "zoo.animate3d.loading",
            "Videos": "zoo.animate3d.videos",
            "animate": "zoo.animate3d.api",
            "cameras_around": "zoo.animate3d.viewpoints",
            "fit": "zoo.animate3d.fitting",
            "fit_splats": "zoo.animate3d.splats.fitting",
            "load_model": "zoo.animate3d.loading",
            "load_splats": "zoo.animate3d.splats.model",
            "read_videos": "zoo.animate3d.videos",
            "render_stills": "zoo.animate3d.viewpoints",
            "view_agreement": "zoo.animate3d.agreement",
        },
    )
