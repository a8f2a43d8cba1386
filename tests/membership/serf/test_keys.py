from __future__ import annotations

import pytest

from proglog_trio.membership.serf.keys import (
    LONGEST_ANSWER_BYTES,
    MAX_KEYS,
    KeyOperation,
    KeyQuestion,
    KeyRefused,
    changed,
    fits_into_response,
    refusal,
    request_payload,
    success,
)
from proglog_trio.membership.serf.query_answers import response_to
from proglog_trio.membership.wire.keyring import Keyring, encode_key
from proglog_trio.membership.wire.serf import KeyResponse, Query, decode_serf, encode_serf
from tests.membership.serf.cores import THERE

A, B, C = (bytes([number]) * 32 for number in range(3))


def query(operation: KeyOperation, payload: bytes) -> Query:
    return Query(
        ltime=3, id=4, addr=THERE.address, port=THERE.port, source_node="other", filters=(), flags=0, relay_factor=0,
        timeout=1, name=operation.query_name, payload=payload,
    )  # fmt: skip


def said(answer: bytes) -> KeyResponse:
    response = decode_serf(answer)
    assert isinstance(response, KeyResponse)
    return response


@pytest.mark.parametrize("operation", KeyOperation)
def test_a_question_is_read_as_it_was_asked(operation: KeyOperation) -> None:
    key = b"" if operation is KeyOperation.LIST else A
    asked = query(operation, request_payload(operation, A))
    assert KeyQuestion.of(asked) == KeyQuestion(operation, key, asked)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [(b"", "malformed"), (b"\x07\xc1", "malformed"), (b"\x01\x80", "holds no key request")],
)
def test_a_malformed_question_is_refused(payload: bytes, problem: str) -> None:
    with pytest.raises(KeyRefused, match=problem):
        KeyQuestion.of(query(KeyOperation.USE, payload))


def test_a_rotation() -> None:
    keyring = Keyring((A,))
    keyring = changed(keyring, KeyOperation.INSTALL, B)
    assert keyring.keys == (A, B)
    assert changed(keyring, KeyOperation.INSTALL, B) is keyring
    keyring = changed(keyring, KeyOperation.USE, B)
    assert keyring.keys == (B, A)
    keyring = changed(keyring, KeyOperation.REMOVE, A)
    assert keyring.keys == (B,)
    assert changed(keyring, KeyOperation.REMOVE, A) is keyring
    assert changed(keyring, KeyOperation.LIST, b"") is keyring


@pytest.mark.parametrize(
    ("operation", "key", "problem"),
    [
        (KeyOperation.INSTALL, b"short", "5 bytes, not 16, 24 or 32"),
        (KeyOperation.INSTALL, b"", "0 bytes"),
        (KeyOperation.USE, C, "the key is not in the keyring"),
        (KeyOperation.REMOVE, A, "the primary key cannot be removed"),
    ],
)
def test_what_is_refused_says_why_and_holds_no_key(operation: KeyOperation, key: bytes, problem: str) -> None:
    with pytest.raises(KeyRefused, match=problem) as error:
        changed(Keyring((A, B)), operation, key)
    assert encode_key(A) not in str(error.value)


def test_a_keyring_does_not_grow_for_ever() -> None:
    keyring = Keyring(tuple(bytes([number]) * 16 for number in range(MAX_KEYS)))
    with pytest.raises(KeyRefused, match="32 keys already"):
        changed(keyring, KeyOperation.INSTALL, A)
    assert changed(keyring, KeyOperation.INSTALL, bytes(16)) is keyring


def test_a_list_that_is_too_long_is_cut_and_says_so() -> None:
    keyring = Keyring(tuple(bytes([number]) * 32 for number in range(MAX_KEYS)))
    asked = query(KeyOperation.LIST, b"")
    answer = success(KeyOperation.LIST, keyring, fits_into_response(asked, "me"))
    assert len(encode_serf(response_to(asked, "me", answer))) <= LONGEST_ANSWER_BYTES
    response = said(answer)
    shown = len(response.keys)
    assert 10 < shown < MAX_KEYS
    assert response.message == f"only the first {shown} of {MAX_KEYS} keys are listed"
    assert (response.result, response.primary_key) == (True, encode_key(keyring.primary))
    one = success(KeyOperation.LIST, Keyring((A,)), fits_into_response(asked, "me"))
    assert (said(one).keys, said(one).message) == ((encode_key(A),), "")


def test_answers() -> None:
    asked = query(KeyOperation.USE, b"")
    assert said(success(KeyOperation.USE, Keyring((A,)), fits_into_response(asked, "me"))).keys == ()
    assert said(refusal("because")) == KeyResponse(result=False, message="because", keys=(), primary_key="")
