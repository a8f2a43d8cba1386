"""The keys of a cluster: the first encrypts, any of them decrypts."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

from attrs import Attribute, field, frozen

if TYPE_CHECKING:
    from proglog_trio.membership.wire.cipher import KeyCipher

KEY_BYTES = (16, 24, 32)
"""The lengths of AES keys."""


def _as_tuple(keys: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(keys)


def _check_keys(_keyring: object, _attribute: Attribute[Any], keys: tuple[bytes, ...]) -> None:
    if not keys:
        raise ValueError("a keyring needs a key")
    for number, key in enumerate(keys, 1):
        if len(key) not in KEY_BYTES:
            raise ValueError(f"key {number} of {len(keys)} has {len(key)} bytes, not 16, 24 or 32")
    if len(set(keys)) < len(keys):
        raise ValueError("a key is in the keyring twice")


def decode_key(text: str) -> bytes:
    """Return the key that base64 text stands for.

    Raises:
        ValueError: it is no base64, or not of 16, 24 or 32 bytes. The message does not hold the text.
    """
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the key is no base64 text") from None
    if len(key) not in KEY_BYTES:
        raise ValueError(f"the key has {len(key)} bytes, not 16, 24 or 32")
    return key


def encode_key(key: bytes) -> str:
    """Return a key as base64 text."""
    return base64.b64encode(key).decode("ascii")


@frozen
class Keyring:
    """Keys that do not change: what installs, uses or removes one gives another keyring.

    Attributes:
        keys: of 16, 24 or 32 bytes each; the first is the primary key.
    """

    keys: tuple[bytes, ...] = field(converter=_as_tuple, validator=_check_keys, repr=False)
    _ciphers: tuple[KeyCipher, ...] = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        # Late: it takes a while to load, and only a node that has keys needs it. It makes its keyring when it starts.
        from proglog_trio.membership.wire.cipher import KeyCipher

        object.__setattr__(self, "_ciphers", tuple(KeyCipher(key) for key in self.keys))

    @property
    def primary(self) -> bytes:
        """The key that encrypts."""
        return self.keys[0]

    @property
    def ciphers(self) -> tuple[KeyCipher, ...]:
        """What encrypts and decrypts with each of the keys."""
        return self._ciphers

    @classmethod
    def from_base64(cls, texts: Iterable[str]) -> Self:
        """Return a keyring of keys in base64.

        Raises:
            ValueError: there is none, or one that is no key; the message says which.
        """
        keys = []
        for number, text in enumerate(texts, 1):
            try:
                keys.append(decode_key(text))
            except ValueError as error:
                raise ValueError(f"key {number} of the keyring: {error}") from None
        return cls(keys)

    @classmethod
    def load(cls, data: str | bytes) -> Self:
        """Return the keyring that the contents of a keyring file stand for: a JSON array of base64 texts.

        Raises:
            ValueError: it is no such array.
        """
        try:
            texts = json.loads(data)
        except (ValueError, RecursionError):
            raise ValueError("the keyring is no JSON") from None
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("the keyring is no JSON array of texts")
        return cls.from_base64(texts)

    def to_base64(self) -> list[str]:
        """Return the keys in base64, the primary first."""
        return [encode_key(key) for key in self.keys]

    def dump(self) -> str:
        """Return the contents of a keyring file."""
        return json.dumps(self.to_base64(), indent=2) + "\n"

    def with_key(self, key: bytes) -> Self:
        """Return a keyring that has key, too, as its last; this one if it has it already.

        Raises:
            ValueError: it is not of 16, 24 or 32 bytes.
        """
        return self if key in self.keys else type(self)((*self.keys, key))

    def with_primary(self, key: bytes) -> Self:
        """Return a keyring whose primary key is key.

        Raises:
            ValueError: key is not in the keyring.
        """
        if key not in self.keys:
            raise ValueError("the key is not in the keyring")
        return type(self)((key, *(other for other in self.keys if other != key)))

    def without_key(self, key: bytes) -> Self:
        """Return a keyring that does not have key; this one if it never had it.

        Raises:
            ValueError: it is the primary key.
        """
        if key == self.primary:
            raise ValueError("the primary key cannot be removed")
        return type(self)(other for other in self.keys if other != key) if key in self.keys else self
