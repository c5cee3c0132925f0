"""Assets: records of 3D models, their licences, and the rules that select or exclude them."""
