"""Files that other programs open: videos and animated meshes."""
