"""What encrypts gossip with one key: AES-GCM, as memberlist has it.

Only keyring.py imports this, and only when there is a key: the library that it needs takes a while to load.
"""

from __future__ import annotations

from attrs import field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from proglog_trio.membership.wire.layers import TAG_BYTES
from proglog_trio.steps import Steps

_AT_ONCE = 1024 * 1024
"""In one step, which is half a millisecond; what is longer is encrypted and decrypted piece by piece."""


@frozen(eq=False)
class KeyCipher:
    """Encrypts and decrypts with one key.

    Attributes:
        key: of 16, 24 or 32 bytes.
    """

    key: bytes = field(repr=False)
    _at_once: AESGCM = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_at_once", AESGCM(self.key))

    def encrypt(self, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
        """Return plain encrypted, and then the tag."""
        return self._at_once.encrypt(nonce, plain, associated)

    def encrypt_steps(
        self, nonce: bytes, plain: bytes | bytearray, associated: bytes, sealed: bytearray
    ) -> Steps[None]:
        """Do as encrypt, in steps, for what may be long: append it to sealed."""
        encryptor = Cipher(algorithms.AES(self.key), modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(associated)
        with memoryview(plain) as view:
            for start in range(0, len(plain), _AT_ONCE):
                sealed += encryptor.update(view[start : start + _AT_ONCE])
                yield
        encryptor.finalize()
        sealed += encryptor.tag

    def decrypt_steps(self, nonce: bytes, sealed: memoryview, associated: bytes) -> Steps[bytes | bytearray | None]:
        """Return, in steps, what was encrypted; None: not with this key, or it was changed since."""
        try:
            if len(sealed) <= _AT_ONCE:
                return self._at_once.decrypt(nonce, sealed, associated)
            return (yield from self._decrypt_long(nonce, sealed, associated))
        except InvalidTag:
            return None

    def _decrypt_long(self, nonce: bytes, sealed: memoryview, associated: bytes) -> Steps[bytearray]:
        """Return what was encrypted; raises InvalidTag. None of it is used before it is verified."""
        tag = bytes(sealed[-TAG_BYTES:])
        decryptor = Cipher(algorithms.AES(self.key), modes.GCM(nonce, tag)).decryptor()
        decryptor.authenticate_additional_data(associated)
        plain = bytearray()
        end = len(sealed) - TAG_BYTES
        for start in range(0, end, _AT_ONCE):
            plain += decryptor.update(sealed[start : min(start + _AT_ONCE, end)])
            yield
        decryptor.finalize()
        return plain
