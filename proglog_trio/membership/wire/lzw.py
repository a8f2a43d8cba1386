"""LZW as the protocol uses it: least significant bit first, literals of 8 bits, codes of 9 to 12 bits.

The form is that of the GIF specification (appendix F) with these choices, which are those of Go's compress/lzw:
code 256 clears the table and comes first, 257 ends the data, the encoder clears the table as soon as it is full, and
the width grows with the first code that no longer fits. A decoder also takes data whose encoder never clears.

Both ways are loops over single codes, so what counts is how little is done for one: the encoder walks a tree of
dictionaries, the decoder splits all codes of one width at once. On one core 64 KiB of node states take about 6 ms to
compress and 2.5 ms to decompress, 64 KiB without any pattern 22 ms and 13 ms: so both are done in steps.
"""

from __future__ import annotations

from typing import Any

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.steps import Steps

MAX_DECOMPRESSED_BYTES = 24 * 1024 * 1024
"""What one compressed message may hold; no state of ours is larger."""

_CLEAR = 256
_END = 257
_FIRST_FREE = 258
_SMALLEST_WIDTH = 9
_LARGEST_WIDTH = 12
_TABLE_CODES = 1 << _LARGEST_WIDTH
_LAST_CODE = _TABLE_CODES - 1
_FIRST_TABLE = [*(bytes((literal,)) for literal in range(256)), b"", b""]
"""What the codes stand for in the beginning; clear and end: no bytes."""
_CODE = -1
"""The key, in a node of the encoder's tree, of the node's own code; all other keys are literals."""
_MAX_CODES_AT_ONCE = 256
"""In one step of decompressing: a tenth of a millisecond, or more where each stands for kilobytes."""
_LITERALS_AT_ONCE = 2048
"""In one step of compressing: likewise."""


def _tree() -> list[dict[int, Any]]:
    return [{_CODE: literal} for literal in range(256)]


def compress_steps(data: bytes | bytearray) -> Steps[bytes]:
    """Return, in steps, data compressed; what has no pattern grows to about 1.4 times its size."""
    if not data:
        return (_CLEAR | _END << _SMALLEST_WIDTH).to_bytes(3, "little")
    out = bytearray()
    width = _SMALLEST_WIDTH
    held = _CLEAR  # the bits that are not in out yet, the earliest lowest
    held_bits = width
    newest = _END  # the code that was given out last
    growth = 1 << width  # the first code that needs a larger width
    roots = _tree()
    node = roots[data[0]]
    for start in range(1, len(data), _LITERALS_AT_ONCE):
        for literal in data[start : start + _LITERALS_AT_ONCE]:
            longer = node.get(literal)
            if longer is not None:
                node = longer
                continue
            held |= node[_CODE] << held_bits
            held_bits += width
            newest += 1
            node[literal] = {_CODE: newest}
            node = roots[literal]
            if held_bits >= 30:
                out += (held & 0xFFFFFF).to_bytes(3, "little")
                held >>= 24
                held_bits -= 24
            if newest == growth:
                width += 1
                growth <<= 1
            elif newest == _LAST_CODE:
                held |= _CLEAR << held_bits
                held_bits += width
                width = _SMALLEST_WIDTH
                newest = _END
                growth = 1 << width
                roots = _tree()
                node = roots[literal]
        yield
    held |= node[_CODE] << held_bits
    held_bits += width
    # the decoder counts one code further, though nothing follows that could use it
    newest += 1
    if newest == growth:
        width += 1
    elif newest == _LAST_CODE:
        held |= _CLEAR << held_bits
        held_bits += width
        width = _SMALLEST_WIDTH
    held |= _END << held_bits
    held_bits += width
    out += held.to_bytes((held_bits + 7) // 8, "little")
    return bytes(out)


def decompress_steps(data: bytes, max_bytes: int = MAX_DECOMPRESSED_BYTES) -> Steps[bytearray]:
    """Return, in steps, what data holds; bytes after its end code are not looked at.

    Args:
        data: what compress, or Go's compress/lzw, made.
        max_bytes: more than this is refused before it is put together.

    Raises:
        DecodingError: a code that stands for nothing, no end code, or more than max_bytes.
    """
    out = bytearray()
    table = _FIRST_TABLE.copy()
    width = _SMALLEST_WIDTH
    bit = 0
    bits = len(data) * 8
    previous = b""
    while True:
        full = len(table) == _TABLE_CODES
        # as many codes as surely have this width: each one but the first after a clear adds one to the table
        count = bits if full else (1 << width) - len(table) + (not previous)
        count = min(count, _MAX_CODES_AT_ONCE, (bits - bit) // width)
        if count <= 0:
            raise DecodingError(f"has no end code in its {len(data)} bytes", "LZW data")
        code = -1
        pieces: list[bytes] = []  # references into the table: nothing is put together before its size is checked
        for code in _codes(data, bit, width, count):
            if code < len(table):
                piece = table[code]
                if not piece:
                    break
            elif code == len(table) and previous:
                piece = previous + previous[:1]
            else:
                raise DecodingError(
                    f"code {code} stands for nothing yet", f"LZW data at byte {bit + len(pieces) * width >> 3}"
                )
            pieces.append(piece)
            if previous and not full:
                table.append(previous + piece[:1])
            previous = piece
        if len(out) + sum(map(len, pieces)) > max_bytes:
            raise DecodingError(f"holds more than {max_bytes} bytes", "LZW data")
        out += b"".join(pieces)
        bit += len(pieces) * width
        if code == _END:
            return out
        if code == _CLEAR:
            bit += width
            width = _SMALLEST_WIDTH
            del table[_FIRST_FREE:]
            previous = b""
        elif len(table) == 1 << width and width < _LARGEST_WIDTH:
            width += 1
        yield


def _codes(data: bytes, bit: int, width: int, count: int) -> list[int]:
    """Return the count codes of width bits that begin at a bit of data."""
    end = bit + count * width
    aligned = int.from_bytes(data[bit >> 3 : (end + 7) >> 3], "little") >> (bit & 7)
    # eight codes fill width bytes exactly
    octets = aligned.to_bytes((count + 7) // 8 * width + 1, "little")
    mask = (1 << width) - 1
    codes: list[int] = []
    for start in range(0, len(octets) - 1, width):
        eight = int.from_bytes(octets[start : start + width], "little")
        codes += (
            eight & mask,
            eight >> width & mask,
            eight >> 2 * width & mask,
            eight >> 3 * width & mask,
            eight >> 4 * width & mask,
            eight >> 5 * width & mask,
            eight >> 6 * width & mask,
            eight >> 7 * width,
        )
    del codes[count:]
    return codes
