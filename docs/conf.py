"""The documentation's settings: ``make docs`` builds it into ``build/docs``."""

from __future__ import annotations

import pathlib
import sys

HERE = pathlib.Path(__file__).parent
# This checkout's funcnets, whatever is installed; and the extensions of this folder.
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import funcnets  # noqa: E402

project = "funcnets"
author = "the funcnets authors"
copyright = "the funcnets authors, Apache-2.0"
version = release = funcnets.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    # Our own, in _ext/.
    "api_pages",
    "mathml",
    "notebook_links",
    "torch_table",
    "views",
]
exclude_patterns = ["_ext", "_static", "**/.ipynb_checkpoints", "**/README.md"]

# --- pages ------------------------------------------------------------------------------------
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are shown with the outputs that are stored in them, which the tests compare with a run.
nb_execution_mode = "off"
nb_merge_streams = True
highlight_language = "python"

# --- the API reference ------------------------------------------------------------------------
add_module_names = False
toc_object_entries_show_parents = "hide"
autosummary_generate = False
autodoc_inherit_docstrings = False  # or every layer would show Module.forward's text
autodoc_member_order = "groupwise"
autodoc_preserve_defaults = True  # jnp.bfloat16, not <class 'jax.numpy.bfloat16'>
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Shape", "notes_style"), ("State", "notes_style")]
napoleon_use_ivar = True
napoleon_use_rtype = False
# What belongs to other projects cannot be looked up without a network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!funcnets\b).*"),
    ("py:class", r"funcnets\..*\.([A-Z]|Function)"),  # type variables
]

# An annotation ``type`` is the built-in one, although some of our tuples have a field of this name.
suppress_warnings = ["ref.python"]

# --- HTML -------------------------------------------------------------------------------------
html_theme = "furo"
html_title = "funcnets"
html_static_path = ["_static"]
html_favicon = "_static/favicon.svg"
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_permalinks_icon = "#"
pygments_style = "friendly"
pygments_dark_style = "github-dark"
