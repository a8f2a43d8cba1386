"""How grpclib reads and writes the messages of this package, on both sides."""

from __future__ import annotations

from typing import Any

import betterproto2
from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.messages.protobuf import MessageTooLong, WireError, encode_message, read_message_steps
from proglog_trio.steps import Steps, complete

_LONGER = {log_v1.PullRequest: 128 * 1024, log_v1.PullResponse: 128 * 1024}
"""Messages whose bound is at least this: all gaps of one origin are said at once, and may be thousands."""

_TAKEN_APART = {log_v1.ConsumeBatchesResponse: ("frames",)}
"""Byte strings that are read as views of their message where they are long: their reader copies what it keeps, and a
megabyte would be copied twice."""


class MessageCodec(CodecBase):
    """Generated messages and those of protobuf's own classes, read with bounds (see protobuf.py).

    Args:
        max_rest_bytes: a message with more bytes than these beside its long values is refused, see LONG_BYTES.
    """

    __content_subtype__ = "proto"

    def __init__(self, max_rest_bytes: int) -> None:
        self._max_rest_bytes = max_rest_bytes

    def encode(self, message: Any, message_type: Any) -> bytes:  # noqa: ANN401 - grpclib's signature
        """Return a message's bytes; raises TypeError for one of another type."""
        if not isinstance(message, message_type):
            raise TypeError(f"a message of type {type(message).__name__} where {message_type.__name__} is expected")
        if isinstance(message, betterproto2.Message):
            return encode_message(message)
        encoded: bytes = message.SerializeToString()
        return encoded

    def decode(self, data: bytes, message_type: Any) -> Any:  # noqa: ANN401 - grpclib's signature
        """Return the message of these bytes.

        Raises:
            GRPCError: they are none (INTERNAL, see grpc/doc/statuscodes.md), or it is too long (RESOURCE_EXHAUSTED).
        """
        if issubclass(message_type, betterproto2.Message):
            return complete(self.decode_steps(data, message_type))
        if len(data) > self._max_rest_bytes:
            # grpclib's own services read all at once, and have no long values; records that are long are read in steps.
            raise _refusal(data, message_type, MessageTooLong(self._max_rest_bytes))
        # As decode_steps does, by a shorter way: there is one of these for every record.
        try:
            return message_type.FromString(data)
        except DecodeError as error:
            raise _refusal(data, message_type, error) from None

    def decode_steps(self, data: bytes, message_type: Any) -> Steps[Any]:  # noqa: ANN401 - as decode
        """Do as decode, in steps."""
        max_rest_bytes = max(self._max_rest_bytes, _LONGER.get(message_type, 0))
        try:
            views = _TAKEN_APART.get(message_type, ())
            return (yield from read_message_steps(message_type, data, max_rest_bytes, views=views))
        except WireError as error:
            raise _refusal(data, message_type, error) from None


def _refusal(data: bytes, message_type: Any, error: Exception) -> GRPCError:  # noqa: ANN401 - as decode
    if isinstance(error, MessageTooLong):
        return GRPCError(Status.RESOURCE_EXHAUSTED, f"a {message_type.__name__} of {len(data)} bytes {error}")
    return GRPCError(Status.INTERNAL, f"{len(data)} bytes are no {message_type.__name__}: {error}")
