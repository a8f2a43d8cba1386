"""Bytes that are read from the front, as they arrive: what a parser of a stream reads from.

A parser is a generator. It yields Pause.BYTES when it needs more bytes than have arrived, and Pause.STEP when it has
worked for a while, so that a message that arrives byte by byte and one that is there whole are parsed by the same code.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from typing import TypeVar

from attrs import AttrsInstance

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.msgpack_extent import Extent, unpack
from proglog_trio.membership.wire.msgpack_structs import from_map
from proglog_trio.steps import Steps, joined

Struct = TypeVar("Struct", bound=AttrsInstance)
Result = TypeVar("Result")


class Pause(enum.Enum):
    """Why a parser yields: it needs more bytes, or has been at it for a while."""

    BYTES = enum.auto()
    STEP = enum.auto()


Parser = Generator[Pause, None, Result]


def stepping(steps: Steps[Result]) -> Parser[Result]:
    """Return a parser that does work in steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
        yield Pause.STEP


class ByteSource:
    """Bytes that are read from the front, as they arrive or all there.

    Attributes:
        room: how many bytes may still be read; never below 0.
        taken: how many were read since the beginning.
    """

    def __init__(self, whole: bytes | bytearray | None = None, *, room: int, start: int = 0) -> None:
        """Begin with all that there will ever be, from a place in it on, or with nothing."""
        self._buffer = bytearray()
        # What is there already is not copied: it may have many MiB.
        self._data: bytes | bytearray = self._buffer if whole is None else whole
        self._start = start
        self.room = room
        self.taken = 0

    @property
    def held(self) -> int:
        """How many bytes have arrived and were not read yet."""
        return len(self._data) - self._start

    def add(self, data: bytes) -> None:
        """Append what has arrived; what was read before is given back."""
        del self._buffer[: self._start]
        self._start = 0
        self._buffer += data

    def clear(self) -> None:
        """Drop what was not read."""
        self._buffer.clear()
        self._start = 0

    def read(self, count: int) -> Parser[bytes]:
        """Read count bytes; raises DecodingError if there cannot be so many."""
        if count > self.room:
            raise DecodingError(f"needs {count} bytes, there can be {self.room}")
        while self.held < count:
            yield Pause.BYTES
        data = bytes(self._data[self._start : self._start + count])
        self._drop(count)
        return data

    def read_long(self, count: int) -> Parser[bytearray]:
        """Do as read for what may be long: the result is copied in steps."""
        if count > self.room:
            raise DecodingError(f"needs {count} bytes, there can be {self.room}")
        while self.held < count:
            yield Pause.BYTES
        with memoryview(self._data) as view:
            data = yield from stepping(joined((view[self._start : self._start + count],)))
        self._drop(count)
        return data

    def struct(self, struct: type[Struct], max_bytes: int) -> Parser[Struct]:
        """Read a struct that may have max_bytes."""
        return from_map(struct, (yield from self.object(max_bytes)))

    def object(self, max_bytes: int) -> Parser[object]:
        """Read an object of msgpack that may have max_bytes."""
        extent = Extent(min(max_bytes, self.room))
        while not extent.advance(self._data, self._start):
            yield Pause.BYTES
        value: object = unpack(self._data, self._start, extent.length)
        self._drop(extent.length)
        return value

    def _drop(self, count: int) -> None:
        self._start += count
        self.taken += count
        self.room -= count
