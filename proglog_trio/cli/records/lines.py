"""Reading records from a file descriptor without holding up the event loop, and without an unbounded one."""

import os
from collections.abc import AsyncGenerator

import trio
from attrs import frozen

from proglog_trio.units import MEBIBYTE

_READ_BYTES = MEBIBYTE
_NEWLINE = b"\n"


@frozen
class Line:
    """A line without its end, and its number from 1. ``length`` is that of the line when it was too long to keep."""

    number: int
    text: bytes
    length: int | None = None


class LineSplitter:
    """Cuts what is read into lines. A line of more than ``max_line_bytes`` bytes is counted and not kept.

    A last line without an end counts as a line. What ends a line is a newline or any other bytes; where that is none,
    all that is read is one line.
    """

    def __init__(self, max_line_bytes: int, end: bytes = _NEWLINE) -> None:
        self._max_line_bytes = max_line_bytes
        self._end_of_line = end
        self._number = 0
        # Of the line that has begun: its bytes, none from where it is too long, and how many there were.
        self._kept = b""
        self._length = 0
        # What was read last and may be the beginning of a line's end.
        self._held = b""

    def feed(self, data: bytes) -> list[Line]:
        """Add what was read next, and return the lines that it ends."""
        if not self._end_of_line:
            self._begin(data)
            return []
        *ended, rest = (self._held + data).split(self._end_of_line)
        lines = [self._end(piece) for piece in ended]
        held = self._beginning_of_end(rest)
        self._held = rest[len(rest) - held :]
        self._begin(rest[: len(rest) - held])
        return lines

    def finish(self) -> list[Line]:
        """Return the last line if the input did not end with a line's end."""
        self._begin(self._held)
        self._held = b""
        return [self._end(b"")] if self._length else []

    def _beginning_of_end(self, piece: bytes) -> int:
        """Return how many of its last bytes may be the beginning of a line's end: the most, if there are several."""
        end = self._end_of_line
        for length in range(min(len(end) - 1, len(piece)), 0, -1):
            if piece.endswith(end[:length]):
                return length
        return 0

    def _begin(self, piece: bytes) -> None:
        self._length += len(piece)
        self._kept = b"" if self._length > self._max_line_bytes else self._kept + piece

    def _end(self, piece: bytes) -> Line:
        self._begin(piece)
        self._number += 1
        too_long = self._length > self._max_line_bytes
        line = Line(self._number, self._kept, self._length if too_long else None)
        self._kept, self._length = b"", 0
        return line


async def read_lines(
    descriptor: int, max_line_bytes: int, end: bytes = _NEWLINE
) -> AsyncGenerator[tuple[list[Line], int], None]:
    """Yield the lines of each read, with the number of bytes read; a read returns as soon as there is something.

    Reads happen in a thread that is abandoned on cancellation: a terminal or a pipe may have nothing for ever. Raises
    OSError.
    """
    splitter = LineSplitter(max_line_bytes, end)
    while data := await trio.to_thread.run_sync(os.read, descriptor, _READ_BYTES, abandon_on_cancel=True):
        yield splitter.feed(data), len(data)
    yield splitter.finish(), 0
