"""The messages of HashiCorp memberlist, as attrs classes.

Class, attribute and key say the same: `SeqNo` is `seq_no`, `SourceAddr` is `source_addr`. Addresses are 4 or 16 raw
bytes (`addresses.py` turns them to text and back). A `user` message holds one of Serf's (`serf.py`).

What one message says about another member, such as an alive message with an empty name, is for the protocol to judge.
"""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

from proglog_trio.membership.wire.addresses import ADDRESS, ADDRESS_OR_NONE
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.msgpack_structs import (
    Boolean,
    Enumeration,
    Raw,
    Text,
    Unsigned,
    decode_struct,
    encode_struct,
    wire,
)

MAX_META_BYTES = 512
MAX_NAME_BYTES = 512
"""Agents take names of up to 128 bytes; a longer name than this would leave no room in a packet."""
DEFAULT_VSN = bytes((1, 5, 2, 2, 5, 4))
"""pmin, pmax, pcur, dmin, dmax, dcur: the range and the version spoken, of memberlist's protocol and of Serf's."""

U16 = Unsigned(16)
U32 = Unsigned(32)
NAME = Text(MAX_NAME_BYTES)
_META = Raw(MAX_META_BYTES)
_VSN = Raw(lengths=(6,))


class MessageType(IntEnum):
    """The first byte of a message, or of a layer around messages."""

    PING = 0
    INDIRECT_PING = 1
    ACK_RESP = 2
    SUSPECT = 3
    ALIVE = 4
    DEAD = 5
    PUSH_PULL = 6
    COMPOUND = 7
    USER = 8
    COMPRESS = 9
    ENCRYPT = 10
    NACK_RESP = 11
    HAS_CRC = 12
    ERR = 13
    HAS_LABEL = 244


BROADCAST_TYPES = frozenset((MessageType.SUSPECT, MessageType.ALIVE, MessageType.DEAD))
"""Those that are gossiped. User messages are too, but their types are Serf's."""


class NodeStateType(IntEnum):
    """What a push/pull says of a node."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


_STATE = Enumeration(NodeStateType)


@frozen
class Ping:
    """Asks whether a node is there; an empty name stands for any. Without a source, the sender is answered."""

    seq_no: int = wire("SeqNo", U32)
    node: str = wire("Node", NAME)
    source_addr: bytes = wire("SourceAddr", ADDRESS_OR_NONE, omit_zero=True)
    source_port: int = wire("SourcePort", U16, omit_zero=True)
    source_node: str = wire("SourceNode", NAME, omit_zero=True)


@frozen
class IndirectPing:
    """Asks the receiver to ping target for the sender; with nack, to say so when no ack came."""

    seq_no: int = wire("SeqNo", U32)
    target: bytes = wire("Target", ADDRESS)
    port: int = wire("Port", U16)
    node: str = wire("Node", NAME)
    nack: bool = wire("Nack", Boolean())
    source_addr: bytes = wire("SourceAddr", ADDRESS_OR_NONE, omit_zero=True)
    source_port: int = wire("SourcePort", U16, omit_zero=True)
    source_node: str = wire("SourceNode", NAME, omit_zero=True)


@frozen
class Ack:
    """Answers a ping; Serf's payload is a coordinate, see coordinates.py."""

    seq_no: int = wire("SeqNo", U32)
    payload: bytes = wire("Payload", Raw())


@frozen
class Nack:
    """Says that the target of an indirect ping has not answered."""

    seq_no: int = wire("SeqNo", U32)


@frozen
class Suspect:
    """Says that from_node could not reach a node."""

    incarnation: int = wire("Incarnation", U32)
    node: str = wire("Node", NAME)
    from_node: str = wire("From", NAME)


@frozen
class Alive:
    """Says where a node is, and what it says of itself (meta: at most 512 bytes, see serf.py for Serf's tags in it)."""

    incarnation: int = wire("Incarnation", U32)
    node: str = wire("Node", NAME)
    addr: bytes = wire("Addr", ADDRESS)
    port: int = wire("Port", U16)
    meta: bytes = wire("Meta", _META)
    vsn: bytes = wire("Vsn", _VSN)


