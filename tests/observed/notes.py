"""What all observed members said, in the order in which it was read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import trio
from attrs import define, field

from tests.observed.member import Happening, Kind


@define(eq=False)
class Notes:
    """Everything that was said.

    Attributes:
        all: of it.
    """

    all: list[Happening] = field(factory=list)
    _by_subject: dict[tuple[Kind, str], list[Happening]] = field(factory=lambda: defaultdict(list))
    # When each observer said it for the first time.
    _first: dict[tuple[Kind, str], dict[str, float]] = field(factory=lambda: defaultdict(dict))
    _news: trio.Event = field(factory=trio.Event)

    def note(self, happening: Happening) -> None:
        """Note what a member said."""
        self.all.append(happening)
        self._by_subject[happening.kind, happening.subject].append(happening)
        self._first[happening.kind, happening.subject].setdefault(happening.observer, happening.at)
        self._news.set()
        self._news = trio.Event()

    def of(self, kind: Kind, subject: str) -> Sequence[Happening]:
        """Return what was said of this kind about a member, event or query."""
        return self._by_subject.get((kind, subject), ())

    def observers(self, kind: Kind, subject: str) -> Mapping[str, float]:
        """Return who said so, and when for the first time."""
        return self._first.get((kind, subject), {})

    def answering(self, kind: Kind, query: str) -> set[str]:
        """Return the names of those that acknowledged or answered a query."""
        return {happening.by for happening in self.of(kind, query)}

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds that follows from what was said."""
        while not holds():
            await self._news.wait()

    async def until_joined(self, names: Sequence[str]) -> float:
        """Wait until all of these have said that each of them has joined; return when the last was said."""
        return await self.until_said(Kind.JOIN, names, len(names))

    async def until_said(self, kind: Kind, subjects: Sequence[str], observers: int) -> float:
        """Wait until so many members said this of each of these; return when the last of them did for the first time.

        Args:
            kind: what they say.
            subjects: of whom or what.
            observers: how many of them.
        """
        await self.until(lambda: all(len(self.observers(kind, subject)) >= observers for subject in subjects))
        return max(max(self.observers(kind, subject).values()) for subject in subjects)
