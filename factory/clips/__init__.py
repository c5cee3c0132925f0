"""MV-Video clips: planned, rendered, measured and packed into a dataset."""
