"""The messages of Serf, as attrs classes: what memberlist's user messages, and the user state of its push/pulls, hold.

Class, attribute and key say the same: `LTime` is `ltime`, `StatusLTimes` is `status_ltimes`. Lamport times are those of
one of three clocks: membership, events or queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from attrs import frozen

from proglog_trio.membership.wire.addresses import ADDRESS, ADDRESS_OR_NONE
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import NAME, U16, U32
from proglog_trio.membership.wire.msgpack_extent import SOME_ITEMS
from proglog_trio.membership.wire.msgpack_structs import (
    Boolean,
    Enumeration,
    Kind,
    Nested,
    Raw,
    Sequence,
    Table,
    Text,
    Unsigned,
    decode_object,
    decode_struct,
    encode_object,
    encode_struct,
    from_map,
    wire,
)
from proglog_trio.membership.wire.state import LTIME as _LTIME
from proglog_trio.membership.wire.state import SerfPushPull, decode_state, encode_state
from proglog_trio.steps import complete

MAX_FILTERS = 16
"""Of a query; `serf query` makes one of all its names, and one of each tag."""
MAX_FILTER_NAMES = 2048
"""In all filters of a query together: more than fit into any packet that agents send."""
QUERY_FLAG_ACK = 1
"""Each node that gets the query is to acknowledge it."""
QUERY_FLAG_NO_BROADCAST = 2
"""The query is not to be passed on."""
RESPONSE_FLAG_ACK = 1
"""The response is such an acknowledgement."""

_U8 = Unsigned(8)
_TEXT = Text()
_RAW = Raw()


class SerfMessageType(IntEnum):
    """The first byte of a Serf message."""

    LEAVE = 0
    JOIN = 1
    PUSH_PULL = 2
    USER_EVENT = 3
    QUERY = 4
    QUERY_RESPONSE = 5
    CONFLICT_RESPONSE = 6
    KEY_REQUEST = 7
    KEY_RESPONSE = 8
    RELAY = 9


BROADCAST_TYPES = frozenset(
    (SerfMessageType.LEAVE, SerfMessageType.JOIN, SerfMessageType.USER_EVENT, SerfMessageType.QUERY)
)
"""Those that are gossiped."""


class MemberStatus(IntEnum):
    """What Serf says of a member."""

    NONE = 0
    ALIVE = 1
    LEAVING = 2
    LEFT = 3
    FAILED = 4


_STATUS = Enumeration(MemberStatus)


@frozen
class Leave:
    """A node means to leave, or is made to; prune: and is to be forgotten."""

    ltime: int = wire("LTime", _LTIME)
    node: str = wire("Node", NAME)
    prune: bool = wire("Prune", Boolean())


@frozen
class Join:
    """A node has joined."""

    ltime: int = wire("LTime", _LTIME)
    node: str = wire("Node", NAME)


@frozen
class UserEvent:
    """An event that a user has fired; cc: of several with one name, the last may stand for all."""

    ltime: int = wire("LTime", _LTIME)
    name: str = wire("Name", _TEXT)
    payload: bytes = wire("Payload", _RAW)
    cc: bool = wire("CC", Boolean())


@frozen
class NodeFilter:
    """Restricts a query to some nodes."""

    nodes: tuple[str, ...] = ()


@frozen
class TagFilter:
    """Restricts a query to nodes that have a tag which matches a regular expression."""

    tag: str = wire("Tag", _TEXT)
    expr: str = wire("Expr", _TEXT)


@frozen
class UnknownFilter:
    """A filter of a newer version: a node that does not know it cannot say that it matches."""

    data: bytes


Filter = NodeFilter | TagFilter | UnknownFilter


class _FiltersKind(Kind):
    """The filters of a query: a list of byte strings, each a type and then msgpack."""

    _NODES = Sequence(NAME)
    zero = ()

    def decode(self, value: object) -> tuple[Filter, ...]:
        """Return the filters; how many there are is looked at before any of them is."""
        if type(value) is not list:
            raise DecodingError("is no list")
        if len(value) > MAX_FILTERS:
            raise DecodingError(f"has {len(value)} filters, more than {MAX_FILTERS}")
        filters = []
        names_left = MAX_FILTER_NAMES
        for index, element in enumerate(value):
            try:
                found = self._filter(b"" if element is None else _RAW.decode(element), names_left)
            except DecodingError as error:
                raise error.within(f"element {index}") from None
            if isinstance(found, NodeFilter):
                names_left -= len(found.nodes)
            filters.append(found)
        return tuple(filters)

    def _filter(self, data: bytes, names_left: int) -> Filter:
        if data[:1] == b"\0":
            names = decode_object(data, 1, names_left)[0]
            nodes: tuple[str, ...] = () if names is None else self._NODES.decode(names)  # type: ignore[assignment]  # of text
            return NodeFilter(nodes)
        if data[:1] == b"\1":
            return decode_struct(TagFilter, data, 1)[0]
        return UnknownFilter(data)

    def encode(self, value: tuple[Filter, ...]) -> list[bytes] | None:
        """Return a list of each filter's bytes; nil for none, as agents do."""
        if len(value) > MAX_FILTERS:
            raise ValueError(f"{len(value)} filters are more than {MAX_FILTERS}")
        return [self._encoded(each) for each in value] or None

    def _encoded(self, value: Filter) -> bytes:
        if isinstance(value, NodeFilter):
            return b"\0" + encode_object(self._NODES.encode(value.nodes))
        if isinstance(value, TagFilter):
            return b"\1" + encode_struct(value)
        return value.data


