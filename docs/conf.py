"""How the documentation is built: `nox -s docs`."""

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from proglog_trio import __version__
from proglog_trio.cli.app import command_line
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.log.counters import LogCounters
from proglog_trio.replication.events import ReplicationCounters
from proglog_trio.replication.pull_plan import PlanConfig
from proglog_trio.replication.replica import ReplicationConfig
from proglog_trio.rpc.server.log_service_state import LogServiceCounters

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    text = command_line().generate_docs(output_format="markdown", heading_level=1, usage_name="python -m proglog_trio")
    # what comes before the first command is a table of contents, which the page has already
    return text[text.index("## proglog-trio node") :]


def replication_times() -> str:
    """Return the table of the times of replication, from the classes that hold them."""
    rows = [
        f"| `{attribute.name}` | {attribute.default:g} s | {meaning} |\n"
        for config in (PlanConfig, ReplicationConfig)
        for attribute, meaning in documented(config)
        if isinstance(attribute.default, float)
    ]
    return "| Time | Length | Meaning |\n|---|---|---|\n" + "".join(rows)


def counters() -> str:
    """Return the table of the counters of GetStatus, from the classes that hold them."""
    rows = [
        f"| `{attribute.name}` | {meaning} |\n"
        for counted in (LogCounters, LogServiceCounters, ReplicationCounters)
        for attribute, meaning in documented(counted)
    ]
    waiting = "| `acknowledgements_waiting` | produces that wait for other nodes now |\n"
    return "| Counter | Meaning |\n|---|---|\n" + "".join(rows) + waiting


def documented(config: type) -> "Iterator[tuple[attrs.Attribute[object], str]]":
    """Yield the fields of an attrs class with what its docstring says of each."""
    text = inspect.getdoc(config) or ""
    entries = re.findall(r"^    (\w+(?:, \w+)*): (.*(?:\n        .*)*)", text, re.MULTILINE)
    meanings = {name: " ".join(meaning.split()) for names, meaning in entries for name in names.split(", ")}
    return ((attribute, meanings[attribute.name]) for attribute in attrs.fields(config))


def write_generated(_sphinx: "Sphinx") -> None:
    """Write what pages include."""
    GENERATED.mkdir(exist_ok=True)
    (GENERATED / "exit-codes.md").write_text(exit_codes(), "utf-8")
    (GENERATED / "replication-times.md").write_text(replication_times(), "utf-8")
    (GENERATED / "counters.md").write_text(counters(), "utf-8")
    (GENERATED / "commands.md").write_text(commands(), "utf-8")


def setup(sphinx: "Sphinx") -> None:
    """Register what is generated before the sources are read."""
    sphinx.connect("builder-inited", write_generated)
