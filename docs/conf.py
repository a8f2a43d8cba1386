"""How the documentation is built: `nox -s docs`."""

from proglog_trio import __version__

project = "proglog-trio"
author = "the proglog-trio authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_design"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"proglog-trio {release}"
html_copy_source = False
html_show_copyright = False
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = True
# Annotations name types of Python and of other packages, whose documentation is not part of this one.
nitpick_ignore_regex = [("py:.*", ".*")]
suppress_warnings = ["ref.python"]  # several classes have an attribute of the same name
# How an object is made is in the docstring of the function or class method that makes it.
autodoc_class_signature = "separated"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
python_use_unqualified_type_names = True
smartquotes = False  # it would turn the dashes of options into others
