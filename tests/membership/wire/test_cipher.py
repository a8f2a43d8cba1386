import pytest

from proglog_trio.membership.wire.cipher import KeyCipher
from proglog_trio.membership.wire.layers import TAG_BYTES
from proglog_trio.steps import complete

KEY = b"k" * 32
NONCE = bytes(range(12))
SIZES = [0, 1, 1024 * 1024 - TAG_BYTES, 1024 * 1024, 3 * 1024 * 1024 + 1]
"""In one piece and in several, and where one begins."""


@pytest.mark.parametrize("size", SIZES)
def test_in_steps_it_is_the_same(size: int) -> None:
    cipher, plain, appended = KeyCipher(KEY), b"p" * size, bytearray(b"before")
    complete(cipher.encrypt_steps(NONCE, plain, b"label", appended))
    assert appended == b"before" + cipher.encrypt(NONCE, plain, b"label")


@pytest.mark.parametrize("size", SIZES)
def test_only_the_same_key_decrypts_what_is_unchanged(size: int) -> None:
    cipher, plain = KeyCipher(KEY), b"p" * size
    sealed = memoryview(cipher.encrypt(NONCE, plain, b"label"))
    assert complete(cipher.decrypt_steps(NONCE, sealed, b"label")) == plain
    assert complete(cipher.decrypt_steps(NONCE, sealed, b"other")) is None
    assert complete(KeyCipher(b"l" * 32).decrypt_steps(NONCE, sealed, b"label")) is None
    changed = bytearray(sealed)
    changed[-1] ^= 1
    assert complete(cipher.decrypt_steps(NONCE, memoryview(changed), b"label")) is None


def test_the_key_is_not_shown() -> None:
    assert "k" * 32 not in repr(KeyCipher(KEY))
