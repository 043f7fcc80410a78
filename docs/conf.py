"""How Sphinx builds the documentation: `sphinx-build -W --keep-going -b html docs build/docs`.

The package must be installed with its extra `docs`. Under `-W` a warning fails the build, and these
are warnings: a link to a page or an anchor that does not exist, and a reference to an object of
this project that does not exist. Nothing is fetched from the network.
"""

import sys
from pathlib import Path

from synthdetect import __version__

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "synthdetect"
release = version = __version__

extensions = [
    "myst_parser",
    "reference",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]

# Pages: Markdown. Headings down to the third level can be linked to as `page.md#heading`.
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# Reference: docstrings, and the options of each command.
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # else methods show what torch and MLflow say of theirs
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False  # a result is described in words, such as its shape, and not linked
default_role = "code"  # docstrings set names of code in single backticks

# A reference to an object of this project must lead somewhere. Not checked are objects of other
# projects, which would need the network, and `py:class`, which autodoc makes of annotations: they
# name private types and type variables. Pages refer to classes by `{py:obj}`.
nitpicky = True
nitpick_ignore_regex = [(r"py:class", r".*"), (r"py:.*", r"(?!synthdetect\b|sweeps\b).*")]

html_theme = "furo"
html_title = f"synthdetect {release}"
html_show_copyright = False
html_show_sphinx = False
