"""How far a msgpack object reaches, found without building it.

Bytes from the network are measured before they are unpacked, which is what bounds the work and the memory that any of
them can cause: a length or a count that goes beyond the bytes there are (or, on a stream, may still come) is refused
when it is read, and so are objects made of more lists and maps than any message has. Measuring can stop at the end of
what has arrived and go on when there is more.
"""

from __future__ import annotations

from typing import Any

import msgpack

from proglog_trio.membership.wire.errors import DecodingError

FEW_ITEMS = 128
"""Elements of all lists and maps of an object: several times what the structs without lists have."""
SOME_ITEMS = 4096
"""The same, for structs with lists that fit in a packet: a millisecond's worth."""
MAX_CONTAINERS = 1024
"""Lists and maps in any object. An empty one is a byte on the wire and some sixty in memory."""


def _fixed_size(first: int) -> int:
    """Return the bytes of an object that begins with first; 0 if that says too little."""
    if first < 0x80 or first >= 0xE0 or first in {0xC0, 0xC2, 0xC3}:
        return 1  # small integers, nil, booleans
    if 0xA0 <= first < 0xC0:
        return 1 + (first & 0x1F)  # short raw
    # floats; unsigned and signed integers; extensions of 1 to 16 bytes
    sizes = {0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
    extensions = {0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
    return (sizes | extensions).get(first, 0)


_FIXED_SIZES = tuple(map(_fixed_size, range(256)))
_LENGTH_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xC7: 1, 0xC8: 2, 0xC9: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_COUNT_BYTES = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}


class Extent:
    """Measures the one object that begins at a place in a growing buffer.

    Attributes:
        length: the bytes of the object, once advance has returned True; before that, bytes it has at least.
    """

    __slots__ = ("_containers", "_items", "_limit", "_max_items", "_pending", "length")

    def __init__(self, limit: int, max_items: int = FEW_ITEMS, objects: int = 1) -> None:
        """Begin to measure an object that may have limit bytes, and max_items in its lists and maps.

        Or several objects that follow each other, as if they were one.
        """
        self.length = 0
        self._limit = limit
        self._max_items = max_items
        self._pending = objects  # objects that still have to come
        self._containers = 0
        self._items = 0

    def advance(self, data: bytes | bytearray, start: int) -> bool:
        """Go on measuring; return whether the whole object is in data.

        Args:
            data: everything of the object that has arrived.
            start: where in data the object begins.

        Raises:
            DecodingError: it is longer than the limit, has too many elements, or is no msgpack.
        """
        sizes = _FIXED_SIZES
        position = start + self.length
        pending = self._pending
        end = len(data)
        while pending and position < end:
            first = data[position]
            size = sizes[first]
            if size:
                position += size
                pending -= 1
                continue
            header = 1 + _LENGTH_BYTES.get(first, 0) + _COUNT_BYTES.get(first, 0)
            if position + header > end:
                break
            number = int.from_bytes(data[position + 1 : position + header], "big")
            pending -= 1
            if first in _LENGTH_BYTES:
                position += header + number + (0xC7 <= first <= 0xC9)  # an extension's type is one more byte
            elif first == 0xC1:
                raise DecodingError("byte 0xc1 is no msgpack", f"byte {position - start}")
            else:
                if first < 0xA0:
                    number = first & 0x0F
                is_map = first < 0x90 or first >= 0xDE
                children = number * 2 if is_map else number
                position += header
                pending += children
                self._containers += 1
                self._items += children
                if self._items > self._max_items:
                    raise DecodingError(f"has more than {self._max_items} elements", f"byte {position - start}")
                if self._containers > MAX_CONTAINERS:
                    raise DecodingError(f"has more than {MAX_CONTAINERS} lists and maps", f"byte {position - start}")
        self.length = position - start
        self._pending = pending
        # everything that is pending takes a byte at least
        if self.length + pending > self._limit:
            raise DecodingError(f"needs at least {self.length + pending} bytes, there can be {self._limit}")
        return not pending and position <= end


def unpack(data: bytes | bytearray, start: int, length: int) -> Any:  # noqa: ANN401 - whatever was sent
    """Return the object that an Extent has measured; all raw as bytes, lists as lists.

    Raises:
        DecodingError: a map key that is no raw, or nesting beyond any reason.
    """
    with memoryview(data) as view:
        try:
            return msgpack.unpackb(view[start : start + length], raw=True, strict_map_key=True)
        except (ValueError, msgpack.UnpackException) as error:
            raise DecodingError(f"is no msgpack: {error}") from None
