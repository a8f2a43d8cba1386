"""``proglog-trio log verify``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.config import flag

if TYPE_CHECKING:
    from proglog_trio.log.verify import Finding, Summary

app = App(name="verify")


@app.default
def verify(
    directory: Annotated[Path, Parameter(help="A node's data directory, or a copy of one.")],
    /,
    *,
    json: Annotated[bool, flag("Write one JSON object a finding, and one with a summary at the end.")] = False,
) -> int:
    """Read every byte of a log and check every checksum and every chain; nothing is changed.

    Each finding is a line. Damage (records that were acknowledged and cannot be read) makes the exit code 1; warnings
    do not. A node may be writing to the directory meanwhile.
    """
    from proglog_trio.cli.progress import progress
    from proglog_trio.cli.record_format import json_line
    from proglog_trio.errors import DataDirectoryError
    from proglog_trio.log.verify import Verifier

    verifier = Verifier(directory)
    write = sys.stdout.buffer.write
    try:
        with progress("verifying", total_bytes=0, wanted=not sys.stdout.isatty()) as counted:
            seen = 0

            def count(done: int, total: int) -> None:
                nonlocal seen
                counted(size=done - seen, total=total)
                seen = done

            verifier.progress = count
            for finding in verifier.run():
                write(json_line(_described(finding)) if json else f"{finding}\n".encode())
    except DataDirectoryError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    summary = verifier.summary
    write(json_line({"summary": _summarised(summary)}) if json else f"{_readable(summary)}\n".encode())
    return ExitCode.FAILED if summary.damage else ExitCode.DONE


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
        "bytes_read": summary.bytes_read,
        "damage": summary.damage,
        "warnings": summary.warnings,
        "lowest_offset": summary.lowest_offset,
        "next_offset": summary.next_offset,
        "origins": {
            str(origin): {"low": state.low, "next": state.next, "gaps": [list(gap) for gap in state.gaps]}
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
    )
