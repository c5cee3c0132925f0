"""Pictures from scenes: animated glTF meshes and Gaussian splats. Knows nothing of the other packages."""
