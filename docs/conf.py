"""Sphinx configuration: builds offline, with warnings as errors."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
# What the libraries read when autodoc imports them: no look-up of hosts, no download, no display.
os.environ |= {
    "NO_ET": "1",
    "NIPYPE_NO_ET": "1",
    "MPLBACKEND": "Agg",
    "TEMPLATEFLOW_HOME": str(ROOT / "bids_wmh_uad" / "data" / "templateflow"),
    "TEMPLATEFLOW_AUTOUPDATE": "0",
}

import bids_wmh_uad  # noqa: E402

project = "bids-wmh-uad"
author = "The bids-wmh-uad developers"
copyright = author
version = release = bids_wmh_uad.__version__

extensions = [
    "mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinxarg.ext",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb"}  # autosummary writes its pages as the first
exclude_patterns = ["_build"]
templates_path = ["_templates"]

# Notebooks are stored without outputs and run anew by every build, each in a directory of its own
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds a cell
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # or a property that the class docstring lists is described twice

smartquotes = False  # or "--option" becomes a dash

html_theme = "furo"
html_math_renderer = "mathml"
html_title = f"bids-wmh-uad {release}"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]


def setup(app):
    """Describe what the package exports once: on its own page, not among its module's members too."""

    def skip(app, what, name, obj, skip, options):  # noqa: ARG001 (Sphinx's event)
        exported = what == "module" and name in bids_wmh_uad.__all__
        return True if exported and obj is getattr(bids_wmh_uad, name) else None

    app.connect("autodoc-skip-member", skip)
