"""Serf's part of a push/pull: everything that Serf on one side knows, which may be large and so is read in steps.

What there may be is checked where a count stands, before anything of that size is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgpack
from attrs import evolve, frozen

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import MAX_NAME_BYTES
from proglog_trio.membership.wire.msgpack_extent import FEW_ITEMS, SOME_ITEMS, Extent, unpack
from proglog_trio.membership.wire.msgpack_structs import (
    Kind,
    Nested,
    Raw,
    Sequence,
    Table,
    Text,
    Unsigned,
    encode_object,
    encode_struct,
    from_map,
    wire,
)
from proglog_trio.steps import Steps, joined

STATE_PREFIX = b"\x02"
"""The type of Serf's message."""
MAX_STATE_MEMBERS = 16_384
"""Members that a state has times of, or says to have left: more than a node keeps, those who are gone included."""
LARGEST_STATE_OBJECT_BYTES = 1024 * 1024
"""Of one field, one event, or some names: agents' events have 9 KiB at the most."""
MAX_STATE_TIMES = 4096
"""Lamport times of which a state has events; agents remember 512."""
MAX_STATE_EVENTS = 32_768
"""Events in a state. Agents remember those of 512 Lamport times, at each of which there may be several."""
_NAME = Text(MAX_NAME_BYTES)
_AT_ONCE = 128
"""Entries in one step, about a microsecond each."""
_EVENTS_AT_ONCE = 32
"""The same for events, of which each is a struct."""

LTIME = Unsigned(64)


@frozen
class Event:
    """What a user event says, without its time."""

    name: str = wire("Name", Text())
    payload: bytes = wire("Payload", Raw())


@frozen
class EventsAtTime:
    """The events of one Lamport time."""

    ltime: int = wire("LTime", LTIME)
    events: tuple[Event, ...] = wire("Events", Sequence(Nested(Event)))


_TIMES, _NAMES = Table(LTIME), Sequence(Text())


@frozen
class SerfPushPull:
    """Everything that Serf on one side knows: its clocks, the members' times, recent events (None: a place without).

    Names may be longer than any member's here (see is_name): a node that merges such a state passes those over.
    """

    ltime: int = wire("LTime", LTIME)
    status_ltimes: Mapping[str, int] = wire("StatusLTimes", _TIMES)
    left_members: tuple[str, ...] = wire("LeftMembers", _NAMES)
    event_ltime: int = wire("EventLTime", LTIME)
    events: tuple[EventsAtTime | None, ...] = wire("Events", Sequence(Nested(EventsAtTime), holes=True))
    query_ltime: int = wire("QueryLTime", LTIME)


def is_name(name: str) -> bool:
    """Tell whether a member may have a name."""
    return len(name.encode("utf-8", "surrogateescape")) <= MAX_NAME_BYTES


class _Cursor:
    """Reads msgpack from the front."""

    def __init__(self, data: bytes | bytearray, place: int) -> None:
        self._data = data
        self._place = place

    def header(self, short: int, long: int, what: str) -> int | None:
        """Return the count that a list or a map begins with, or None for nil.

        Args:
            short: the first byte of the form with up to 15 elements.
            long: the first byte of the form with a count of 16 bits.
            what: there has to be.
        """
        first = self._data[self._place] if self._place < len(self._data) else 0xC1
        if first == 0xC0:
            self._place += 1
            return None
        size = {long: 2, long + 1: 4}.get(first, 0)
        begin, self._place = self._place + 1, self._place + 1 + size
        if first & 0xF0 == short:
            return first & 0x0F
        if not size or self._place > len(self._data):
            raise DecodingError(f"is no {what}, or cut off at byte {begin - 1}")
        return int.from_bytes(self._data[begin : self._place], "big")

    def map_header(self) -> int | None:
        """Return the entries of a map."""
        return self.header(0x80, 0xDE, "map")

    def list_header(self) -> int | None:
        """Return the elements of a list."""
        return self.header(0x90, 0xDC, "list")

    def objects(self, count: int, before: bytes, max_items: int) -> Any:  # noqa: ANN401 - whatever was sent
        """Return several objects, or one, unpacked together behind what makes one of them."""
        extent = Extent(min(len(self._data) - self._place, LARGEST_STATE_OBJECT_BYTES), max_items, count)
        if not extent.advance(self._data, self._place):
            raise DecodingError(f"is cut off after {len(self._data)} bytes")
        begin, self._place = self._place, self._place + extent.length
        if not before:
            return unpack(self._data, begin, extent.length)
        return unpack(before + bytes(self._data[begin : self._place]), 0, len(before) + extent.length)


def decode_state(payload: bytes | bytearray) -> Steps[SerfPushPull]:
    """Return, in steps, the state that payload holds after its type.

    Raises:
        DecodingError: it is malformed, or has more than there may be.
    """
    cursor = _Cursor(payload, len(STATE_PREFIX))
    fields = cursor.map_header()
    if fields is None:
        raise DecodingError("is nil, no map")
    if fields > FEW_ITEMS:
        raise DecodingError(f"has {fields} fields, more than {FEW_ITEMS}")
    state = SerfPushPull()
    for _ in range(fields):
        key = cursor.objects(1, b"", FEW_ITEMS)
        name = key.decode("utf-8", "replace") if isinstance(key, bytes) else "a key that is no text"
        try:
            state = yield from _field(cursor, name, state)
        except DecodingError as error:
            raise error.within(name[:40]) from None
        yield
    return state


