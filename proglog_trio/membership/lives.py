"""One member's lives: the same data directory, opened again and again, maybe at another address each time."""

from __future__ import annotations

import enum
from collections.abc import Mapping

from proglog_trio.membership.wire.tags import tags_of

DIRECTORY_TAG = "directory_id"
"""The data directory that a member uses, in hexadecimal."""
OPENING_TAG = "opening"
"""How often that was opened, in hexadecimal: of two lives the later has more."""
_LONGEST_NUMBER = 16


class Kinship(enum.Enum):
    """What two members of one name are to each other, by their tags."""

    STRANGERS = "strangers"
    """They use different directories, or do not say which: a plain agent, a node with a new disk."""
    EARLIER = "earlier"
    """The one is an earlier life of the other."""
    LATER = "later"
    """The one was started after the other, or as often: one of the two directories is a copy, or was restored."""


def kinship(known: Mapping[str, str], mine: Mapping[str, str]) -> Kinship:
    """Return what a known member is to the one with my tags."""
    directory = mine.get(DIRECTORY_TAG)
    if not directory or known.get(DIRECTORY_TAG) != directory:
        return Kinship.STRANGERS
    before, now = opening_of(known), opening_of(mine)
    if before is None or now is None:
        return Kinship.STRANGERS
    return Kinship.EARLIER if before < now else Kinship.LATER


def opening_of(tags: Mapping[str, str]) -> int | None:
    """Return how often the directory of a member was opened, by its tags; None: it does not say."""
    text = tags.get(OPENING_TAG, "")
    if not 0 < len(text) <= _LONGEST_NUMBER or not all(character in "0123456789abcdef" for character in text):
        return None
    return int(text, 16)


def is_later_life(before: bytes, now: bytes) -> bool:
    """Tell, by their metas, whether a member is a later life of one that has failed; see Rules.is_later_life."""
    return kinship(tags_of(before), tags_of(now)) is Kinship.EARLIER
