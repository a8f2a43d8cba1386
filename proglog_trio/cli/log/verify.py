"""``proglog-trio log verify``."""

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.node.option_types import flag

if TYPE_CHECKING:
    from proglog_trio.cli.progress import Progress
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
    from proglog_trio.cli.progress import progress
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
    from proglog_trio.cli.progress import progress
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
    return {
        "only_one": {
            "origin": str(found.origin),
            "from_sequence": found.from_sequence,
            "to_sequence": found.to_sequence,
            "held_by": str(found.held_by),
            "lacked_by": str(found.lacked_by),
            "reason": found.reason.name.lower(),
        }
    }


def _described_place(place: "FramePlace | None") -> dict[str, Any] | None:
    if place is None:
        return None
    return {
        "file": str(place.file),
        "position": place.position,
        "offset": place.offset,
        "sequence": place.sequence,
    }


def _summarised_comparison(comparison: "Comparison") -> dict[str, Any]:
    return {
        "first": str(comparison.first.directory),
        "second": str(comparison.second.directory),
        "origins": comparison.origins,
        "equal_frames": comparison.equal_frames,
        "different_frames": comparison.different_frames,
        "different_origins": comparison.different_origins,
        "only_first_records": comparison.only_first,
        "only_second_records": comparison.only_second,
        "holes": comparison.holes,
        "damaged_places": [comparison.first.damaged_places, comparison.second.damaged_places],
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
    return {
        "severity": finding.severity.value,
        "file": str(finding.file),
        "position": finding.position,
        "offset": finding.offset,
        "detail": finding.detail,
    }


def _summarised(summary: "Summary") -> dict[str, Any]:
    return {
        "cluster_name": summary.cluster_name,
        "segments": summary.segments,
        "frames": summary.frames,
        "records": summary.records,
        "gaps": summary.gaps,
        "missing_records": summary.missing,
        "bytes_read": summary.bytes_read,
        "damage": summary.damage,
        "warnings": summary.warnings,
        "lowest_offset": summary.lowest_offset,
        "next_offset": summary.next_offset,
        "origins": {
            str(origin): {
                "low": state.low,
                "next": state.next,
                "gaps": [list(gap) for gap in state.gaps],
                "missing": [[each.from_sequence, each.to_sequence] for each in state.missing],
            }
            for origin, state in summary.origins.items()
        },
    }


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