def _field(cursor: _Cursor, name: str, state: SerfPushPull) -> Steps[SerfPushPull]:
    """Return the state with one field read; one that is not known is passed over."""
    match name:
        case "LTime":
            return evolve(state, ltime=_one(cursor, LTIME))
        case "EventLTime":
            return evolve(state, event_ltime=_one(cursor, LTIME))
        case "QueryLTime":
            return evolve(state, query_ltime=_one(cursor, LTIME))
        case "StatusLTimes":
            return evolve(state, status_ltimes=(yield from _times(cursor)))
        case "LeftMembers":
            return evolve(state, left_members=tuple((yield from _names(cursor))))
        case "Events":
            return evolve(state, events=tuple((yield from _events(cursor))))
    cursor.objects(1, b"", SOME_ITEMS)
    return state


def _one(cursor: _Cursor, kind: Kind) -> Any:  # noqa: ANN401 - each kind has its own type
    value = cursor.objects(1, b"", FEW_ITEMS)
    return kind.zero if value is None else kind.decode(value)


def _pieces(count: int | None, most: int, what: str) -> Iterable[int]:
    """Return how many entries to read at a time; raises if there are more than there may be."""
    left = count or 0
    if left > most:
        raise DecodingError(f"has {left} {what}, more than {most}")
    return (min(_AT_ONCE, left - read) for read in range(0, left, _AT_ONCE))


def _times(cursor: _Cursor) -> Steps[dict[str, int]]:
    times: dict[str, int] = {}
    for count in _pieces(cursor.map_header(), MAX_STATE_MEMBERS, "members"):
        times |= _TIMES.decode(cursor.objects(2 * count, b"\xde" + count.to_bytes(2, "big"), FEW_ITEMS))  # type: ignore[arg-type]  # of text to times
        yield
    return times


def _names(cursor: _Cursor) -> Steps[list[str]]:
    names: list[str] = []
    for count in _pieces(cursor.list_header(), MAX_STATE_MEMBERS, "members"):
        names += _NAMES.decode(cursor.objects(count, b"\xdc" + count.to_bytes(2, "big"), FEW_ITEMS))  # type: ignore[arg-type]  # of text
        yield
    return names


def _events(cursor: _Cursor) -> Steps[list[EventsAtTime | None]]:
    found: list[EventsAtTime | None] = []
    room = MAX_STATE_EVENTS
    for count in _pieces(cursor.list_header(), MAX_STATE_TIMES, "times of events"):
        for _ in range(count):
            try:
                at_time = yield from _events_at_time(cursor, room)
            except DecodingError as error:
                raise error.within(f"element {len(found)}") from None
            found.append(at_time)
            if at_time is not None:
                room -= len(at_time.events)
                yield
        yield
    return found


def _events_at_time(cursor: _Cursor, room: int) -> Steps[EventsAtTime | None]:
    """Return the events of one time, of which there may be as many as there is room for."""
    fields = cursor.map_header()
    if fields is None:
        return None
    if fields > FEW_ITEMS:
        raise DecodingError(f"has {fields} fields, more than {FEW_ITEMS}")
    ltime, events = 0, list[Event]()
    for _ in range(fields):
        match cursor.objects(1, b"", FEW_ITEMS):
            case b"LTime":
                ltime = _one(cursor, LTIME)
            case b"Events":
                events = yield from _events_listed(cursor, room)
            case _:
                cursor.objects(1, b"", FEW_ITEMS)
    return EventsAtTime(ltime=ltime, events=tuple(events))


def _events_listed(cursor: _Cursor, room: int) -> Steps[list[Event]]:
    events: list[Event] = []
    for count in _pieces(cursor.list_header(), room, "events"):
        for _ in range(count):
            value = cursor.objects(1, b"", FEW_ITEMS)
            try:
                events.append(Event() if value is None else from_map(Event, value))
            except DecodingError as error:
                raise error.within("Events", f"element {len(events)}") from None
            if len(events) % _EVENTS_AT_ONCE == 0:
                yield
    return events


def encode_state(state: SerfPushPull) -> Steps[bytearray]:
    """Return, in steps, the bytes of a state, its type before it; members stand in the order that they have.

    Raises:
        ValueError: the value of a field is out of its range.
    """
    packer = msgpack.Packer(use_bin_type=False)
    parts = [STATE_PREFIX, packer.pack_map_header(6)]
    parts += [encode_object(b"EventLTime"), encode_object(LTIME.encode(state.event_ltime))]
    parts += [encode_object(b"Events"), packer.pack_array_header(len(state.events))]
    for events in state.events:
        if events is None:
            parts.append(encode_object(None))
            continue
        parts += [packer.pack_map_header(2), encode_object(b"Events"), packer.pack_array_header(len(events.events))]
        for start in range(0, len(events.events), _EVENTS_AT_ONCE):
            parts.append(b"".join(map(encode_struct, events.events[start : start + _EVENTS_AT_ONCE])))
            yield
        parts += [encode_object(b"LTime"), encode_object(LTIME.encode(events.ltime))]
    parts += [encode_object(b"LTime"), encode_object(LTIME.encode(state.ltime))]
    parts += [encode_object(b"LeftMembers"), packer.pack_array_header(len(state.left_members))]
    for start in range(0, len(state.left_members), _AT_ONCE):
        names = _NAMES.encode(state.left_members[start : start + _AT_ONCE])
        parts.append(b"".join(map(encode_object, names)))
        yield
    parts += [encode_object(b"QueryLTime"), encode_object(LTIME.encode(state.query_ltime))]
    parts += [encode_object(b"StatusLTimes"), packer.pack_map_header(len(state.status_ltimes))]
    times = list(state.status_ltimes.items())
    for start in range(0, len(times), _AT_ONCE):
        parts.append(
            b"".join(
                encode_object(_NAME.encode(name)) + encode_object(LTIME.encode(time))
                for name, time in times[start : start + _AT_ONCE]
            )
        )
        yield
    return (yield from joined(parts))
