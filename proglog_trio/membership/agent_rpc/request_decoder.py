"""Requests out of the bytes of a connection, as they arrive."""

from __future__ import annotations

from attrs import AttrsInstance, define, field, frozen

from proglog_trio.membership.agent_rpc.messages import COMMANDS, RequestHeader
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.msgpack_extent import SOME_ITEMS, Extent, unpack
from proglog_trio.membership.wire.msgpack_structs import from_map

MAX_HEADER_BYTES = 1024
MAX_BODY_BYTES = 64 * 1024
"""Names and payload of the largest query together."""
SECRET_COMMANDS = frozenset({"auth", "install-key", "use-key", "remove-key"})
"""Nothing of what their bodies hold is told in an error."""


@frozen
class Request:
    """What a client asks.

    Attributes:
        command: one of COMMANDS, or what the client sent instead.
        seq: the client's number for it.
        body: what the command has for one; None: nothing.
    """

    command: str
    seq: int
    body: AttrsInstance | None = None


class BodyMalformed(DecodingError):
    """The body of a request is malformed, and what follows cannot be told from it.

    Attributes:
        seq: the client's number for the request.
    """

    seq: int = 0


@define(eq=False)
class RequestDecoder:
    """Cuts requests out of what arrives; see `Request`.

    What is held never exceeds a request of the largest size and one piece: no object is taken in that is larger, and a
    length beyond the bound is refused when it is read.
    """

    _data: bytearray = field(factory=bytearray)
    _start: int = 0
    # Of the object that is being read.
    _extent: Extent = field(factory=lambda: Extent(MAX_HEADER_BYTES))
    # Of the request whose body is being read.
    _header: RequestHeader | None = None

    def feed(self, data: bytes | bytearray) -> None:
        """Take in what has arrived; to be called when next has returned None."""
        del self._data[: self._start]
        self._start = 0
        self._data += data

    @property
    def is_amid(self) -> bool:
        """Whether a request has begun and is not whole."""
        return self._header is not None or len(self._data) > self._start

    def next(self) -> Request | None:
        """Return the next request that is there whole.

        A request with an unknown command is returned as if it had no body, though it may have one: nothing can be read
        after it.

        Raises:
            BodyMalformed: the body of a request is malformed.
            DecodingError: what arrived is no request.
        """
        if self._header is None:
            try:
                if not self._extent.advance(self._data, self._start):
                    return None
                header = from_map(RequestHeader, self._take())
            except DecodingError as error:
                raise error.within("request") from None
            if COMMANDS.get(header.command) is None:
                return Request(header.command, header.seq)
            self._header = header
            self._extent = Extent(MAX_BODY_BYTES, SOME_ITEMS)
        return self._with_body(self._header)

    def _with_body(self, header: RequestHeader) -> Request | None:
        kind = COMMANDS[header.command]
        assert kind is not None  # noqa: S101 - for the type; a header without a body is never kept
        try:
            if not self._extent.advance(self._data, self._start):
                return None
            value = self._take()
            body = kind() if value is None else from_map(kind, value)
        except DecodingError as error:
            secret = "is malformed" if header.command in SECRET_COMMANDS else None
            malformed = BodyMalformed(
                secret or error.what, f"body of {header.command}", *(() if secret else error.where)
            )
            malformed.seq = header.seq
            raise malformed from None
        self._header = None
        return Request(header.command, header.seq, body)

    def _take(self) -> object:
        length = self._extent.length
        value: object = unpack(self._data, self._start, length)
        self._start += length
        self._extent = Extent(MAX_HEADER_BYTES)
        return value
