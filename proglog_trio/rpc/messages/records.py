"""The messages of which there is one for every record: the requests and answers of the book's streams.

All other messages are those of the generated classes in _proto, which are typed, and are converted (see conversion.py).
Of these here a server handles a hundred thousand a second, and the conversion costs too much: measured side by side, to
encode a record in its ConsumeResponse takes three times as long, and to decode a ProduceRequest ten times. So the
classes of protobuf's own runtime are used as they are for the responses of Produce, Consume and their streams, and for
ProduceStream's requests, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from proglog_trio.rpc.messages.descriptors import message_class

if TYPE_CHECKING:
    # What the classes made below look like to who uses them here.

    class Acknowledgement(Message):
        """log.v1.Acknowledgement."""

        level: int
        nodes: int
        timeout_milliseconds: int

    class Record(Message):
        """log.v1.Record."""

        value: bytes
        offset: int
        key: bytes
        headers: Mapping[str, bytes]
        timestamp: int
        origin: bytes
        sequence: int
        log_time: int

        def __init__(
            self,
            *,
            value: bytes = ...,
            offset: int = ...,
            key: bytes = ...,
            headers: Mapping[str, bytes] = ...,
            timestamp: int = ...,
            origin: bytes = ...,
            sequence: int = ...,
            log_time: int = ...,
        ) -> None: ...

    class ConsumeResponse(Message):
        """log.v1.ConsumeResponse."""

        record: Record

        def __init__(self, *, record: Record = ...) -> None: ...

    class ProduceRequest(Message):
        """log.v1.ProduceRequest."""

        record: Record
        acknowledgement: Acknowledgement
        after_log_time: int
        producer_id: int
        producer_sequence: int

        def __init__(self, *, record: Record = ...) -> None: ...

    class ProduceResponse(Message):
        """log.v1.ProduceResponse."""

        offset: int
        origin: bytes
        sequence: int
        log_time: int
        achieved: int
        reached: bool

        def __init__(
            self,
            *,
            offset: int = ...,
            origin: bytes = ...,
            sequence: int = ...,
            log_time: int = ...,
            achieved: int = ...,
            reached: bool = ...,
        ) -> None: ...

else:
    Record = message_class("Record")
    ConsumeResponse = message_class("ConsumeResponse")
    ProduceRequest = message_class("ProduceRequest")
    ProduceResponse = message_class("ProduceResponse")
