"""Observed members that are started, and all ended together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from attrs import define, field

from tests.observed.agent import start_agent
from tests.observed.member import ObservedMember
from tests.observed.notes import Notes
from tests.observed.ours import start_ours


@define(eq=False)
class Group:
    """Running members, and what they say.

    Attributes:
        notes: of what they say.
        members: in the order in which they were ready.
    """

    _nursery: trio.Nursery
    notes: Notes = field(factory=Notes)
    members: list[ObservedMember] = field(factory=list)

    async def agent(self, name: str, profile: str, **options: Any) -> ObservedMember:
        """Start an agent; options: of start_agent."""
        return self._added(await start_agent(self._nursery, name, profile, self.notes.note, **options))

    async def ours(self, name: str, profile: str, **options: Any) -> ObservedMember:
        """Start a member of ours; options: of start_ours."""
        return self._added(await start_ours(self._nursery, name, profile, self.notes.note, **options))

    def _added(self, member: ObservedMember) -> ObservedMember:
        self.members.append(member)
        return member

    @property
    def names(self) -> list[str]:
        """The names of all."""
        return [member.name for member in self.members]

    async def join_all(self) -> float:
        """Have all join through the first at the same moment; return when the last knew of the last."""
        first, *others = self.members
        async with trio.open_nursery() as nursery:
            for member in others:
                nursery.start_soon(partial(member.join, first.address))
        return await self.notes.until_joined(self.names)


@asynccontextmanager
async def group() -> AsyncIterator[Group]:
    """Give a group without members; those that were started are killed when the block ends."""
    async with trio.open_nursery() as nursery:
        running = Group(nursery)
        try:
            yield running
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                for member in running.members:
                    await member.kill()
    for member in running.members:
        await member.close()
