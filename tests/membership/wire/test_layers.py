import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.wire.encryption import encrypt
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.layers import Compressed, compressed_layer, label_header
from proglog_trio.membership.wire.msgpack_structs import decode_struct
from proglog_trio.steps import complete
from tests.membership.wire.at_once import compress, decrypt
from tests.membership.wire.strategies import keyrings

KEYRING = Keyring((b"k" * 16, b"l" * 32))
NONCE = bytes(range(12))


@given(keyrings, st.binary(max_size=100), st.binary(max_size=20), st.binary(min_size=12, max_size=12))
def test_any_key_decrypts(keyring: Keyring, plain: bytes, associated: bytes, nonce: bytes) -> None:
    sealed = encrypt(plain, keyring=keyring, associated=associated, nonce=nonce)
    assert len(sealed) == len(plain) + 29
    assert sealed.startswith(b"\x01" + nonce)
    for key in keyring.keys:
        assert decrypt(sealed, keyring=keyring.with_primary(key), associated=associated) == plain


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17])
def test_the_padded_version_is_taken(size: int) -> None:
    plain = b"p" * size
    padding = 16 - size % 16
    sealed = KEYRING.ciphers[1].encrypt(NONCE, plain + bytes((padding,)) * padding, b"label")
    assert decrypt(b"\x00" + NONCE + sealed, keyring=KEYRING, associated=b"label") == plain


@pytest.mark.parametrize("padded", [b"", b"\x00" * 16, b"\x11" * 32, b"p" * 14 + b"\x01\x02", b"p" * 14 + b"\x01"])
def test_padding_has_to_be_right(padded: bytes) -> None:
    sealed = KEYRING.ciphers[0].encrypt(NONCE, padded, b"")
    with pytest.raises(DecodingError, match="no PKCS7 padding"):
        decrypt(b"\x00" + NONCE + sealed, keyring=KEYRING, associated=b"")


def test_refuses_what_was_changed() -> None:
    sealed = encrypt(b"plain", keyring=KEYRING, associated=b"label", nonce=NONCE)
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 2
        with pytest.raises(DecodingError, match="encrypted part"):
            decrypt(bytes(changed), keyring=KEYRING, associated=b"label")
    with pytest.raises(DecodingError, match="not encrypted with any key"):
        decrypt(sealed, keyring=KEYRING, associated=b"other")
    with pytest.raises(DecodingError, match="not encrypted with any key"):
        decrypt(sealed, keyring=Keyring((b"m" * 16,)), associated=b"label")
    with pytest.raises(DecodingError, match="has 28 bytes, fewer than encryption takes"):
        decrypt(sealed[:28], keyring=KEYRING, associated=b"label")
    with pytest.raises(DecodingError, match="has encryption version 9, or is not encrypted"):
        decrypt(b"\x09" + sealed[1:], keyring=KEYRING, associated=b"label")


def test_a_nonce_has_twelve_bytes() -> None:
    with pytest.raises(ValueError, match="the nonce has 11 bytes, not 12"):
        encrypt(b"", keyring=KEYRING, associated=b"", nonce=NONCE[:11])


def test_labels() -> None:
    assert label_header(b"") == b""
    assert label_header(b"abc") == b"\xf4\x03abc"
    with pytest.raises(ValueError, match="the label has 256 bytes, more than 255"):
        label_header(bytes(256))


def test_compression() -> None:
    layer = compressed_layer(b"abcabcabc")
    assert layer.startswith(b"\x09\x82\xa4Algo\x00\xa3Buf")
    compressed = decode_struct(Compressed, layer, 1)[0]
    assert complete(compressed.decompressed_steps(9)) == b"abcabcabc"
    with pytest.raises(DecodingError, match="holds more than 8 bytes"):
        complete(compressed.decompressed_steps(8))
    with pytest.raises(DecodingError, match=r"Algo: is 1, not 0 \(LZW\)"):
        complete(Compressed(1, compress(b"a")).decompressed_steps(9))
