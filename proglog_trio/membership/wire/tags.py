"""Serf's tags in a node's Meta: byte 255, then a msgpack map of text to text."""

from __future__ import annotations

from collections.abc import Mapping

from proglog_trio.errors import ProglogError
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.memberlist import MAX_META_BYTES
from proglog_trio.membership.wire.msgpack_extent import SOME_ITEMS
from proglog_trio.membership.wire.msgpack_structs import Table, Text, decode_object, encode_object

_MAGIC = b"\xff"
_TAGS = Table(Text())


class TagsTooLarge(ProglogError, ValueError):
    """Tags that take more room than there is for what a member says of itself. The message says how much they take."""


def encode_tags(tags: Mapping[str, str]) -> bytes:
    """Return the Meta for tags; equal tags give equal bytes.

    Raises:
        TagsTooLarge: they take more than 512 bytes.
    """
    meta = _MAGIC + encode_object(_TAGS.encode(tags))
    if len(meta) > MAX_META_BYTES:
        raise TagsTooLarge(f"the tags take {len(meta)} bytes, more than {MAX_META_BYTES}: names and values together")
    return meta


def decode_tags(meta: bytes) -> dict[str, str]:
    """Return the tags in a Meta.

    A Meta that does not begin with byte 255 is what agents sent before there were tags: a role.

    Raises:
        DecodingError: it is malformed.
    """
    if not meta:
        return {}
    if not meta.startswith(_MAGIC):
        return {"role": meta.decode("utf-8", "surrogateescape")}
    try:
        value = decode_object(meta, 1, SOME_ITEMS)[0]
        tags: dict[str, str] = _TAGS.decode({} if value is None else value)  # type: ignore[assignment]  # of text to text
    except DecodingError as error:
        raise error.within("tags") from None
    return tags


def tags_of(meta: bytes) -> dict[str, str]:
    """Return the tags in a meta; none where it is not Serf's: a member with another meta is still a member."""
    try:
        return decode_tags(meta)
    except DecodingError:
        return {}
