"""Gaussian splats that move: method `paper` for a file of 3DGS instead of a mesh.

animation = zoo.animate("dragon.ply", videos=["front.mp4", "right.mp4", "back.mp4", "left.mp4"])
animation.save("dragon-roars.4dgs")

model       `SplatModel`: a file of splats
stand_ins   the fewer Gaussians that are fitted in their place
fitting     `fit_splats`: their motion from videos
motion, animation, saving  `SplatAnimation`: cut, render, save
"""
