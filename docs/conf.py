"""Settings of the documentation; every build works offline."""

from importlib.metadata import version as version_of

project = "scovert"
author = "scovert developers"
copyright = f"2026, {author}"
release = version = version_of("scovert")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_autodoc_typehints",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

# Markdown and notebooks
nb_execution_mode = "off"  # notebooks are stored with their outputs
myst_enable_extensions = ["amsmath", "colon_fence", "dollarmath"]
myst_heading_anchors = 3

# API
autosummary_generate = True
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = True
napoleon_use_param = True
typehints_defaults = "braces"
suppress_warnings = [
    # Names imported for type checkers only, here and in scvi-tools
    "sphinx_autodoc_typehints.forward_reference",
    "sphinx_autodoc_typehints.guarded_import",
]

# References
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

# Theme
html_theme = "sphinx_book_theme"
html_title = "scovert"
