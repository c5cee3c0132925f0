"""Choices, defaults and bounds of making, rendering and saving animations."""

METHODS = ("graph", "paper", "best")  # of a fit
# Of method "graph", by stiffness; increment when the same videos would give another motion.
FIT_VERSIONS = {"rendered": "2", "generated": "2"}
TOLERANCE = 1e-4  # of the model's diagonal, for key frames
MOST_FRAMES, LARGEST_PICTURE = 10_000, 4096  # frames, and pixels of a side
MOST_INFLUENCES = 32  # joints per vertex: eight sets of JOINTS_n, as the reader has
