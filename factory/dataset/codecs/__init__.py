"""Encoding and decoding of a clip's columns: video, alpha, depth, normals, flow and tracks."""