@frozen
class Dead:
    """Says that a node is gone: failed, or left if it says so of itself."""

    incarnation: int = wire("Incarnation", U32)
    node: str = wire("Node", NAME)
    from_node: str = wire("From", NAME)


@frozen
class UserMessage:
    """A message of the layer above."""

    payload: bytes


Message = Ping | IndirectPing | Ack | Nack | Suspect | Alive | Dead | UserMessage
"""What a packet carries."""

MESSAGE_CLASSES: dict[int, type[Ping | IndirectPing | Ack | Nack | Suspect | Alive | Dead]] = {
    MessageType.PING: Ping,
    MessageType.INDIRECT_PING: IndirectPing,
    MessageType.ACK_RESP: Ack,
    MessageType.NACK_RESP: Nack,
    MessageType.SUSPECT: Suspect,
    MessageType.ALIVE: Alive,
    MessageType.DEAD: Dead,
}
_PREFIXES = {message: bytes((number,)) for number, message in MESSAGE_CLASSES.items()}
_USER_PREFIX = bytes((MessageType.USER,))


@frozen
class PushPullHeader:
    """What a push/pull begins with: the node states and the bytes of user state that follow."""

    nodes: int = wire("Nodes", Unsigned(63))
    user_state_len: int = wire("UserStateLen", Unsigned(63))
    join: bool = wire("Join", Boolean())


@frozen
class NodeState:
    """What one side of a push/pull knows of a node.

    An address of no bytes is let through, so that one such node does not hide all others; it cannot be a member.
    """

    name: str = wire("Name", NAME)
    addr: bytes = wire("Addr", ADDRESS_OR_NONE)
    port: int = wire("Port", U16)
    meta: bytes = wire("Meta", _META)
    incarnation: int = wire("Incarnation", U32)
    state: NodeStateType = wire("State", _STATE)  # noqa: RUF009 - declares, gives no value
    vsn: bytes = wire("Vsn", _VSN)


@frozen
class PushPull:
    """Everything that one side knows, on a stream.

    Attributes:
        nodes: the members.
        user_state: of the layer above.
        join: whether the sender is no member yet.
        refused: how many members more there were in what came, of which something is out of its range.
    """

    nodes: tuple[NodeState, ...] = ()
    user_state: bytes | bytearray = b""
    join: bool = False
    refused: int = 0


@frozen
class UserMessageHeader:
    """What a user message on a stream begins with: the bytes that follow."""

    user_msg_len: int = wire("UserMsgLen", Unsigned(63))


@frozen
class ErrorMessage:
    """Says, on a stream, why what was asked is not answered."""

    error: str = wire("Error", Text())


def type_name(number: int) -> str:
    """Return the name of a message type for people."""
    try:
        return f"{MessageType(number).name.lower()} message"
    except ValueError:
        return f"message of unknown type {number}"


def encode_message(message: Message) -> bytes:
    """Return the bytes of one message, as they stand in a packet.

    Raises:
        ValueError: the value of a field is out of its range.
    """
    if isinstance(message, UserMessage):
        return _USER_PREFIX + message.payload
    return _PREFIXES[type(message)] + encode_struct(message)


def decode_message(data: bytes) -> Message:
    """Return the message that data, a packet without its layers or a part of a compound one, holds.

    Bytes after the message's body are ignored, as other members do.

    Raises:
        DecodingError: it is none of the messages that packets carry, or malformed.
    """
    if not data:
        raise DecodingError("has no bytes")
    number = data[0]
    if number == MessageType.USER:
        return UserMessage(data[1:])
    message = MESSAGE_CLASSES.get(number)
    if message is None:
        raise DecodingError("is none that a packet can carry here", type_name(number))
    try:
        return decode_struct(message, data, 1)[0]
    except DecodingError as error:
        raise error.within(type_name(number)) from None
