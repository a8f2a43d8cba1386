"""Protocol versions: which members can be in one cluster.

A member says, of memberlist's protocol and of Serf's, the lowest and the highest version that it understands, and which
it speaks. Agents refuse a state as a whole if a member in it speaks what another in it, or of theirs, does not
understand. So one such member, which may never have existed, would cut off each member that repeats what it was told.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, field

MAX_VERSIONS = 64
"""Different versions that members may have at one time: a rolling update has two."""


def is_sound(version: bytes) -> bool:
    """Tell whether agents look at news that has this version at all: they ignore it where a range is empty."""
    lowest, highest = version[0], version[1]
    return 0 < lowest <= highest


def _understands(version: bytes, other: bytes) -> bool:
    """Tell whether members with one version understand those with another."""
    return version[0] <= other[2] <= version[1] and version[3] <= other[5] <= version[4]


@define(eq=False)
class Versions:
    """The versions of all members that are known."""

    _members: Counter[bytes] = field(factory=Counter)

    def add(self, version: bytes) -> None:
        """Count a member that has a version."""
        self._members[version] += 1

    def remove(self, version: bytes) -> None:
        """Count a member with a version no longer: it is not known any more, or has another."""
        self._members[version] -= 1
        if self._members[version] <= 0:
            del self._members[version]

    def fit(self, version: bytes, instead_of: bytes | None = None) -> bool:
        """Tell whether a member with a version understands all others, and they understand it.

        Args:
            version: six bytes, as in Node.
            instead_of: the version that this member had so far.
        """
        if version == instead_of:
            return True
        others = [other for other, count in self._members.items() if other != instead_of or count > 1]
        if version in others:
            return True
        return (
            len(others) < MAX_VERSIONS
            and is_sound(version)
            and _understands(version, version)
            and all(_understands(version, other) and _understands(other, version) for other in others)
        )
