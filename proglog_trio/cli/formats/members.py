"""The members of a cluster, as JSON and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proglog_trio._proto.log.v1 import Coordinate, Member, ProtocolVersions


def described_member(member: Member) -> dict[str, Any]:
    """Return all that a node said of a member; what it did not say is None."""
    return {
        "name": member.name,
        "address": member.address,
        "port": member.port,
        "status": str(member.status.name).lower(),
        "tags": dict(member.tags),
        "round_trip_seconds": member.round_trip_seconds or None,
        "coordinate": _described_coordinate(member.coordinate),
        "versions": _described_versions(member.versions),
    }


def _described_coordinate(coordinate: Coordinate | None) -> dict[str, Any] | None:
    if coordinate is None:
        return None
    return {
        "vec": list(coordinate.vec),
        "error": coordinate.error,
        "adjustment": coordinate.adjustment,
        "height": coordinate.height,
    }


def _described_versions(versions: ProtocolVersions | None) -> dict[str, int] | None:
    if versions is None:
        return None
    return {
        "protocol_min": versions.protocol_min,
        "protocol_max": versions.protocol_max,
        "protocol_current": versions.protocol_current,
        "delegate_min": versions.delegate_min,
        "delegate_max": versions.delegate_max,
        "delegate_current": versions.delegate_current,
    }


def member_lines(members: Sequence[Mapping[str, Any]], *, detailed: bool) -> Iterator[str]:
    """Yield a line for each member, in columns: name, address, status, then versions if detailed, and the tags.

    Args:
        members: as described_member gives them.
        detailed: show what each speaks, and what it understands.
    """
    rows = [_row(member, detailed=detailed) for member in members]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(member: Mapping[str, Any], *, detailed: bool) -> list[str]:
    row = [member["name"], f"{member['address']}:{member['port']}", member["status"]]
    if detailed:
        versions = member["versions"]
        row += [_spoken(versions, "delegate", "serf"), _spoken(versions, "protocol", "memberlist")]
    return [*row, ",".join(f"{tag}={content}" for tag, content in sorted(member["tags"].items()))]


def _spoken(versions: Mapping[str, int] | None, kind: str, protocol: str) -> str:
    if versions is None:
        return f"{protocol} ?"
    current, lowest, highest = (versions[f"{kind}_{which}"] for which in ("current", "min", "max"))
    return f"{protocol} {current} of {lowest} to {highest}"
