import base64

import pytest
from hypothesis import given

from proglog_trio.membership.wire.keyring import Keyring, decode_key, encode_key
from tests.membership.wire.strategies import keyrings

A, B, C = (bytes((number,)) * size for number, size in ((1, 16), (2, 24), (3, 32)))


@given(keyrings)
def test_a_file_round_trip(keyring: Keyring) -> None:
    assert Keyring.load(keyring.dump()) == keyring
    assert Keyring.load(keyring.dump().encode()) == keyring
    assert Keyring.from_base64(keyring.to_base64()) == keyring


def test_the_first_is_primary() -> None:
    keyring = Keyring((A, B))
    assert keyring.primary == A
    assert keyring.with_primary(B).keys == (B, A)
    assert keyring.with_key(C).keys == (A, B, C)
    assert keyring.with_key(B) is keyring
    assert keyring.without_key(B).keys == (A,)
    assert keyring.without_key(C) is keyring


def test_refuses() -> None:
    with pytest.raises(ValueError, match="a keyring needs a key"):
        Keyring(())
    with pytest.raises(ValueError, match="key 2 of 2 has 5 bytes, not 16, 24 or 32"):
        Keyring((A, b"short"))
    with pytest.raises(ValueError, match="twice"):
        Keyring((A, A))
    with pytest.raises(ValueError, match="the key is not in the keyring"):
        Keyring((A,)).with_primary(B)
    with pytest.raises(ValueError, match="the primary key cannot be removed"):
        Keyring((A, B)).without_key(A)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("", "no JSON"),
        (b"\xff", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("{}", "no JSON array of texts"),
        ("[1]", "no JSON array of texts"),
        ("[]", "a keyring needs a key"),
        (f'["{encode_key(A)}", "se*cret"]', "key 2 of the keyring: the key is no base64 text"),
        ('["c2hvcnQ="]', "key 1 of the keyring: the key has 5 bytes"),
    ],
)
def test_refuses_files(data: str | bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        Keyring.load(data)
    assert "se*cret" not in str(caught.value)


def test_a_key_is_shown_nowhere() -> None:
    assert "1" not in repr(Keyring((A,)))


def test_decode_key_takes_a_line() -> None:
    assert decode_key(base64.b64encode(B).decode() + "\n") == B
