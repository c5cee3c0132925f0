"""Files that appear complete or not at all."""

from renderers.files import atomic_path

__all__ = ["atomic_path"]