@frozen
class Query:
    """A question to all nodes that pass all filters; timeout: nanoseconds; answers go to addr and port."""

    ltime: int = wire("LTime", _LTIME)
    id: int = wire("ID", U32)
    addr: bytes = wire("Addr", ADDRESS_OR_NONE)
    port: int = wire("Port", U16)
    source_node: str = wire("SourceNode", NAME)
    filters: tuple[Filter, ...] = wire("Filters", _FiltersKind())
    flags: int = wire("Flags", U32)
    relay_factor: int = wire("RelayFactor", _U8)
    timeout: int = wire("Timeout", Unsigned(63))
    name: str = wire("Name", _TEXT)
    payload: bytes = wire("Payload", _RAW)


@frozen
class QueryResponse:
    """The answer to a query, or its acknowledgement."""

    ltime: int = wire("LTime", _LTIME)
    id: int = wire("ID", U32)
    from_node: str = wire("From", NAME)
    flags: int = wire("Flags", U32)
    payload: bytes = wire("Payload", _RAW)


@frozen
class Member:
    """A member as Serf describes it."""

    name: str = wire("Name", NAME)
    addr: bytes = wire("Addr", ADDRESS_OR_NONE)
    port: int = wire("Port", U16)
    tags: Mapping[str, str] = wire("Tags", Table(_TEXT))
    status: MemberStatus = wire("Status", _STATUS)  # noqa: RUF009 - declares, gives no value
    protocol_min: int = wire("ProtocolMin", _U8)
    protocol_max: int = wire("ProtocolMax", _U8)
    protocol_cur: int = wire("ProtocolCur", _U8)
    delegate_min: int = wire("DelegateMin", _U8)
    delegate_max: int = wire("DelegateMax", _U8)
    delegate_cur: int = wire("DelegateCur", _U8)


@frozen
class ConflictResponse:
    """Says which member a node knows under a contested name; None: none."""

    member: Member | None = None


@frozen
class KeyRequest:
    """Names the key that is to be installed, used or removed."""

    key: bytes = wire("Key", _RAW)


@frozen
class KeyResponse:
    """Says what became of a key request; the keys are base64 texts."""

    result: bool = wire("Result", Boolean())
    message: str = wire("Message", _TEXT)
    keys: tuple[str, ...] = wire("Keys", Sequence(_TEXT))
    primary_key: str = wire("PrimaryKey", _TEXT)


@frozen
class RelayAddress:
    """Where a relayed message is to go."""

    ip: bytes = wire("IP", ADDRESS)
    port: int = wire("Port", U16)
    zone: str = wire("Zone", _TEXT)


_RELAY_ADDRESS = Nested(RelayAddress, required=True)


@frozen
class RelayHeader:
    """What a relayed message begins with."""

    dest_addr: RelayAddress = wire("DestAddr", _RELAY_ADDRESS)  # noqa: RUF009 - declares, gives no value
    dest_name: str = wire("DestName", NAME)


@frozen
class Relay:
    """A Serf message, in its bytes, that the receiver is to pass on."""

    header: RelayHeader
    payload: bytes


SerfMessage = (
    Leave
    | Join
    | SerfPushPull
    | UserEvent
    | Query
    | QueryResponse
    | ConflictResponse
    | KeyRequest
    | KeyResponse
    | Relay
)

_Plain = Leave | Join | UserEvent | Query | QueryResponse | KeyRequest | KeyResponse
_CLASSES: dict[int, type[_Plain]] = {
    SerfMessageType.LEAVE: Leave,
    SerfMessageType.JOIN: Join,
    SerfMessageType.USER_EVENT: UserEvent,
    SerfMessageType.QUERY: Query,
    SerfMessageType.QUERY_RESPONSE: QueryResponse,
    SerfMessageType.KEY_REQUEST: KeyRequest,
    SerfMessageType.KEY_RESPONSE: KeyResponse,
}
_PREFIXES = {message: bytes((number,)) for number, message in _CLASSES.items()}


def encode_serf(message: SerfMessage) -> bytes:
    """Return the bytes of a Serf message.

    Raises:
        ValueError: the value of a field is out of its range.
    """
    if isinstance(message, ConflictResponse):
        member = message.member
        return bytes((SerfMessageType.CONFLICT_RESPONSE,)) + (b"\xc0" if member is None else encode_struct(member))
    if isinstance(message, Relay):
        return bytes((SerfMessageType.RELAY,)) + encode_struct(message.header) + message.payload
    if isinstance(message, SerfPushPull):
        return bytes(complete(encode_state(message)))
    return _PREFIXES[type(message)] + encode_struct(message)


def decode_serf(payload: bytes | bytearray) -> SerfMessage:
    """Return the Serf message that payload holds. Bytes after its body are ignored.

    Raises:
        DecodingError: it is none, or malformed.
    """
    if not payload:
        raise DecodingError("has no bytes", "Serf message")
    payload = bytes(payload)
    number = payload[0]
    try:
        kind = SerfMessageType(number)
    except ValueError:
        raise DecodingError(f"is of unknown type {number}", "Serf message") from None
    try:
        if kind is SerfMessageType.RELAY:
            header, end = decode_struct(RelayHeader, payload, 1)
            return Relay(header, payload[end:])
        if kind is SerfMessageType.CONFLICT_RESPONSE:
            value = decode_object(payload, 1, SOME_ITEMS)[0]
            return ConflictResponse(None if value is None else from_map(Member, value))
        if kind is SerfMessageType.PUSH_PULL:
            return complete(decode_state(payload))
        return decode_struct(_CLASSES[number], payload, 1, SOME_ITEMS)[0]
    except DecodingError as error:
        raise error.within(f"Serf {kind.name.lower()} message") from None
