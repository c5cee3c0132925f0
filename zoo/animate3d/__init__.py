"""Animate a still 3D model so that it moves as given or generated videos show."""
