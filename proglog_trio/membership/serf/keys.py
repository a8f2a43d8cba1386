"""Key queries: how members of a Serf cluster tell each other to install, use and remove gossip keys.

A query of one of four names goes to all members; each changes its own keyring and answers. That is how `serf keys`
rotates a cluster's key: install the new one everywhere, then use it everywhere, then remove the old one.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from attrs import frozen

from proglog_trio.membership.serf.query_answers import INTERNAL_PREFIX
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import Keyring, encode_key
from proglog_trio.membership.wire.serf import KeyRequest, KeyResponse, Query, QueryResponse, decode_serf, encode_serf

LONGEST_ANSWER_BYTES = 1024
"""Of a whole response; longer ones are not sent by agents, and fit into no packet beside others."""
MAX_KEYS = 32
"""In a keyring: whatever arrives is tried with each of them."""


class KeyOperation(enum.Enum):
    """What a key query wants done; the value is its name without Serf's prefix."""

    INSTALL = "install-key"
    USE = "use-key"
    REMOVE = "remove-key"
    LIST = "list-keys"

    @property
    def query_name(self) -> str:
        """The query's name."""
        return INTERNAL_PREFIX + self.value


_OPERATIONS = {operation.query_name: operation for operation in KeyOperation}


class KeyRefused(Exception):
    """A key operation that is not done; the message says why, and holds no key."""


@frozen
class KeyQuestion:
    """A key query that is for this node.

    Attributes:
        operation: what is to be done.
        key: with which key; empty for LIST.
        query: to answer.
    """

    operation: KeyOperation
    key: bytes
    query: Query

    @classmethod
    def of(cls, query: Query) -> KeyQuestion:
        """Return what a query asks. Raises KeyRefused if it is malformed."""
        operation = _OPERATIONS[query.name]
        if operation is KeyOperation.LIST:
            return cls(operation, b"", query)
        try:
            request = decode_serf(query.payload)
        except DecodingError as error:
            raise KeyRefused(f"the key request is malformed: {error}") from None
        if not isinstance(request, KeyRequest):
            raise KeyRefused("the query holds no key request")
        return cls(operation, request.key, query)


def changed(keyring: Keyring, operation: KeyOperation, key: bytes) -> Keyring:
    """Return the keyring that an operation makes of this one. Raises KeyRefused."""
    try:
        match operation:
            case KeyOperation.INSTALL:
                if len(keyring.keys) >= MAX_KEYS and key not in keyring.keys:
                    raise KeyRefused(f"the keyring has {MAX_KEYS} keys already: remove some first")
                return keyring.with_key(key)
            case KeyOperation.USE:
                return keyring.with_primary(key)
            case KeyOperation.REMOVE:
                return keyring.without_key(key)
            case KeyOperation.LIST:
                return keyring
    except ValueError as error:
        raise KeyRefused(str(error)) from None


def request_payload(operation: KeyOperation, key: bytes) -> bytes:
    """Return a key query's payload."""
    return b"" if operation is KeyOperation.LIST else encode_serf(KeyRequest(key))


def refusal(message: str) -> bytes:
    """Return the answer of a node that did not do what was asked."""
    return encode_serf(KeyResponse(result=False, message=message, keys=(), primary_key=""))


def success(operation: KeyOperation, keyring: Keyring, fits: Callable[[bytes], bool]) -> bytes:
    """Return the answer of a node that has done what was asked.

    Args:
        operation: what was.
        keyring: as it is now.
        fits: tells whether an answer can be sent; a list of keys is cut until it can, and says so.
    """
    if operation is not KeyOperation.LIST:
        return encode_serf(KeyResponse(result=True, message="", keys=(), primary_key=""))
    texts = tuple(keyring.to_base64())
    shown = len(texts)
    while True:
        message = "" if shown == len(texts) else f"only the first {shown} of {len(texts)} keys are listed"
        response = KeyResponse(
            result=True, message=message, keys=texts[:shown], primary_key=encode_key(keyring.primary)
        )
        answer = encode_serf(response)
        if shown == 0 or fits(answer):
            return answer
        shown -= 1


def fits_into_response(query: Query, name: str) -> Callable[[bytes], bool]:
    """Return what tells whether an answer of this node to a query can be sent."""

    def fits(answer: bytes) -> bool:
        response = QueryResponse(ltime=query.ltime, id=query.id, from_node=name, flags=0, payload=answer)
        return len(encode_serf(response)) <= LONGEST_ANSWER_BYTES

    return fits
