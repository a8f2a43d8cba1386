"""The tags of this member: those that it is given when it starts, and what was changed of them while it ran.

What was changed counts, also after a restart, whatever it is given then; a tag that was deleted stays away. The tags
that the program itself lives by are fixed: nothing but the program changes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import structlog
from attrs import evolve, frozen

from proglog_trio.errors import ProglogError
from proglog_trio.membership.wire.memberlist import MAX_META_BYTES
from proglog_trio.membership.wire.tags import TagsTooLarge, encode_tags

MAX_CHANGED_TAGS = 512
"""In one change; there is room for half as many."""

_logger = structlog.get_logger(__name__)


class TagFixed(ProglogError, ValueError):
    """A tag that the node itself needs: nobody else may change it. The message names it."""


@frozen(kw_only=True)
class OwnTags:
    """The tags of this member.

    Attributes:
        given: what the program gave it.
        changes: what was changed of them, by name, no fixed one among them; None: the tag was deleted.
        fixed: the names of those that are not changed, whatever changes says of them.
    """

    given: Mapping[str, str]
    changes: Mapping[str, str | None]
    fixed: frozenset[str] = frozenset()

    @classmethod
    def kept(cls, given: Mapping[str, str], kept: Mapping[str, str | None], fixed: Collection[str]) -> OwnTags:
        """Return the tags of a member that starts.

        Args:
            given: what the program gives it.
            kept: what was changed before, as it was written down; of fixed tags it is ignored, and that is logged.
            fixed: the names of those that may not be changed.
        """
        ignored = sorted(kept.keys() & set(fixed))
        if ignored:
            _logger.warning("tags that a node gives itself are not taken from its file", tags=ignored)
        changes = {name: content for name, content in kept.items() if name not in ignored}
        return cls(given=given, changes=changes, fixed=frozenset(fixed))

    def all(self) -> dict[str, str]:
        """Return the tags as they are told."""
        tags = dict(self.given)
        for name, content in self.changes.items():
            if content is None:
                tags.pop(name, None)
            else:
                tags[name] = content
        return tags

    def with_given(self, given: Mapping[str, str]) -> OwnTags:
        """Return these tags with others that are given; what was changed stays so.

        Raises:
            TagsTooLarge: they take more than 512 bytes.
        """
        return self._checked(evolve(self, given=given))

    def changed(self, set: Mapping[str, str], delete: Collection[str]) -> OwnTags:  # noqa: A002 - Serf's word for it
        """Return these tags after a change.

        Args:
            set: those that are new or have another value.
            delete: the names of those that go, if they are there; one that is set as well stays.

        Raises:
            TagFixed: one is among those that may not be changed.
            TagsTooLarge: they would take more than 512 bytes.
            ValueError: a tag without a name, or more than 512 names.
        """
        if len(set) + len(delete) > MAX_CHANGED_TAGS:
            raise ValueError(f"{len(set) + len(delete)} tags in one change; at most {MAX_CHANGED_TAGS} are allowed")
        size = sum(len(name) + len(content) for name, content in set.items())
        if size > MAX_META_BYTES:
            # Before any of it is encoded, or copied into an error.
            raise TagsTooLarge(f"the tags that are set take {size} bytes, more than {MAX_META_BYTES} by themselves")
        if any(len(name) > MAX_META_BYTES for name in delete):
            raise ValueError(f"the name of a tag has at most {MAX_META_BYTES} bytes")
        for name in sorted({*set, *delete}):
            if not name:
                raise ValueError("a tag needs a name")
            if name in self.fixed:
                raise TagFixed(f"the tag {name!r} is what the node itself tells the others: it cannot be changed")
        changes = {name: content for name, content in self.changes.items() if content is not None or name in self.given}
        for name in delete:
            changes.pop(name, None)
            if name in self.given:
                changes[name] = None
        changes.update(set)
        return self._checked(evolve(self, changes=changes))

    def _checked(self, fresh: OwnTags) -> OwnTags:
        """Return other tags in place of these, if there is room for them."""
        try:
            encode_tags(fresh.all())
        except TagsTooLarge as error:
            used = len(encode_tags(self.all()))
            raise TagsTooLarge(f"{error}; {used} of the {MAX_META_BYTES} bytes are used now") from None
        return fresh
