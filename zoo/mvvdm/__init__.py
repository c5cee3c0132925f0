"""MV-VDM: a video diffusion model of four views at once (Animate3D, Jiang et al., NeurIPS 2024, §3.1).

Four pictures of a still object and a sentence in, four videos of it out that agree with each other.
"""
