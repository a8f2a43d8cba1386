"""Clusters that hear of each other: what tells them apart, in Serf's terms, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from proglog_trio.membership.swim.foreigners import Belonging
from proglog_trio.membership.swim.node import Endpoint

MAX_NAMED = 128
"""So much of another cluster's name is repeated."""


@frozen
class ClusterTag:
    """What tells clusters apart: a tag of which all members that have it have the same value.

    Members without it may be of any: they are merged. Those with another value are not, nor is what they send.

    Attributes:
        tag: its name.
        value: what it has in this cluster.
    """

    tag: str
    value: str

    def belonging(self, tags: Mapping[str, str]) -> Belonging:
        """Return where a member with these tags belongs."""
        value = tags.get(self.tag)
        if value is None:
            return Belonging.UNSAID
        return Belonging.HERE if value == self.value else Belonging.ELSEWHERE

    def refusal(self, tags: Mapping[str, str]) -> str:
        """Return in words why a member with these tags is not merged."""
        return f"it is of the cluster {tags.get(self.tag, '')[:MAX_NAMED]!r}, not of {self.value!r}"


class StateRefused(Exception):
    """A state is of another cluster, or may not be merged; nothing of it was taken. The message says why."""


@frozen
class Foreigner:
    """One that is no member here is heard of; nothing that it says is merged.

    Attributes:
        name, endpoint: its own.
        why: of which cluster it is, or why it may not be a member, in words.
        is_refused: it may not be a member; otherwise it is of another cluster.
    """

    name: str
    endpoint: Endpoint
    why: str
    is_refused: bool = False
