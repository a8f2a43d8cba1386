"""Queries: which members one is for, and what this node answers to Serf's own.

A query reaches every member by gossip; each that passes its filters sends an acknowledgement and an answer straight to
the one that asked, and through a few others as well if the query says so (its relay factor). Serf's own queries are
answered here; those of users are answered by whoever subscribes to them.
"""

from __future__ import annotations

from collections.abc import Iterable

import re2

from proglog_trio.membership.serf.expressions import BOUNDED
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


def check_filters(filters: Iterable[Filter]) -> None:
    """Look whether the filters of a query of this node's can be judged by the members that it goes to.

    Raises:
        ValueError: an expression is none, or all together are too long.
    """
    expressions = [one.expr for one in filters if isinstance(one, TagFilter)]
    if sum(map(len, expressions)) > LONGEST_EXPRESSIONS:
        raise ValueError(f"the expressions for tags have more than {LONGEST_EXPRESSIONS} characters together")
    for expression in expressions:
        try:
            re2.compile(_utf8(expression), BOUNDED)
        except re2.error as error:
            raise ValueError(f"{expression!r} is no regular expression (RE2): {_reason(error)}") from None


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else "it cannot be compiled"
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


def passes(filters: Iterable[Filter], member: KnownMember) -> bool:
    """Tell whether a query with these filters is for a member."""
    filters = list(filters)
    if sum(len(one.expr) for one in filters if isinstance(one, TagFilter)) > LONGEST_EXPRESSIONS:
        return False
    return all(_passes(one, member) for one in filters)


def _passes(one: Filter, member: KnownMember) -> bool:
    if isinstance(one, NodeFilter):
        return member.name in one.nodes
    if not isinstance(one, TagFilter):
        return False
    try:
        # The agents' own dialect, and linear in time: Python's matcher would let one packet stop this node.
        return re2.search(_utf8(one.expr), _utf8(member.tags.get(one.tag, "")), BOUNDED) is not None
    except re2.error:
        return False


def _utf8(text: str) -> str:
    """Return text with what was no UTF-8 on the wire replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def answers(
    query: Query, me: KnownMember, asked_about: KnownMember | None, *, has_keyring: bool = False
) -> list[QueryResponse]:
    """Return the responses to a query that is for this node: its acknowledgement, and answers to Serf's own queries.

    Args:
        query: what is asked.
        me: this node.
        asked_about: for a conflict query, whom this node knows under the contested name.
        has_keyring: key queries are answered elsewhere, when what they ask for is done.
    """
    responses = []
    if query.flags & QUERY_FLAG_ACK:
        responses.append(response_to(query, me.name, b"", RESPONSE_FLAG_ACK))
    if query.name == CONFLICT_QUERY:
        # The holder of a contested name does not judge in its own case.
        if query.payload.decode("utf-8", "surrogateescape") != me.name:
            responses.append(response_to(query, me.name, encode_serf(_conflict_response(asked_about))))
    elif query.name in KEY_QUERIES and not has_keyring:
        refusal = KeyResponse(result=False, message="this node has no keyring", keys=(), primary_key="")
        responses.append(response_to(query, me.name, encode_serf(refusal)))
    return responses


def response_to(query: Query, name: str, payload: bytes, flags: int = 0) -> QueryResponse:
    """Return a response to a query; name: of the node that gives it."""
    return QueryResponse(ltime=query.ltime, id=query.id, from_node=name, flags=flags, payload=payload)


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
