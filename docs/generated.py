"""What the pages of the documentation have from the code: `python docs/generated.py` says what is out of date.

It stands in the pages themselves, between two comments, so that they are whole wherever they are read. With `--write`
the pages are brought up to date.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

from proglog_trio.cli.app import command_line
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.log.counters import LogCounters
from proglog_trio.replication.decisions import PlanConfig
from proglog_trio.replication.events import ReplicationCounters
from proglog_trio.replication.replica import ReplicationConfig
from proglog_trio.rpc.server.log_service_state import LogServiceCounters

DOCUMENTATION = Path(__file__).parent


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


def documented(config: type) -> Iterator[tuple["attrs.Attribute[object]", str]]:
    """Yield the fields of an attrs class with what its docstring says of each."""
    text = inspect.getdoc(config) or ""
    entries = re.findall(r"^    (\w+(?:, \w+)*): (.*(?:\n        .*)*)", text, re.MULTILINE)
    meanings = {name: " ".join(meaning.split()) for names, meaning in entries for name in names.split(", ")}
    return ((attribute, meanings[attribute.name]) for attribute in attrs.fields(config))


GENERATED = {
    "commands": commands,
    "counters": counters,
    "exit codes": exit_codes,
    "replication times": replication_times,
}
_BLOCK = re.compile(r"(<!-- generated: (.+?) -->\n).*?(<!-- end of what is generated -->)", re.DOTALL)


def main(*, write: bool) -> int:
    """Compare all pages with the code, and bring them up to date if asked to; return the process's exit code."""
    differing, found = [], set()
    for page in sorted(DOCUMENTATION.rglob("*.md")):
        text = page.read_text("utf-8")
        found.update(name for _, name, _ in _BLOCK.findall(text))
        fresh = _BLOCK.sub(lambda block: f"{block[1]}\n{GENERATED[block[2]]().strip()}\n\n{block[3]}", text)
        if fresh != text:
            differing.append(page)
            if write:
                page.write_text(fresh, "utf-8")
    if unused := GENERATED.keys() - found:
        sys.stderr.write(f"no page has: {', '.join(sorted(unused))}\n")
        return 1
    if differing and not write:
        names = ", ".join(str(page.relative_to(DOCUMENTATION.parent)) for page in differing)
        sys.stderr.write(f"not what the code says: {names}; run python docs/generated.py --write\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(write="--write" in sys.argv[1:]))
