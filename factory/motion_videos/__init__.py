"""Motion videos: every motion of one object, rendered from several views for a motion space to learn."""
