"""What packets and streams have in common around their messages: labels, encryption, compression."""

from __future__ import annotations

from attrs import frozen

from proglog_trio.membership.wire.errors import DecodingError, NotDecrypted
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.membership.wire.lzw import compress_steps, decompress_steps
from proglog_trio.membership.wire.memberlist import MessageType
from proglog_trio.membership.wire.msgpack_structs import Raw, Unsigned, encode_struct, wire
from proglog_trio.steps import Steps, complete

MAX_LABEL_BYTES = 255
NONCE_BYTES = 12
TAG_BYTES = 16
ENCRYPTION_OVERHEAD_BYTES = 1 + NONCE_BYTES + TAG_BYTES
_PADDED = 0
_UNPADDED = 1
_BLOCK_BYTES = 16
_ALGO_LZW = 0
_COMPRESS_PREFIX = bytes((MessageType.COMPRESS,))


def label_header(label: bytes) -> bytes:
    """Return what precedes everything else of a cluster with a label; nothing for the empty label.

    Raises:
        ValueError: the label has more than 255 bytes.
    """
    if len(label) > MAX_LABEL_BYTES:
        raise ValueError(f"the label has {len(label)} bytes, more than {MAX_LABEL_BYTES}")
    return bytes((MessageType.HAS_LABEL, len(label))) + label if label else b""


def wrong_label(label: bytes | None) -> DecodingError:
    """Return the error for traffic of another cluster.

    Args:
        label: what came, or None if there was no label.
    """
    return DecodingError("is of another cluster" if label else "is missing", "label")


def encrypt(plain: bytes, *, keyring: Keyring, associated: bytes, nonce: bytes) -> bytes:
    """Return plain encrypted with the primary key.

    Args:
        plain: what nobody else is to read.
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


def decrypt(data: bytes | bytearray, *, keyring: Keyring, associated: bytes) -> bytes:
    """Return what was encrypted with any of the keys.

    Raises:
        DecodingError: it is not encrypted, with none of these keys, or changed on its way.
    """
    return bytes(complete(decrypt_steps(data, keyring=keyring, associated=associated)))


def decrypt_steps(data: bytes | bytearray, *, keyring: Keyring, associated: bytes) -> Steps[bytes | bytearray]:
    """Do as decrypt, in steps: who has no key can still make this node try each of its own on all that it sends."""
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


@frozen
class Compressed:
    """The compress layer's body."""

    algo: int = wire("Algo", Unsigned(8))
    buf: bytes = wire("Buf", Raw())

    def decompressed(self, max_bytes: int) -> bytes:
        """Return what was compressed.

        Raises:
            DecodingError: it is no LZW data, or more than max_bytes.
        """
        return bytes(complete(self.decompressed_steps(max_bytes)))

    def decompressed_steps(self, max_bytes: int) -> Steps[bytearray]:
        """Do as decompressed, in steps."""
        if self.algo != _ALGO_LZW:
            raise DecodingError(f"is {self.algo}, not 0 (LZW)", "Algo")
        return (yield from decompress_steps(self.buf, max_bytes))


def compressed_layer(plain: bytes) -> bytes:
    """Return plain in a compress layer."""
    return complete(compressed_layer_steps(plain))


def compressed_layer_steps(plain: bytes | bytearray) -> Steps[bytes]:
    """Do as compressed_layer, in steps."""
    compressed = yield from compress_steps(plain)
    return _COMPRESS_PREFIX + encode_struct(Compressed(_ALGO_LZW, compressed))
