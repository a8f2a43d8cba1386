"""``proglog-trio log verify``."""

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.node.option_types import flag

if TYPE_CHECKING:
    from proglog_trio.cli.terminal.progress import Progress
    from proglog_trio.log.inspect.compare import Comparison, Difference, OnlyOne
    from proglog_trio.log.inspect.frame_table import FramePlace
    from proglog_trio.log.inspect.verify import Finding, Summary

app = App(name="verify")


@app.default
def verify(
    directory: Annotated[Path, Parameter(help="A node's data directory, or a copy of one.")],
    /,
    *,
    against: Annotated[
        list[Path] | None,
        Parameter(
            help="Data directories of other nodes of the cluster, or copies of them. Of each origin the frames must be "
            "the same in all of them, byte for byte, wherever they have the same sequences.",
            consume_multiple=True,
            negative=(),
        ),
    ] = None,
    json: Annotated[bool, flag("Write one JSON object a finding, and one with a summary at the end.")] = False,
) -> int:
    """Read every byte of a log and check every checksum and every chain; nothing is changed.

    Each finding is a line. Damage (records that were acknowledged and cannot be read) makes the exit code 1; warnings
    do not. A node may be writing to the directory meanwhile.

    With --against the log is compared with others, and they with one another. The first difference of each origin is
    named with both places, and so is each range of sequences that only one of two logs has. Differences make the exit
    code 1, and so does what a log lacks in the midst of what it has without a gap marker; what retention removed, or
    what has not arrived yet, does not. It takes 20 bytes of memory a frame.
    """
    from proglog_trio.cli.formats.records import json_line
    from proglog_trio.cli.terminal.progress import progress
    from proglog_trio.errors import DataDirectoryError
    from proglog_trio.log.inspect.verify import Verifier

    write = sys.stdout.buffer.write
    try:
        with progress("verifying", total_bytes=0, wanted=not sys.stdout.isatty()) as counted:
            seen = 0

            def count(done: int, total: int) -> None:
                nonlocal seen
                counted(size=done - seen, total=total)
                seen = done

            verifier = Verifier(directory, progress=count)
            for finding in verifier.run():
                write(json_line(_described(finding)) if json else f"{finding}\n".encode())
    except DataDirectoryError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    summary = verifier.summary
    are_equal = _compare([directory, *against], json=json) if against else True
    write(json_line({"summary": _summarised(summary)}) if json else f"{_readable(summary)}\n".encode())
    return ExitCode.DONE if are_equal and not summary.damage else ExitCode.FAILED


def _compare(directories: list[Path], *, json: bool) -> bool:
    """Compare each log with each other, write what is found, and tell whether there is no contradiction."""
    from proglog_trio.cli.formats.records import json_line
    from proglog_trio.cli.terminal.progress import progress
    from proglog_trio.errors import DataDirectoryError
    from proglog_trio.log.inspect.compare import Comparison
    from proglog_trio.log.inspect.frame_table import FrameTable

    write = sys.stdout.buffer.write
    are_equal = True
    try:
        tables = [FrameTable(directory) for directory in directories]
        for table in tables:
            with progress(f"reading {table.directory}", total_bytes=0, wanted=not sys.stdout.isatty()) as counted:
                seen = 0

                def count(done: int, total: int, counted: "Progress" = counted) -> None:
                    nonlocal seen
                    counted(size=done - seen, total=total)
                    seen = done

                table.read(count)
        for first, second in itertools.combinations(tables, 2):
            comparison = Comparison(first, second)
            for found in comparison.run():
                write(json_line(_described_comparison(found)) if json else f"{found}\n".encode())
            compared = {"comparison": _summarised_comparison(comparison)}
            write(json_line(compared) if json else f"{_readable_comparison(comparison)}\n".encode())
            are_equal = are_equal and comparison.is_equal
    except DataDirectoryError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    return are_equal


def _described_comparison(found: "Difference | OnlyOne") -> dict[str, Any]:
    from proglog_trio.log.inspect.compare import Difference

    if isinstance(found, Difference):
        return {
            "difference": {
                "origin": str(found.origin),
                "detail": found.detail,
                "first": _described_place(found.first),
                "second": _described_place(found.second),
            }
        }
    described = {name: str(getattr(found, name)) for name in ("origin", "held_by", "lacked_by")}
    return {"only_one": {**_fields(found), **described, "reason": found.reason.name.lower()}}


def _described_place(place: "FramePlace | None") -> dict[str, Any] | None:
    return None if place is None else {**_fields(place), "file": str(place.file)}


def _summarised_comparison(comparison: "Comparison") -> dict[str, Any]:
    fields = _fields(comparison)
    first, second = fields.pop("first"), fields.pop("second")
    return {
        "first": str(first.directory),
        "second": str(second.directory),
        "only_first_records": fields.pop("only_first"),
        "only_second_records": fields.pop("only_second"),
        "damaged_places": [first.damaged_places, second.damaged_places],
        **fields,
    }


def _readable_comparison(comparison: "Comparison") -> str:
    first, second = comparison.first, comparison.second
    if comparison.different_frames:
        found = f"{comparison.different_frames} frames of {comparison.different_origins} origins differ"
    else:
        found = "no frames differ"
    damaged = "".join(
        f", {table.damaged_places} places of {table.directory} cannot be read"
        for table in (first, second)
        if table.damaged_places
    )
    return (
        f"{first.directory} and {second.directory}: {comparison.origins} origins in both, "
        f"{comparison.equal_frames} frames are the same, {found}, {comparison.only_first} records only in the first, "
        f"{comparison.only_second} only in the second, {comparison.holes or 'no'} holes{damaged}"
    )


def _described(finding: "Finding") -> dict[str, Any]:
    return {**_fields(finding), "severity": finding.severity.value, "file": str(finding.file)}


def _fields(described: "Comparison | Finding | FramePlace | OnlyOne | Summary") -> dict[str, Any]:
    return attrs.asdict(described, recurse=False)


def _summarised(summary: "Summary") -> dict[str, Any]:
    fields = _fields(summary)
    missing = fields.pop("missing")
    origins = {
        str(origin): {
            "low": state.low,
            "next": state.next,
            "gaps": [list(gap) for gap in state.gaps],
            "missing": [[each.from_sequence, each.to_sequence] for each in state.missing],
        }
        for origin, state in summary.origins.items()
    }
    return {**fields, "missing_records": missing, "origins": origins}


def _readable(summary: "Summary") -> str:
    if summary.next_offset == summary.lowest_offset:
        held = f"the log is empty, its next offset is {summary.next_offset}"
    else:
        held = f"offsets {summary.lowest_offset} to {summary.next_offset - 1}"
    return (
        f"{summary.records} records in {summary.frames} frames and {summary.segments} segments, {held}, "
        f"{summary.bytes_read} bytes: {summary.damage or 'no'} damage, {summary.warnings or 'no'} warnings"
        + (f", {summary.missing} records are missing at present" if summary.missing else "")
    )
