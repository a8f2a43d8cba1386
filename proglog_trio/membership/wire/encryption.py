"""The encryption of packets and streams with a keyring: a version, a nonce, what is sealed, and a tag."""

from __future__ import annotations

from proglog_trio.membership.wire.errors import DecodingError, NotDecrypted
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.layers import ENCRYPTION_OVERHEAD_BYTES, NONCE_BYTES
from proglog_trio.steps import Steps

_PADDED = 0
"""The older version: what is sealed is padded to whole blocks. It is read, and never sent."""
_UNPADDED = 1
_BLOCK_BYTES = 16


def encrypt(plain: bytes, *, keyring: Keyring, associated: bytes, nonce: bytes) -> bytes:
    """Return plain encrypted with the primary key.

    Args:
        plain: what only members with the key are to read.
        keyring: whose primary key to use.
        associated: what has to be the same where it is decrypted.
        nonce: 12 bytes that were never used with this key.

    Raises:
        ValueError: the nonce has another length.
    """
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"the nonce has {len(nonce)} bytes, not {NONCE_BYTES}")
    return bytes((_UNPADDED,)) + nonce + keyring.ciphers[0].encrypt(nonce, plain, associated)


def encrypt_steps(plain: bytes | bytearray, *, keyring: Keyring, associated: bytes, nonce: bytes) -> Steps[bytearray]:
    """Do as encrypt, in steps, for what may be long."""
    sealed = bytearray((_UNPADDED,)) + nonce
    yield from keyring.ciphers[0].encrypt_steps(nonce, plain, associated, sealed)
    return sealed


def begins_as_encrypted(data: bytes | bytearray) -> bool:
    """Tell whether data may be encrypted, by its first byte; a ping may look so too."""
    return data[:1] in (bytes((_PADDED,)), bytes((_UNPADDED,)))


def decrypt_steps(data: bytes | bytearray, *, keyring: Keyring, associated: bytes) -> Steps[bytes | bytearray]:
    """Return, in steps, what was encrypted with any of the keys.

    Raises:
        DecodingError: it is not encrypted, with none of these keys, or changed on its way.
    """
    if len(data) < ENCRYPTION_OVERHEAD_BYTES:
        raise DecodingError(f"has {len(data)} bytes, fewer than encryption takes", "encrypted part")
    version = data[0]
    if version not in (_PADDED, _UNPADDED):
        raise NotDecrypted(f"has encryption version {version}, or is not encrypted", "encrypted part")
    nonce = bytes(data[1 : 1 + NONCE_BYTES])
    with memoryview(data)[1 + NONCE_BYTES :] as sealed:
        for cipher in keyring.ciphers:
            plain = yield from cipher.decrypt_steps(nonce, sealed, associated)
            if plain is not None:
                return plain if version == _UNPADDED else _without_padding(plain)
            yield
    raise NotDecrypted("is not encrypted with any key of the keyring", "encrypted part")


def _without_padding(padded: bytes | bytearray) -> bytes | bytearray:
    """Return what PKCS7 has padded to whole blocks."""
    padding = padded[-1] if padded else 0
    if (
        not 0 < padding <= _BLOCK_BYTES
        or len(padded) % _BLOCK_BYTES
        or padded[-padding:] != bytes((padding,)) * padding
    ):
        raise DecodingError("has no PKCS7 padding", "encrypted part")
    return padded[:-padding]
