"""A cluster of two members of ours, a and b, and three agents, x, y and z, joined in both directions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from attrs import frozen

from proglog_trio.membership.profile import ProfileName
from tests.interop.agents import Agent
from tests.interop.settings import Setting
from tests.membership.running import LAN, Ours

ALL = ("a", "b", "x", "y", "z")


@frozen
class Cluster:
    """Who is in it; agent and ours start further members, until a block or the cluster ends."""

    a: Ours
    b: Ours
    x: Agent
    y: Agent
    z: Agent
    agent: Callable[..., AbstractAsyncContextManager[Agent]]
    ours: Callable[..., Awaitable[Ours]]

    async def all_see(self, status: str, *names: str, by: tuple[Ours | Agent, ...] = ()) -> None:
        """Wait until these members, or all that the cluster began with, see those names in a status."""
        await all_of(*(_waiter(member, status, names) for member in by or (self.a, self.b, self.x, self.y, self.z)))


def _waiter(member: Ours | Agent, status: str, names: tuple[str, ...]) -> Callable[[], Awaitable[None]]:
    async def wait() -> None:
        await member.until_status(status, *names)

    return wait


async def all_of(*actions: Callable[[], Awaitable[object]]) -> None:
    """Do all of this at the same time."""
    async with trio.open_nursery() as nursery:
        for action in actions:
            nursery.start_soon(action)


@asynccontextmanager
async def cluster(directory: Path, setting: Setting, key: str | None = None) -> AsyncIterator[Cluster]:
    """Run a cluster; everybody sees everybody when the block begins.

    It has the lan profile: the local one sends a broadcast in a cluster of five to two others only, so that now and
    then somebody hears of a thing by push/pull alone, 15 s later, and a query does not reach everybody.
    """
    agent_of = partial(setting.agent, directory, key=key, profile=ProfileName.LAN)
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        ours_of = partial(setting.ours(nursery), key=key, profile=LAN)
        x = await stack.enter_async_context(agent_of("x", "-tag=role=web", "-tag=rpc_addr=x:8400"))
        # ours through an agent, ours through ours, an agent through ours as it starts, an agent told to later
        a = await ours_of("a", join=[x.address])
        b = await ours_of("b", join=[a.address])
        y = await stack.enter_async_context(agent_of("y", join=[b.address]))
        z = await stack.enter_async_context(agent_of("z"))
        await z.command("join", str(a.address))
        running = Cluster(a, b, x, y, z, agent_of, ours_of)
        await running.all_see("alive", *ALL)
        yield running
        nursery.cancel_scope.cancel()
