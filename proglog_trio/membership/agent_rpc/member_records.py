"""Members as agents show them, and which of them a client wants."""

from __future__ import annotations

from collections.abc import Mapping

import re2
from attrs import astuple, frozen

from proglog_trio.membership.agent_rpc.messages import MemberRecord, MembersFiltered
from proglog_trio.membership.serf.expressions import BOUNDED
from proglog_trio.membership.serf.member import KnownMember, Member
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.steps import Steps

MAX_EXPRESSION_CHARACTERS = 128
"""Of one regular expression of a filter; compiling the worst of them takes some milliseconds."""
MAX_TAG_EXPRESSIONS = 32


class FilterRefused(Exception):
    """A filter that is no regular expression, or too long a one."""


def member_record(member: Member, known: KnownMember | None) -> MemberRecord:
    """Return what clients are told of a member.

    Args:
        member: as it was at the moment that is told of.
        known: what the core has of it now, which may be another life, elsewhere; None: it has been forgotten.
    """
    endpoint = Endpoint.of(member.address, member.port)
    address = known.told_address if known is not None and known.endpoint == endpoint else endpoint.address
    version = bytes(6) if member.versions is None else astuple(member.versions)
    return MemberRecord(member.name, address, member.port, member.tags, member.status.value, *version)


@frozen
class MemberFilter:
    """Which members are wanted.

    Attributes:
        name, status: regular expressions; None: any.
        tags: regular expressions by the tag; a member without the tag is matched as if it were empty.
    """

    name: re2._Regexp | None
    status: re2._Regexp | None
    tags: Mapping[str, re2._Regexp]

    @classmethod
    def of(cls, request: MembersFiltered) -> Steps[MemberFilter]:
        """Return, in steps, the filter that a client asks for. Raises FilterRefused."""
        if len(request.tags) > MAX_TAG_EXPRESSIONS:
            raise FilterRefused(f"{len(request.tags)} tags are more than {MAX_TAG_EXPRESSIONS}")
        name = _compiled(request.name) if request.name else None
        yield
        status = _compiled(request.status) if request.status else None
        tags = {}
        for tag, expression in request.tags.items():
            yield
            tags[tag] = _compiled(expression)
        return cls(name, status, tags)

    def passes(self, name: str, status: str, tags: Mapping[str, str]) -> bool:
        """Tell whether a member is wanted."""
        return (
            (self.name is None or self.name.search(_utf8(name)) is not None)
            and (self.status is None or self.status.search(status) is not None)
            and all(one.search(_utf8(tags.get(tag, ""))) is not None for tag, one in self.tags.items())
        )


def _compiled(expression: str) -> re2._Regexp:
    if len(expression) > MAX_EXPRESSION_CHARACTERS:
        raise FilterRefused(f"a regular expression of {len(expression)} characters is too long")
    try:
        # Between anchors as it is, alternatives not kept together: what agents do, and their documentation says.
        return re2.compile(f"^{_utf8(expression)}$", BOUNDED)
    except re2.error as error:
        reason = error.args[0] if error.args else "malformed"
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise FilterRefused(f"Failed to compile regex: {reason}") from None


def _utf8(text: str) -> str:
    """Return text with what was no UTF-8 on the wire replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
