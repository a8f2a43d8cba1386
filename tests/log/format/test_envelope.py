from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.errors import EnvelopeError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.log.format.envelope import ENVELOPE_BYTES, Envelope, EnvelopeKind, Salt, find_envelope, read_unchecked
from proglog_trio.log.format.origin import Origin

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
SALTS = st.builds(Salt, st.binary(min_size=8, max_size=8))
ENVELOPES = st.builds(
    Envelope,
    st.sampled_from(EnvelopeKind),
    U32,
    U64,
    st.builds(Origin, st.binary(min_size=16, max_size=16)),
    U64,
    U32,
    U64,
)
SALT = Salt(b"saltsalt")
SAMPLE = Envelope(EnvelopeKind.RECORDS, 100, 5, Origin(bytes(16)), 3, 2, 1_000)


@given(ENVELOPES, SALTS, st.binary(max_size=9))
def test_round_trip(envelope: Envelope, salt: Salt, before: bytes) -> None:
    data = envelope.encode(salt)
    assert len(data) == ENVELOPE_BYTES == 60
    assert Envelope.decode(before + data, len(before), salt) == envelope
    assert envelope.next_offset == envelope.base_offset + envelope.count


@given(ENVELOPES, SALTS, SALTS)
def test_another_segments_envelope_is_none(envelope: Envelope, salt: Salt, other: Salt) -> None:
    if salt == other:
        return
    with pytest.raises(EnvelopeError):
        Envelope.decode(envelope.encode(salt), 0, other)


def test_every_bit_and_every_byte_counts() -> None:
    data = SAMPLE.encode(SALT)
    for position in range(len(data)):
        with pytest.raises(EnvelopeError):
            Envelope.decode(data[:position], 0, SALT)
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            with pytest.raises(EnvelopeError):
                Envelope.decode(bytes(changed), 0, SALT)


@given(st.binary(max_size=200), SALTS)
def test_any_bytes_are_an_envelope_error(data: bytes, salt: Salt) -> None:
    with pytest.raises(EnvelopeError):
        Envelope.decode(data, 0, salt)
    assert find_envelope(data, 0, salt) is None


@given(st.lists(st.sampled_from([b"salt", b"sal", b"\x00", b"envelope"]), max_size=12))
def test_next_envelope_is_found_among_markers(pieces: list[bytes]) -> None:
    noise = b"".join(pieces)
    data = noise + SAMPLE.encode(SALT) + noise
    assert find_envelope(data, 0, SALT) == len(noise)
    assert find_envelope(data, len(noise) + 1, SALT) is None


def test_unknown_kind_is_refused_by_name() -> None:
    data = bytearray(SAMPLE.encode(SALT))
    data[5] = 9
    data[-4:] = crc32c(bytes(data[:-4]), SALT.seed).to_bytes(4, "big")
    with pytest.raises(EnvelopeError, match="kind 9"):
        Envelope.decode(bytes(data), 0, SALT)


def test_unchecked_reading_needs_no_salt() -> None:
    data = SAMPLE.encode(SALT)
    assert read_unchecked(b"x" + data, 1) == SAMPLE
    assert read_unchecked(data, -1) is None
    assert read_unchecked(data, 1) is None
