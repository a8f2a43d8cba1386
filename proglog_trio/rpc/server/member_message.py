"""A member, as it is told over gRPC."""

from __future__ import annotations

import attrs

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.membership import Coordinate, Member, ProtocolVersions
from proglog_trio.rpc.messages.text import sendable
from proglog_trio.rpc.server.status_report import STATUS_MESSAGES


def member_message(member: Member) -> log_v1.Member:
    """Return what is told of a member."""
    return log_v1.Member(
        name=sendable(member.name),
        address=member.address,
        port=member.port,
        tags={sendable(tag): sendable(content) for tag, content in member.tags.items()},
        status=STATUS_MESSAGES[member.status],
        round_trip_seconds=member.round_trip_seconds or 0.0,
        coordinate=None if member.coordinate is None else _coordinate_message(member.coordinate),
        versions=None if member.versions is None else _versions_message(member.versions),
    )


def _coordinate_message(coordinate: Coordinate) -> log_v1.Coordinate:
    return log_v1.Coordinate(
        vec=list(coordinate.vec),
        error=coordinate.error,
        adjustment=coordinate.adjustment,
        height=coordinate.height,
    )


def _versions_message(versions: ProtocolVersions) -> log_v1.ProtocolVersions:
    return log_v1.ProtocolVersions(**attrs.asdict(versions))
