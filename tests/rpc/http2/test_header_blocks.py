from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from hpack.hpack import Decoder, Encoder, encode_integer
from hpack.table import table_entry_size
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.rpc.http2.header_blocks import MAX_FIELDS, HeaderBlockDecoder, HeaderBlockError

LIMIT = 2048

_sizes = st.one_of(st.integers(0, 100), st.sampled_from([1000, 2000, 4060, 4064, 4065, 5000]))
_values = st.builds(lambda letter, size: letter * size, st.sampled_from([b"0", b"t", b"~"]), _sizes)
_fields = st.tuples(st.sampled_from([b":method", b"x", b"y", b"authorization", b"n" * 3000]), _values, st.booleans())
_blocks = st.tuples(st.lists(_fields, max_size=8), st.booleans())


@given(st.lists(_blocks, max_size=8))
def test_what_is_refused_keeps_step_with_the_encoder(
    blocks: list[tuple[list[tuple[bytes, bytes, bool]], bool]],
) -> None:
    encoder = Encoder()
    reference = Decoder(max_header_list_size=1 << 30)
    decoder = HeaderBlockDecoder(max_header_list_size=LIMIT)
    for fields, huffman in blocks:
        data = encoder.encode(fields, huffman=huffman)
        everything = list(reference.decode(data, raw=True))
        size = sum(table_entry_size(*field) for field in everything)
        try:
            found = decoder.decode_block(data)
        except HeaderBlockError as error:
            assert error.error_code is ErrorCodes.ENHANCE_YOUR_CALM  # noqa: PT017 - both ends are allowed here
            assert size > LIMIT
            return
        assert decoder.is_oversized == (size > LIMIT)
        assert found == everything[: len(found)]
        assert sum(table_entry_size(*field) for field in found) <= LIMIT
        assert decoder.is_oversized or len(found) == len(everything)
        assert list(decoder.header_table.dynamic_entries) == list(reference.header_table.dynamic_entries)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_as_hpack_does_or_refused(data: bytes) -> None:
    reference = Decoder(max_header_list_size=1 << 30)
    decoder = HeaderBlockDecoder(max_header_list_size=1 << 20)
    try:
        expected = list(reference.decode(data, raw=True))
    except Exception:  # noqa: BLE001 - hpack raises whatever comes
        with pytest.raises(HeaderBlockError):
            decoder.decode_block(data)
    else:
        assert decoder.decode_block(data) == expected


def _literal(size: int) -> bytes:
    return b"\x00\x01x" + bytes(encode_integer(size, 7)) + b"v" * size


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_literal(16 * LIMIT), "too long"),
        (b"\x82" * (MAX_FIELDS * LIMIT // 32 + 1), "more than 128 fields"),
        (Encoder().encode([(b"x", b"v" * 2000), (b"y", b"w" * 2000), (b"z", b"v" * 2000)], huffman=True), "Huffman"),
    ],
)
def test_what_costs_too_much_to_read_is_not_read(data: bytes, message: str) -> None:
    with pytest.raises(HeaderBlockError, match=message) as caught:
        HeaderBlockDecoder(max_header_list_size=LIMIT).decode_block(data)
    assert caught.value.error_code is ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff\xff\xff\xff",
        b"\xbe",
        b"\x00\x05ab",
        b"\x40",
        b"\x82\x20",
        b"\x00\x81\xff\x00",
        b"\x3f\xff\x7f",
    ],
)
def test_what_is_no_header_block_is_refused(data: bytes) -> None:
    with pytest.raises(HeaderBlockError) as caught:
        HeaderBlockDecoder(max_header_list_size=LIMIT).decode_block(data)
    assert caught.value.error_code is ErrorCodes.COMPRESSION_ERROR
