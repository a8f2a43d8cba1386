"""Decoding header blocks (HPACK, RFC 7541) whose owner may ask too much, without losing step with the encoder.

The compression context is the connection's: a block must be read to its end even if its request is refused, or every
later block would be read wrongly (RFC 9113, section 4.3). A block whose list is longer than the limit is therefore read
on, but what is beyond the limit is dropped, and strings that will not be asked for are not even decoded. What reading
costs has bounds of its own, as multiples of the limit; a block above one of them ends the connection.
"""

from __future__ import annotations

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack.exceptions import HPACKError
from hpack.hpack import Decoder, decode_integer
from hpack.huffman_table import decode_huffman
from hpack.struct import HeaderTuple
from hpack.table import table_entry_size

MAX_ENCODED = 16
"""A block may have so many times the limit in encoded bytes."""

MAX_HUFFMAN = 2
"""So many times the limit of its bytes may have to be decoded from Huffman's code, which costs about 0.3 µs a byte."""

MAX_FIELDS = 2
"""A block may have so many times as many fields as a list within the limit could have."""

_FIELD_BYTES = 32  # what a field counts besides its name and value (RFC 9113, section 10.5.1)
_LONGEST_CODE_BITS = 30
_INTEGER_BYTES = 16  # more than hpack takes for an integer


class HeaderBlockError(ProtocolError):
    """A header block that cannot be read, or costs too much: the connection's compression context is lost with it."""

    def __init__(self, detail: str, error_code: ErrorCodes = ErrorCodes.COMPRESSION_ERROR) -> None:
        super().__init__(detail)
        self.error_code = error_code


class _Reading:
    """One block while it is read."""

    def __init__(self, data: bytes, limit: int) -> None:
        self.data = data
        self.limit = limit
        # Where the next byte is; string moves it past its end only to raise.
        self.place = 0
        # The first ones of the list, as many as are within the limit.
        self.fields: list[HeaderTuple] = []
        # Of all, those that are dropped included: their number, and their size as the limit counts it (an estimate of
        # what is not decoded). It only grows: once it is above the limit all further fields are dropped.
        self.count = 0
        self.size = 0
        # How many encoded bytes have been decoded from Huffman's code.
        self.huffman_bytes = 0

    def integer(self, prefix_bits: int) -> int:
        mask = (1 << prefix_bits) - 1
        number = self.data[self.place] & mask
        if number < mask:  # nearly always, and hpack takes ten times as long for it
            self.place += 1
            return number
        # At most so many bytes are shown to it: it would read on for as long as they go on.
        number, used = decode_integer(self.data[self.place : self.place + _INTEGER_BYTES], prefix_bits)
        self.place += used
        return number

    def string(self) -> _String:
        if self.place >= len(self.data):
            raise HeaderBlockError("a header block ends in the middle of a field")
        is_huffman = bool(self.data[self.place] & 0x80)
        length = self.integer(7)
        begin, self.place = self.place, self.place + length
        if self.place > len(self.data):
            raise HeaderBlockError("a header block ends in the middle of a string")
        return _String(self, begin, length, is_huffman)

    def add(self, name: bytes, value: bytes) -> None:
        self.size += table_entry_size(name, value)
        if self.size <= self.limit:
            self.fields.append(HeaderTuple(name, value))


class _String:
    """A string in a block, not decoded yet."""

    def __init__(self, reading: _Reading, begin: int, length: int, is_huffman: bool) -> None:
        self.reading = reading
        self.begin = begin
        self.length = length
        self.is_huffman = is_huffman

    @property
    def min_bytes(self) -> int:
        """How many bytes it decodes to at least."""
        return max(0, self.length * 8 - 7) // _LONGEST_CODE_BITS if self.is_huffman else self.length

    def decode(self) -> bytes:
        reading = self.reading
        data = reading.data[self.begin : self.begin + self.length]
        if not self.is_huffman:
            return data
        reading.huffman_bytes += self.length
        if reading.huffman_bytes > MAX_HUFFMAN * reading.limit:
            raise HeaderBlockError("a header block has too much in Huffman's code", ErrorCodes.ENHANCE_YOUR_CALM)
        return decode_huffman(data)


class HeaderBlockDecoder(Decoder):
    """HPACK's decoder for one direction of a connection.

    Attributes:
        is_oversized: whether the list of the block that was decoded last is longer than max_header_list_size.
    """

    is_oversized = False

    @property
    def max_encoded_bytes(self) -> int:
        """How long an encoded block may be."""
        return MAX_ENCODED * self.max_header_list_size

    def decode_block(self, data: bytes) -> list[HeaderTuple]:
        """Return a block's fields as bytes, up to the limit; see is_oversized.

        Raises:
            HeaderBlockError: it cannot be read, or costs too much; the connection has to end.
        """
        if len(data) > self.max_encoded_bytes:
            raise HeaderBlockError(f"a header block of {len(data)} bytes is too long", ErrorCodes.ENHANCE_YOUR_CALM)
        reading = _Reading(data, self.max_header_list_size)
        max_fields = MAX_FIELDS * self.max_header_list_size // _FIELD_BYTES
        try:
            while reading.place < len(data):
                self._read_field(reading)
                if reading.count > max_fields:
                    raise HeaderBlockError(
                        f"a header block has more than {max_fields} fields", ErrorCodes.ENHANCE_YOUR_CALM
                    )
            self._assert_valid_table_size()
        except HPACKError as error:
            raise HeaderBlockError(f"a header block cannot be decoded: {error}") from error
        self.is_oversized = reading.size > reading.limit
        return reading.fields

    def _read_field(self, reading: _Reading) -> None:
        first = reading.data[reading.place]
        # The kinds of fields by their first bits (RFC 7541, section 6): 001 table size, 1 indexed, 01 literal that goes
        # into the table, 000x literal that does not.
        if first & 0xE0 == 0x20:
            if reading.count:
                raise HeaderBlockError("a table size update is not at the start of its header block")
            reading.place += self._update_encoding_context(reading.data[reading.place : reading.place + _INTEGER_BYTES])
            return
        reading.count += 1
        if first & 0x80:
            reading.add(*self.header_table.get_by_index(reading.integer(7))[:2])
        else:
            self._read_literal(reading, is_indexed=bool(first & 0x40))

    def _read_literal(self, reading: _Reading, *, is_indexed: bool) -> None:
        index = reading.integer(6 if is_indexed else 4)
        name = self.header_table.get_by_index(index)[0] if index else reading.string()
        value = reading.string()
        name_bytes = len(name) if isinstance(name, bytes) else name.min_bytes
        least = name_bytes + value.min_bytes + _FIELD_BYTES
        table_bytes = self.header_table_size
        # A string that is so long encoded counts as that long: no encoder makes one longer than it was.
        counted = max(least, value.length, 0 if isinstance(name, bytes) else name.length)
        if reading.size + counted > reading.limit and (not is_indexed or least > table_bytes):
            # It is dropped, and no later field can refer to it: either it does not go into the table, or it is too long
            # for the table whatever it decodes to, and then empties it (RFC 7541, section 4.4).
            reading.size += counted
            if is_indexed:
                self.header_table.add(b"", bytes(table_bytes))  # larger than the table, which empties it
            return
        # It is within the limit, or stands in the table from now on and must be right there.
        decoded = (name if isinstance(name, bytes) else name.decode()), value.decode()
        reading.add(*decoded)
        if is_indexed:
            self.header_table.add(*decoded)
