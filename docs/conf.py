"""Settings of the documentation; every build works offline."""

import os
import tomllib
import warnings
from importlib.metadata import version as version_of
from pathlib import Path

project = "scovert"
author = "scovert developers"
copyright = f"2026, {author}"
release = version = version_of("scovert")

# The one place with the address of the repository, once it is public
urls = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"].get(
    "urls", {}
)

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
    "sphinxext.opengraph",
]
exclude_patterns = ["_build", "registry", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

# Markdown and notebooks
nb_execution_mode = "off"  # notebooks are stored with their outputs
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# API
autosummary_generate = True
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_ivar = True  # attributes have one entry of the index, below the class
napoleon_use_rtype = True
napoleon_use_param = True
typehints_defaults = "braces"
suppress_warnings = [
    # Names imported for type checkers only, here and in scvi-tools
    "sphinx_autodoc_typehints.forward_reference",
    "sphinx_autodoc_typehints.guarded_import",
]
# One line for each signature, of a name that Sphinx 10 drops
warnings.filterwarnings("ignore", module="sphinx_autodoc_typehints")

# Other projects' pages are looked up where there is a network
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        name: (address, None)
        for name, address in {
            "anndata": "https://anndata.readthedocs.io/en/stable/",
            "matplotlib": "https://matplotlib.org/stable/",
            "numpy": "https://numpy.org/doc/stable/",
            "pandas": "https://pandas.pydata.org/docs/",
            "python": "https://docs.python.org/3/",
            "scanpy": "https://scanpy.readthedocs.io/en/stable/",
            "scvi-tools": "https://docs.scvi-tools.org/en/stable/",
        }.items()
    }

# References
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

# Theme
html_theme = "sphinx_book_theme"
html_title = "scovert"
html_static_path = ["_static"]
html_css_files = ["scovert.css"]
html_theme_options = {
    "navbar_persistent": [],  # the sidebar has a search box
    "navigation_with_keys": False,
    "show_toc_level": 2,
}
if "Repository" in urls:
    html_theme_options |= {
        "path_to_docs": "docs",
        "repository_url": urls["Repository"],
        "use_edit_page_button": True,
        "use_issues_button": True,
        "use_repository_button": True,
    }

# Previews of links
ogp_site_url = urls.get("Documentation", "")
ogp_site_name = "scovert"
ogp_image = "_static/preview.png"
ogp_social_cards = {"enable": False}

# Buttons copy commands without prompts and without what they print
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

linkcheck_anchors = False
linkcheck_ignore = [r"https://doi\.org/.*"]  # publishers turn programs away
