"""Motion videos generated from one still object: prompts, video models, judges, mattes and views."""
