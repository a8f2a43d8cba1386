"""What clients ask and are answered, as attrs classes: the bodies of the agent's RPC protocol.

Class, attribute and key say the same: `RequestAck` is `request_ack`. A request is a header and, where its command has
one, a body; an answer likewise. Source: the RPC page of Serf's documentation.

Requests are read in either form of msgpack, the old one, which has no type for byte strings, among them. Answers are
written as agents write them: text is text, byte strings are `bin`, and empty ones are nil.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import msgpack
from attrs import AttrsInstance, frozen

from proglog_trio.membership.wire.coordinates import Coordinate
from proglog_trio.membership.wire.msgpack_structs import (
    Boolean,
    Nested,
    Raw,
    Sequence,
    Table,
    Text,
    Unsigned,
    wire,
    wire_name,
)

_TEXT = Text()
_RAW = Raw()
_SEQUENCE_NUMBER = Unsigned(64)
_U16 = Unsigned(16)
_U8 = Unsigned(8)
_COUNT = Unsigned(31)
LONGEST_COMMAND = 64


@frozen
class RequestHeader:
    """What every request begins with; seq: chosen by the client, and repeated in each answer."""

    command: str = wire("Command", Text(LONGEST_COMMAND))
    seq: int = wire("Seq", _SEQUENCE_NUMBER)


@frozen
class ResponseHeader:
    """What every answer begins with; error: empty where there is none."""

    error: str = wire("Error", _TEXT)
    seq: int = wire("Seq", _SEQUENCE_NUMBER)


# -- requests ----------------------------------------------------------------------------------------------------------


@frozen
class Handshake:
    """The first request: which version of the protocol follows."""

    version: int = wire("Version", Unsigned(31))


@frozen(repr=False)
class Auth:
    """What a client has to know where the agent has a key; shown nowhere."""

    auth_key: str = wire("AuthKey", _TEXT)


@frozen
class FireEvent:
    """Fire a user event."""

    name: str = wire("Name", _TEXT)
    payload: bytes = wire("Payload", _RAW)
    coalesce: bool = wire("Coalesce", Boolean())


@frozen
class ForceLeave:
    """Let a failed member count as left; prune: forget it at once."""

    node: str = wire("Node", _TEXT)
    prune: bool = wire("Prune", Boolean())


@frozen
class JoinMembers:
    """Join through these members; replay: deliver user events that were fired before."""

    existing: tuple[str, ...] = wire("Existing", Sequence(_TEXT))
    replay: bool = wire("Replay", Boolean())


@frozen
class MembersFiltered:
    """List the members that match all of these regular expressions; an empty one matches all."""

    tags: Mapping[str, str] = wire("Tags", Table(_TEXT))
    status: str = wire("Status", _TEXT)
    name: str = wire("Name", _TEXT)


@frozen
class ChangeTags:
    """Set tags of the agent, and delete others."""

    tags: Mapping[str, str] = wire("Tags", Table(_TEXT))
    delete_tags: tuple[str, ...] = wire("DeleteTags", Sequence(_TEXT))


@frozen
class StreamEvents:
    """Send what happens from now on; type: a filter such as `member-join,user:deploy`, or `*`."""

    type: str = wire("Type", _TEXT)


@frozen
class MonitorLog:
    """Send what is logged, of this level at least."""

    log_level: str = wire("LogLevel", _TEXT)


@frozen
class Stop:
    """Send no more of what the request with this number asked for."""

    stop: int = wire("Stop", _SEQUENCE_NUMBER)


@frozen
class AskQuery:
    """Ask members a question; timeout: nanoseconds, 0 for what gossip needs."""

    filter_nodes: tuple[str, ...] = wire("FilterNodes", Sequence(_TEXT))
    filter_tags: Mapping[str, str] = wire("FilterTags", Table(_TEXT))
    request_ack: bool = wire("RequestAck", Boolean())
    relay_factor: int = wire("RelayFactor", _U8)
    timeout: int = wire("Timeout", Unsigned(63))
    name: str = wire("Name", _TEXT)
    payload: bytes = wire("Payload", _RAW)


@frozen
class Respond:
    """Answer the query that was sent to this client under an id."""

    id: int = wire("ID", _SEQUENCE_NUMBER)
    payload: bytes = wire("Payload", _RAW)


@frozen(repr=False)
class ChangeKey:
    """A gossip key in base64, which is to be installed, used or removed; shown nowhere."""

    key: str = wire("Key", _TEXT)


@frozen
class GetCoordinate:
    """Ask where a member is in the network."""

    node: str = wire("Node", _TEXT)


COMMANDS: Mapping[str, type[AttrsInstance] | None] = {
    "handshake": Handshake,
    "auth": Auth,
    "event": FireEvent,
    "force-leave": ForceLeave,
    "join": JoinMembers,
    "members": None,
    "members-filtered": MembersFiltered,
    "tags": ChangeTags,
    "stream": StreamEvents,
    "monitor": MonitorLog,
    "stop": Stop,
    "leave": None,
    "query": AskQuery,
    "respond": Respond,
    "install-key": ChangeKey,
    "use-key": ChangeKey,
    "remove-key": ChangeKey,
    "list-keys": None,
    "stats": None,
    "get-coordinate": GetCoordinate,
}
"""What each command has for a body; None: nothing."""


# -- answers -----------------------------------------------------------------------------------------------------------


@frozen
class MemberRecord:
    """A member, as agents show it; addr: 4 or 16 bytes, as it says itself."""

    name: str = wire("Name", _TEXT)
    addr: bytes = wire("Addr", _RAW)
    port: int = wire("Port", _U16)
    tags: Mapping[str, str] = wire("Tags", Table(_TEXT))
    status: str = wire("Status", _TEXT)
    protocol_min: int = wire("ProtocolMin", _U8)
    protocol_max: int = wire("ProtocolMax", _U8)
    protocol_cur: int = wire("ProtocolCur", _U8)
    delegate_min: int = wire("DelegateMin", _U8)
    delegate_max: int = wire("DelegateMax", _U8)
    delegate_cur: int = wire("DelegateCur", _U8)


@frozen
class Joined:
    """How many of the members that were named answered."""

    num: int = wire("Num", _COUNT)


@frozen
class KeyReport:
    """What the members said to a key operation; keys: how many have each, by its base64 text."""

    messages: Mapping[str, str] = wire("Messages", Table(_TEXT))
    keys: Mapping[str, int] = wire("Keys", Table(_COUNT))
    primary_keys: Mapping[str, int] = wire("PrimaryKeys", Table(_COUNT))
    num_nodes: int = wire("NumNodes", _COUNT)
    num_err: int = wire("NumErr", _COUNT)
    num_resp: int = wire("NumResp", _COUNT)


@frozen
class CoordinateReport:
    """Where a member is; ok: whether that is known."""

    coord: Coordinate = wire("Coord", Nested(Coordinate))  # noqa: RUF009 - declares, gives no value
    ok: bool = wire("Ok", Boolean())


@frozen
class UserEventRecord:
    """A user event, sent to a stream; event: `user`."""

    event: str = wire("Event", _TEXT)
    ltime: int = wire("LTime", _SEQUENCE_NUMBER)
    name: str = wire("Name", _TEXT)
    payload: bytes = wire("Payload", _RAW)
    coalesce: bool = wire("Coalesce", Boolean())


@frozen
class QueryEventRecord:
    """A query of a member, sent to a stream; event: `query`, id: to answer it by."""

    event: str = wire("Event", _TEXT)
    id: int = wire("ID", _SEQUENCE_NUMBER)
    ltime: int = wire("LTime", _SEQUENCE_NUMBER)
    name: str = wire("Name", _TEXT)
    payload: bytes = wire("Payload", _RAW)


@frozen
class MemberEventRecord:
    """What happened to members, sent to a stream; event: such as `member-join`."""

    event: str = wire("Event", _TEXT)
    members: tuple[MemberRecord, ...] = wire("Members", Sequence(Nested(MemberRecord)))


@frozen
class LogRecord:
    """A line of the log, sent to a monitor."""

    log: str = wire("Log", _TEXT)


@frozen
class QueryRecord:
    """What came of a query that the client asked; type: `ack`, `response` or, once and last, `done`."""

    type: str = wire("Type", _TEXT)
    from_node: str = wire("From", _TEXT)
    payload: bytes = wire("Payload", _RAW)


def encoded_answer(seq: int, body: AttrsInstance | bytes | None = None, *, error: str = "") -> bytes:
    """Return the bytes of an answer.

    Args:
        seq: of the request.
        body: what follows the header, if anything does; bytes are msgpack already.
        error: why the request is refused.
    """
    header = encoded(ResponseHeader(error=error, seq=seq))
    if body is None:
        return header
    return header + (body if isinstance(body, bytes) else encoded(body))


def encoded(value: object) -> bytes:
    """Return the msgpack of a body, or of a part of one; text may have surrogates for what was no UTF-8."""
    packed: bytes = msgpack.packb(_plain(value), use_bin_type=True, unicode_errors="surrogateescape")
    return packed


def _plain(value: object) -> object:
    if isinstance(value, bytes | tuple):
        # Go's empty slices are nil.
        if not value:
            return None
        return value if isinstance(value, bytes) else [_plain(element) for element in value]
    if isinstance(value, Mapping):
        return {key: _plain(element) for key, element in value.items()}
    kind = type(value)
    if attrs.has(kind):
        return {wire_name(field): _plain(getattr(value, field.name)) for field in attrs.fields(kind)}
    return value
