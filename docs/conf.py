"""Configuration of the documentation: `make docs` builds it into out/docs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import zoo

project = "Menagerie"
author = "the Menagerie authors"
release = version = zoo.__version__
html_title = f"Menagerie {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "names"]
exclude_patterns = ["_extensions"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False
# Browsers refuse to fetch the pages for summaries when the site is opened from disk.
html_show_search_summary = False

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 3  # anchors as on GitHub
myst_all_links_external = False
suppress_warnings = [
    "ref.python",  # attributes that are named like a type, such as `bytes`
]

default_role = "literal"  # docstrings write `name`, as in Markdown
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes are members too, and described once
maximum_signature_line_length = 90
pygments_style = "friendly"
pygments_dark_style = "native"
