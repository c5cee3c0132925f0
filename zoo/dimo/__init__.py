"""DIMO: one model of an object's diverse motions (Mou et al., ICCV 2025), learnt from videos of it.

Each motion is a point of a latent space; a decoder turns it into paths of key points, which carry 3D Gaussians.
"""
