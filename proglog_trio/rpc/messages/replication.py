"""Messages of pull streams, between the generated classes and those that replication works with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import attrs

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.log.format.frame import iterate_frames
from proglog_trio.log.format.origin import DIRECTORY_ID_BYTES, Origin
from proglog_trio.replication.events import PeerLied
from proglog_trio.replication.messages import (
    ENTRIES_AT_ONCE,
    ClockAnswer,
    Ended,
    EndReason,
    Hello,
    HolderNews,
    KnownDirectory,
    OriginRange,
    Positions,
    PullRequest,
    PullResponse,
    Want,
    directory_of,
)
from proglog_trio.rpc.http2.message_buffer import message_prefix
from proglog_trio.rpc.messages.protobuf import bytes_field_header, encode_message
from proglog_trio.steps import Steps

Read = TypeVar("Read")
Converted = TypeVar("Converted")

_FRAMES = 4
"""The field of PullResponse that is written by itself."""
_FETCHED = 1
"""And of FetchFramesResponse."""
_PARTS_AT_ONCE = 64
"""Of a list, in one step of reading: all of it, if the sender keeps to ENTRIES_AT_ONCE."""
_FRAMES_AT_ONCE = 32
"""In one step of telling frames apart: some tenths of a millisecond, or as many megabytes as a message has."""
_MAX_PARTS = 16 * ENTRIES_AT_ONCE
"""Of a list in one message: what comes of each is work for the receiver, and a correct node says no more than a few."""
_MAX_NEWS = 4 * ENTRIES_AT_ONCE
"""Of third nodes: each is passed on, on two streams to each peer."""


def request_to_message(request: PullRequest) -> log_v1.PullRequest:
    """Return a request as it is sent."""
    return log_v1.PullRequest(
        hello=_hello_out(request.hello),
        positions=_positions_out(request.positions),
        others=_news_out(request.others),
        directories=_directories_out(request.directories),
        wants=[log_v1.Want(origin=want.origin.data, from_sequence=want.from_sequence) for want in request.wants],
        stops=[origin.data for origin in request.stops],
        clock_question=request.clock_question,
    )


def request_steps(message: log_v1.PullRequest) -> Steps[PullRequest]:
    """Return, in steps, the request of a message; raises PeerLied if it is none that a correct node sends."""
    return PullRequest(
        _hello_in(message.hello),
        (yield from _positions_in(message.positions)),
        (yield from _converted(_news_in, message.others, _MAX_NEWS)),
        (yield from _converted(_want_in, message.wants)),
        (yield from _converted(origin_of, message.stops)),
        (yield from _converted(_directory_in, message.directories)),
        message.clock_question,
    )


def response_steps(message: log_v1.PullResponse) -> Steps[PullResponse]:
    """Return, in steps, the response of a message; raises PeerLied if it is none that a correct node sends."""
    return PullResponse(
        _hello_in(message.hello),
        (yield from _positions_in(message.positions)),
        (yield from _converted(_news_in, message.others, _MAX_NEWS)),
        message.frames,
        (yield from _converted(_ended_in, message.ended)),
        (yield from _converted(_directory_in, message.directories)),
        None
        if message.clock_answer is None
        else ClockAnswer(message.clock_answer.question, message.clock_answer.wall_clock),
    )


def _converted(
    convert: Callable[[Read], Converted], parts: Sequence[Read], max_parts: int = _MAX_PARTS
) -> Steps[tuple[Converted, ...]]:
    """Return all parts converted, in steps; raises PeerLied if they are more than a correct node says at once."""
    if len(parts) > max_parts:
        raise PeerLied(f"a peer names {len(parts)} things of one kind in a message, more than {max_parts}")
    converted: list[Converted] = []
    for start in range(0, len(parts), _PARTS_AT_ONCE):
        converted += map(convert, parts[start : start + _PARTS_AT_ONCE])
        yield
    return tuple(converted)


def encode_response(response: PullResponse) -> bytes:
    """Return a response without frames as one length-prefixed message."""
    encoded = encode_message(
        log_v1.PullResponse(
            hello=_hello_out(response.hello),
            positions=_positions_out(response.positions),
            others=_news_out(response.others),
            directories=_directories_out(response.directories),
            ended=[
                log_v1.Ended(
                    origin=ended.origin.data,
                    from_sequence=ended.from_sequence,
                    resumes_at=ended.resumes_at or 0,
                    reason=log_v1.EndedReason[ended.reason.name],
                )
                for ended in response.ended
            ],
            clock_answer=None
            if response.clock_answer is None
            else log_v1.ClockAnswer(**attrs.asdict(response.clock_answer)),
        )
    )
    return message_prefix(len(encoded)) + encoded


def encode_frames(frames: tuple[bytes, ...]) -> bytes:
    """Return a response of frames as one length-prefixed message; the frames are copied once."""
    return _encode_bytes(_FRAMES, frames)


def encode_fetched(frames: tuple[bytes, ...]) -> bytes:
    """Return a FetchFramesResponse as one length-prefixed message."""
    return _encode_bytes(_FETCHED, frames)


def frames_steps(data: bytes) -> Steps[list[bytes]]:
    """Return, in steps, the frames that stand one after the other; raises FrameError at the first that is not whole."""
    frames: list[bytes] = []
    place = 0
    for frame in iterate_frames(data):
        frames.append(data[place : place + frame.length])
        place += frame.length
        if len(frames) % _FRAMES_AT_ONCE == 0:
            yield
    return frames


def _encode_bytes(field: int, parts: tuple[bytes, ...]) -> bytes:
    size = sum(map(len, parts))
    header = bytes_field_header(field, size)
    return b"".join((message_prefix(len(header) + size), header, *parts))


def _hello_out(hello: Hello | None) -> log_v1.Hello | None:
    # The fields have the same names.
    return None if hello is None else log_v1.Hello(**attrs.asdict(hello))


def _hello_in(message: log_v1.Hello | None) -> Hello | None:
    if message is None:
        return None
    return Hello(
        message.cluster_name, message.node_name, _directory_id(message.directory_id), message.opened, message.version
    )


def _positions_out(positions: Positions | None) -> log_v1.Positions | None:
    if positions is None:
        return None
    return log_v1.Positions(
        ranges=[
            log_v1.OriginRange(
                origin=origin.data,
                low=held.low,
                next=held.next,
                last_header_crc=held.last_header_crc,
                gaps=[edge for gap in held.gaps for edge in gap],
                missing=[edge for missing in held.missing for edge in missing],
            )
            for origin, held in positions.ranges.items()
        ],
        forgotten=[origin.data for origin in positions.forgotten],
        writing=b"" if positions.writing is None else positions.writing.data,
        more_follows=positions.more_follows,
    )


def _positions_in(message: log_v1.Positions | None) -> Steps[Positions | None]:
    if message is None:
        return None
    return Positions(
        dict((yield from _converted(_range_in, message.ranges))),
        (yield from _converted(origin_of, message.forgotten)),
        origin_of(message.writing) if message.writing else None,
        message.more_follows,
    )


def _range_in(message: log_v1.OriginRange) -> tuple[Origin, OriginRange]:
    if message.low > message.next:
        raise PeerLied(f"a peer says that it has sequences {message.low} to {message.next}")
    gaps, missing = (_pairs(edges, message.low, message.next) for edges in (message.gaps, message.missing))
    return origin_of(message.origin), OriginRange(message.low, message.next, message.last_header_crc, gaps, missing)


def _pairs(edges: Sequence[int], low: int, following: int) -> tuple[tuple[int, int], ...]:
    """Return ranges, one after the other in [low, following); raises PeerLied if they are none."""
    if len(edges) % 2:
        raise PeerLied(f"a peer names ranges by {len(edges)} edges")
    pairs: list[tuple[int, int]] = []
    reached = low
    each = iter(edges)
    # Checked as they are paired: there may be a hundred thousand, and of those that are none the first is enough.
    for pair in zip(each, each, strict=True):
        if not reached <= pair[0] < pair[1] <= following:
            raise PeerLied(f"a peer says that {pair[0]} to {pair[1]} is not held in {low} to {following}")
        reached = pair[1]
        pairs.append(pair)
    return tuple(pairs)


def _news_out(others: Iterable[HolderNews]) -> list[log_v1.HolderNews]:
    return [
        log_v1.HolderNews(
            directory_id=news.directory_id,
            opened=news.opened,
            origins=[origin.data for origin in news.nexts],
            nexts=list(news.nexts.values()),
            not_held=[
                log_v1.RangesNotHeld(place=place, edges=[edge for each in not_held for edge in each])
                for place, origin in enumerate(news.nexts)
                if (not_held := news.not_held.get(origin))
            ],
        )
        for news in others
    ]


def _news_in(message: log_v1.HolderNews) -> HolderNews:
    if not len(message.not_held) <= len(message.origins) == len(message.nexts) <= _MAX_PARTS:
        raise PeerLied(
            f"a peer names {len(message.origins)} origins of a node and {len(message.nexts)} places, and says of "
            f"{len(message.not_held)} what is not held"
        )
    origins = [origin_of(data) for data in message.origins]
    not_held = {}
    for each in message.not_held:
        if each.place >= len(origins):
            raise PeerLied(f"a peer names what is not held at place {each.place} of {len(origins)}")
        not_held[origins[each.place]] = _pairs(each.edges, 0, message.nexts[each.place])
    nexts = dict(zip(origins, message.nexts, strict=True))
    return HolderNews(_directory_id(message.directory_id), message.opened, nexts, not_held)


def _directories_out(directories: Iterable[KnownDirectory]) -> list[log_v1.KnownDirectory]:
    return [
        log_v1.KnownDirectory(
            directory_id=each.directory_id, node_name=each.node_name, change=each.change, gone=each.is_gone
        )
        for each in directories
    ]


def _directory_in(message: log_v1.KnownDirectory) -> KnownDirectory:
    try:
        return directory_of(message.directory_id, message.node_name, message.change, message.gone)
    except ValueError as error:
        raise PeerLied(f"a peer names a directory: {error}") from None


def _want_in(message: log_v1.Want) -> Want:
    return Want(origin_of(message.origin), message.from_sequence)


def _ended_in(message: log_v1.Ended) -> Ended:
    # A number that is not known has no name.
    reason = EndReason.__members__.get(message.reason.name or "", EndReason.MISSING)
    return Ended(origin_of(message.origin), message.from_sequence, message.resumes_at or None, reason)


def origin_of(data: bytes) -> Origin:
    """Return the origin of a message; raises PeerLied if it is none."""
    try:
        return Origin.parse(data)
    except ValueError as error:
        raise PeerLied(f"a peer names an origin: {error}") from None


def _directory_id(data: bytes) -> bytes:
    if len(data) != DIRECTORY_ID_BYTES:
        raise PeerLied(f"a peer names a directory by {len(data)} bytes, not {DIRECTORY_ID_BYTES}")
    return data
