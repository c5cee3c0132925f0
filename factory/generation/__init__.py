"""Motion videos of one object that has no motions yet: sentences, videos, judges, mattes, views."""
