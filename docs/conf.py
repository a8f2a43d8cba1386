"""How the documentation is built: `nox -s docs`."""

from proglog_trio import __version__

project = "proglog-trio"
author = "the proglog-trio authors"
release = version = __version__

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"proglog-trio {release}"
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 3
nitpicky = True
smartquotes = False  # it would turn the dashes of options into others
