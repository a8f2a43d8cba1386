"""How the documentation is built: `nox -s docs`."""

from pathlib import Path
from typing import TYPE_CHECKING

from proglog_trio import __version__
from proglog_trio.cli.app import app
from proglog_trio.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from sphinx.application import Sphinx

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


GENERATED = Path(__file__).parent / "_build"


def exit_codes() -> str:
    """Return the table of exit codes, from the enumeration that the commands use."""
    return "| Code | Meaning |\n|---|---|\n" + "".join(f"| {code.value} | {code.meaning} |\n" for code in ExitCode)


def commands() -> str:
    """Return the reference of all commands and options, from the classes and functions that define them."""
    text = app.generate_docs(output_format="markdown", heading_level=1, usage_name="python -m proglog_trio")
    # what comes before the first command is a table of contents, which the page has already
    return text[text.index("## proglog-trio node") :]


def write_generated(_sphinx: "Sphinx") -> None:
    """Write what pages include."""
    GENERATED.mkdir(exist_ok=True)
    (GENERATED / "exit-codes.md").write_text(exit_codes(), "utf-8")
    (GENERATED / "commands.md").write_text(commands(), "utf-8")


def setup(sphinx: "Sphinx") -> None:
    """Register what is generated before the sources are read."""
    sphinx.connect("builder-inited", write_generated)
