"""``proglog-trio log dump``."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.formats.records import json_line, record_line
from proglog_trio.node.option_types import flag

if TYPE_CHECKING:
    from proglog_trio.log.format.stored_frame import DamagedPlace, StoredFrame
    from proglog_trio.log.inspect.dump import DumpedSegment

app = App(name="dump")


def _check_offset(_type: type, value: int | None) -> None:
    if value is not None and not 0 <= value < 2**64:
        raise ValueError("Must be from 0 to 2**64 - 1.")


@app.default
def dump(
    directory: Annotated[Path, Parameter(help="A node's data directory, or a copy of one.")],
    /,
    *,
    from_offset: Annotated[
        int, Parameter(validator=_check_offset, metavar="N", help="Leave out what ends at or before this offset.")
    ] = 0,
    to_offset: Annotated[
        int | None,
        Parameter(validator=_check_offset, metavar="N", help="Leave out what begins at or after this offset."),
    ] = None,
    records: Annotated[
        bool, flag("Write the records of each frame too, each as a JSON object on its own line.")
    ] = False,
    json: Annotated[bool, flag("Write one JSON object for everything that is found.")] = False,
) -> int:
    """List what is in a log, in its order: segments, frames, gap markers and damage; nothing is changed.

    With damage the exit code is 1. A node may be writing to the directory meanwhile.
    """
    from proglog_trio.errors import DataDirectoryError
    from proglog_trio.log.format.stored_frame import DamagedPlace
    from proglog_trio.log.inspect.dump import DumpedSegment, dump_directory

    write = sys.stdout.buffer.write
    damaged = False
    try:
        for item in dump_directory(directory, from_offset=from_offset, to_offset=to_offset):
            frame: StoredFrame | None = None
            if isinstance(item, DumpedSegment):
                fields = _describe_segment(item)
            elif isinstance(item.found, DamagedPlace):
                fields = _describe_damage(item.found)
            else:
                frame = item.found
                fields = _describe_frame(frame)
            damaged = damaged or fields["kind"] == "damage"
            write(json_line(fields) if json else f"{_readable(fields)}\n".encode())
            if records and frame is not None and fields["kind"] == "records":
                for line in _record_lines(frame, from_offset, to_offset):
                    write(line)
    except DataDirectoryError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    return ExitCode.FAILED if damaged else ExitCode.DONE


def _describe_segment(segment: "DumpedSegment") -> dict[str, Any]:
    fields: dict[str, Any] = {
        "kind": "segment" if segment.header is not None else "damage",
        "file": str(segment.files.store),
        "base_offset": segment.files.base_offset,
    }
    if segment.header is not None:
        header = segment.header
        fields |= {
            "cluster_name": header.cluster_name,
            "created": header.created,
            "running": header.running,
            "origins": {str(origin): [state.low, state.next] for origin, state in header.origins.items()},
            "producers": len(header.producers),
        }
    if segment.detail is not None:
        fields["detail"] = segment.detail
    return fields


def _describe_damage(found: "DamagedPlace") -> dict[str, Any]:
    return {
        "kind": "damage",
        "position": found.position,
        "end": found.end,
        "base_offset": found.expected_offset,
        "next_offset": found.next_offset,
        "detail": str(found),
    }


def _describe_frame(found: "StoredFrame") -> dict[str, Any]:
    from proglog_trio.log.format.envelope import MARKERS, EnvelopeKind
    from proglog_trio.log.format.gap_marker import GapMarker

    envelope = found.envelope
    fields: dict[str, Any] = {
        "kind": envelope.kind.name.lower(),
        "position": found.position,
        "base_offset": envelope.base_offset,
    }
    if envelope.kind in MARKERS:
        marker = GapMarker.of_frame(found.frame)
        fields |= {
            "origin": str(marker.origin),
            "from_sequence": marker.from_sequence,
            "to_sequence": marker.to_sequence,
            "reason": marker.reason,
        }
    elif envelope.kind is EnvelopeKind.RECORDS:
        header = found.header
        fields |= {
            "next_offset": envelope.next_offset,
            "origin": str(header.origin),
            "base_sequence": header.base_sequence,
            "count": header.count,
            "log_time": header.log_time,
            "producer_id": header.producer_id,
            "producer_sequence": header.producer_sequence,
            "must_understand": header.must_understand,
            "may_ignore": header.may_ignore,
            "payload_length": header.payload_length,
            "payload_crc": header.payload_crc,
            "header_crc": header.header_crc,
            "previous_header_crc": header.previous_header_crc,
        }
    return fields


def _readable(fields: Mapping[str, Any]) -> str:
    match fields["kind"]:
        case "segment":
            problem = f" ({fields['detail']})" if "detail" in fields else ""
            cluster = f"cluster {fields['cluster_name']}"
            return f"segment {fields['file']}: from offset {fields['base_offset']}, {cluster}{problem}"
        case "damage":
            return f"  damage at offset {fields['base_offset']}: {fields['detail']}"
        case "records":
            return (
                f"  {fields['position']:>12}  offsets {fields['base_offset']} to {fields['next_offset'] - 1}, origin "
                f"{fields['origin']} sequence {fields['base_sequence']}, log time {fields['log_time']}, producer "
                f"{fields['producer_id']:016x} batch {fields['producer_sequence']}, {fields['payload_length']} bytes"
            )
        case "gap" | "missing" as kind:
            return (
                f"  {fields['position']:>12}  {kind}: origin {fields['origin']} sequences {fields['from_sequence']} to "
                f"{fields['to_sequence'] - 1} are missing: {fields['reason']}"
            )
        case kind:
            return f"  {fields['position']:>12}  {kind} at offset {fields['base_offset']}"


def _record_lines(found: "StoredFrame", from_offset: int, to_offset: int | None) -> Iterator[bytes]:
    """Yield the records of a frame that lie in the range that was asked for."""
    from proglog_trio.errors import PayloadError
    from proglog_trio.log.format.record import unpack_records

    frame = found.frame
    header = frame.header
    try:
        records = unpack_records(frame.payload)
    except PayloadError as error:
        yield json_line({"kind": "malformed", "base_offset": found.base_offset, "detail": str(error)})
        return
    for index, record in enumerate(records):
        offset = found.base_offset + index
        if offset >= from_offset and (to_offset is None or offset < to_offset):
            place = {
                "kind": "record",
                "offset": offset,
                "origin": str(header.origin),
                "sequence": header.base_sequence + index,
                "log_time": header.log_time,
            }
            yield record_line(place, record)
