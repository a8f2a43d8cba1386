"""Queries of others: whether this node is asked, and what it answers.

A query reaches every member by gossip; each that passes its filters sends an acknowledgement and an answer straight to
the one that asked, and through a few others as well if the query says so (its relay factor). Serf's own queries are
answered here; those of users have nothing here to answer them.
"""

from __future__ import annotations

from collections.abc import Iterable

import re2

from proglog_trio.membership.serf.member import KnownMember
from proglog_trio.membership.wire.serf import (
    QUERY_FLAG_ACK,
    RESPONSE_FLAG_ACK,
    ConflictResponse,
    Filter,
    KeyResponse,
    Member,
    MemberStatus,
    NodeFilter,
    Query,
    QueryResponse,
    TagFilter,
    encode_serf,
)

INTERNAL_PREFIX = "_serf_"
CONFLICT_QUERY = "_serf_conflict"
KEY_QUERIES = frozenset({"_serf_install-key", "_serf_use-key", "_serf_remove-key", "_serf_list-keys"})
LONGEST_EXPRESSIONS = 128
"""The regular expressions of all tag filters of a query together; longer ones pass no node, since they come from the
network: the worst of this length take 4 ms."""
EXPRESSION_BYTES = 64 * 1024
"""The memory that matching one expression may take; RE2 keeps the last 128 of them."""


def _re2_options() -> re2.Options:
    options = re2.Options()
    options.max_mem = EXPRESSION_BYTES
    options.log_errors = False
    return options


_OPTIONS = _re2_options()


def passes(filters: Iterable[Filter], me: KnownMember) -> bool:
    """Tell whether a query with these filters is for this node."""
    filters = list(filters)
    if sum(len(one.expr) for one in filters if isinstance(one, TagFilter)) > LONGEST_EXPRESSIONS:
        return False
    return all(_passes(one, me) for one in filters)


def _passes(one: Filter, me: KnownMember) -> bool:
    if isinstance(one, NodeFilter):
        return me.name in one.nodes
    if not isinstance(one, TagFilter):
        return False
    try:
        # The agents' own dialect, and linear in time: Python's matcher would let one packet stop this node.
        return re2.search(_utf8(one.expr), _utf8(me.tags.get(one.tag, "")), _OPTIONS) is not None
    except re2.error:
        return False


def _utf8(text: str) -> str:
    """Return text with what was no UTF-8 on the wire replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def answers(
    query: Query, me: KnownMember, asked_about: KnownMember | None, *, has_keyring: bool = False
) -> list[bytes]:
    """Return the responses to a query that is for this node, encoded.

    Args:
        query: what is asked.
        me: this node.
        asked_about: for a conflict query, whom this node knows under the contested name.
        has_keyring: key queries are answered elsewhere, when what they ask for is done.
    """
    responses = []
    if query.flags & QUERY_FLAG_ACK:
        responses.append(_response(query, me.name, RESPONSE_FLAG_ACK, b""))
    if query.name == CONFLICT_QUERY:
        # The holder of a contested name does not judge in its own case.
        if query.payload.decode("utf-8", "surrogateescape") != me.name:
            responses.append(_response(query, me.name, 0, encode_serf(_conflict_response(asked_about))))
    elif query.name in KEY_QUERIES and not has_keyring:
        refusal = KeyResponse(result=False, message="this node has no keyring", keys=(), primary_key="")
        responses.append(_response(query, me.name, 0, encode_serf(refusal)))
    return responses


def response_to(query: Query, name: str, payload: bytes) -> bytes:
    """Return a response to a query, encoded; name: of the node that gives it."""
    return _response(query, name, 0, payload)


def _response(query: Query, name: str, flags: int, payload: bytes) -> bytes:
    response = QueryResponse(ltime=query.ltime, id=query.id, from_node=name, flags=flags, payload=payload)
    return encode_serf(response)


def _conflict_response(member: KnownMember | None) -> ConflictResponse:
    if member is None:
        return ConflictResponse(None)
    version = member.version
    return ConflictResponse(
        Member(
            name=member.name,
            addr=member.told_address,
            port=member.endpoint.port,
            tags=member.tags,
            status=MemberStatus[member.status.name],
            protocol_min=version[0],
            protocol_max=version[1],
            protocol_cur=version[2],
            delegate_min=version[3],
            delegate_max=version[4],
            delegate_cur=version[5],
        )
    )
