import pytest
from hypothesis import given

from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.tags import decode_tags, encode_tags
from tests.membership.wire.strategies import tags


@given(tags)
def test_round_trip(some: dict[str, str]) -> None:
    assert decode_tags(encode_tags(some)) == some


def test_equal_tags_give_equal_bytes() -> None:
    assert encode_tags({"b": "1", "a": "2"}) == encode_tags({"a": "2", "b": "1"}) == b"\xff\x82\xa1a\xa12\xa1b\xa11"


def test_a_meta_without_tags() -> None:
    assert decode_tags(b"") == {}
    assert decode_tags(b"\xff\xc0") == {}
    assert decode_tags(b"web") == {"role": "web"}


@pytest.mark.parametrize(
    ("meta", "problem"),
    [
        (b"\xff", "tags: needs at least"),
        (b"\xff\x01", "tags: is 1, no map"),
        (b"\xff\x81\xa1a\x01", "tags: 'a': is 1, no bytes"),
        (b"\xff\x82\xa1a\xa1b", "tags: needs at least"),
    ],
)
def test_refuses(meta: bytes, problem: str) -> None:
    with pytest.raises(DecodingError, match=problem):
        decode_tags(meta)


def test_does_not_send_more_than_a_meta_holds() -> None:
    assert len(encode_tags({"k": "v" * 505})) == 512
    with pytest.raises(ValueError, match="the tags take 513 bytes, more than 512"):
        encode_tags({"k": "v" * 506})
