"""Where agents and members of ours run in a test: on loopback, or as on machines of their own with agents at their
defaults.

An agent that is told an address to bind says it in 4 bytes. One at its defaults binds all, and says the address of its
machine's interface in 16: the two are one place, but agents compare bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import trio
from attrs import frozen

from proglog_trio.address import Address
from proglog_trio.membership.profile import ProfileName
from tests.interop.agents import Agent, agent
from tests.interop.namespaces import Network
from tests.membership.running import Ours, start_ours


@frozen
class Setting:
    """Where agents and members of ours run.

    Attributes:
        network: agents are at their defaults, each on a machine of this; None: they bind loopback.
    """

    network: Network | None = None

    @property
    def host(self) -> str:
        """Where members of ours gossip."""
        return "127.0.0.1" if self.network is None else self.network.gateway

    @property
    def at_defaults(self) -> bool:
        """Whether agents are told no addresses."""
        return self.network is not None

    @asynccontextmanager
    async def agent(
        self,
        directory: Path,
        name: str,
        *options: str,
        join: Sequence[Address] = (),
        at: Address | None = None,
        profile: ProfileName = ProfileName.LOCAL,
        key: str | None = None,
    ) -> AsyncIterator[Agent]:
        """Run an agent until the block ends; the arguments are those of agents.agent.

        Args:
            directory, name, options, join, profile, key: see there.
            at: where one was before; None: at a place of its own.
        """
        start = partial(agent, directory, name, *options, join=join, profile=profile, key=key)
        if self.network is None:
            running = start(port=None if at is None else at.port)
        else:
            host, enter = await self.network.machine(None if at is None else at.host)
            running = start(host=host, within=enter, at_defaults=True)
        async with running as started:
            yield started

    def ours(self, nursery: trio.Nursery) -> Callable[..., Awaitable[Ours]]:
        """Return what starts members of ours; its arguments are those of start_ours, without where it is."""
        return partial(start_ours, nursery, host=self.host)

    @asynccontextmanager
    async def start_ours_in(self) -> AsyncIterator[Callable[..., Awaitable[Ours]]]:
        """Give what starts members of ours, which all end with the block."""
        async with trio.open_nursery() as nursery:
            yield self.ours(nursery)
            nursery.cancel_scope.cancel()
