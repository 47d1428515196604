"""Sphinx reads this. ``make docs`` builds with every warning an error."""

from __future__ import annotations

import jam

project = "Jam"
author = "The Jam authors"
copyright = "The Jam authors"
version = release = jam.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"Jam {release}"
html_copy_source = False

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
# An "Attributes:" section becomes part of its class, so that a member is not described twice.
napoleon_use_ivar = True
napoleon_numpy_docstring = False
