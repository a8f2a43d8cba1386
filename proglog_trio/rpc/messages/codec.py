"""How grpclib reads and writes the messages of this package, on both sides."""

from __future__ import annotations

from typing import Any

import betterproto2
from google.protobuf.message import DecodeError
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

from proglog_trio.rpc.messages.protobuf import TooManyFields, WireError, read_message_steps
from proglog_trio.steps import Steps, complete


class MessageCodec(CodecBase):
    """Generated messages, read with bounds (see wire.py), and those of protobuf's own classes.

    Args:
        max_fields: a generated message with more fields than these, those of its parts included, is refused.
    """

    __content_subtype__ = "proto"

    def __init__(self, max_fields: int) -> None:
        self._most_fields = max_fields

    def encode(self, message: Any, message_type: Any) -> bytes:  # noqa: ANN401 - grpclib's signature
        """Return a message's bytes; raises TypeError for one of another type."""
        if not isinstance(message, message_type):
            raise TypeError(f"a message of type {type(message).__name__} where {message_type.__name__} is expected")
        encoded: bytes = message.SerializeToString()
        return encoded

    def decode(self, data: bytes, message_type: Any) -> Any:  # noqa: ANN401 - grpclib's signature
        """Return the message of these bytes.

        Raises:
            GRPCError: they are none (INTERNAL, see grpc/doc/statuscodes.md), or it has too many fields
                (RESOURCE_EXHAUSTED).
        """
        if issubclass(message_type, betterproto2.Message):
            return complete(self.decode_steps(data, message_type))
        try:
            return message_type.FromString(data)
        except DecodeError:
            raise GRPCError(Status.INTERNAL, f"{len(data)} bytes are no {message_type.__name__}") from None

    def decode_steps(self, data: bytes, message_type: Any) -> Steps[Any]:  # noqa: ANN401 - as decode
        """Do as decode, in steps."""
        if not issubclass(message_type, betterproto2.Message):
            return self.decode(data, message_type)
        name = message_type.__name__
        try:
            return (yield from read_message_steps(message_type, data, self._most_fields))
        except TooManyFields:
            what = f"a {name} of {len(data)} bytes has more than {self._most_fields} fields"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, what) from None
        except WireError as error:
            raise GRPCError(Status.INTERNAL, f"{len(data)} bytes are no {name}: {error}") from None
