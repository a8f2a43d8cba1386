"""Members of ours for tests: run in this process, crashed or left as the test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import trio
from attrs import define, evolve, field

from proglog_trio.address import Address, StartAddress
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.events.query_handlers import QueryHandler
from proglog_trio.membership.membership import Membership
from proglog_trio.membership.opening import bind_membership
from proglog_trio.membership.profile import GossipProfile, ProfileName
from proglog_trio.membership.serf.member import Member, MemberEvent, MemberEventKind, MemberStatus
from proglog_trio.membership.serf.merging import MergeCheck
from proglog_trio.membership.wire.keyring import Keyring

# generous, for a machine that is busy with other tests; nothing waits for it to pass
EVENTUALLY_SECONDS = 120
POLL_SECONDS = 0.1
LAN = GossipProfile.named(ProfileName.LAN)
LOCAL = GossipProfile.named(ProfileName.LOCAL)

Value = TypeVar("Value")


async def eventually(look: Callable[[], Awaitable[Value]], wanted: Callable[[Value], bool]) -> Value:
    """Look again and again until what is seen is what is wanted, and return it; fail with what was seen last."""
    value: Value | None = None
    with trio.move_on_after(EVENTUALLY_SECONDS):
        while True:
            value = await look()
            if wanted(value):
                return value
            await trio.sleep(POLL_SECONDS)
    raise AssertionError(f"still not after {EVENTUALLY_SECONDS} s; last seen: {value!r}")


@define
class Peers:
    """A handler that notes what it is told."""

    told: list[tuple[str, ...]] = field(factory=list)

    async def join(self, name: str, addr: str) -> None:
        self.told.append(("join", name, addr))

    async def leave(self, name: str) -> None:
        self.told.append(("leave", name))

    def of(self, name: str) -> list[tuple[str, ...]]:
        """What it was told of one peer."""
        return [told for told in self.told if told[1] == name]


@define(eq=False)
class Ours:
    """A running member of ours."""

    membership: Membership
    peers: Peers
    _scope: trio.CancelScope = field(factory=trio.CancelScope)
    _ended: trio.Event = field(factory=trio.Event)

    @property
    def address(self) -> Address:
        """Where it gossips."""
        endpoint = self.membership.gossip.endpoint
        return Address(endpoint.host, endpoint.port)

    def members(self) -> dict[str, Member]:
        """Return all members as it sees them."""
        return {member.name: member for member in self.membership.members()}

    async def until(self, wanted: Callable[[dict[str, Member]], bool]) -> None:
        """Wait until it sees the members as wanted."""
        with trio.move_on_after(EVENTUALLY_SECONDS):
            async with self.membership.events() as events:
                if wanted(self.members()):
                    return
                async for _ in events:
                    if wanted(self.members()):
                        return
        raise AssertionError(f"still not after {EVENTUALLY_SECONDS} s; last seen: {self.members()!r}")

    async def until_status(self, status: str, *names: str) -> None:
        """Wait until it sees all of these members in this status."""
        await self.until(lambda seen: all(name in seen and seen[name].status.value == status for name in names))

    async def until_measured(self, *names: str) -> None:
        """Wait until it has measured the round trip to all of these members."""

        async def look() -> dict[str, Member]:
            return self.members()

        await eventually(look, lambda seen: all(seen[name].round_trip_seconds is not None for name in names))

    async def crash(self) -> None:
        """Stop without a word: its sockets are closed, as kill -9 would."""
        self._scope.cancel()
        await self._ended.wait()

    async def leave(self) -> None:
        """Leave in order, then stop."""
        with trio.fail_after(EVENTUALLY_SECONDS):
            await self.membership.leave()
        await self.crash()

    async def run(
        self, join: Sequence[StartAddress], *, name_patience: float = 0.0, task_status: trio.TaskStatus[None]
    ) -> None:
        """Run until it is ended."""
        try:
            with self._scope:
                await self.membership.run(join, name_patience=name_patience, task_status=task_status)
        finally:
            self._ended.set()


async def start_ours(
    nursery: trio.Nursery,
    name: str,
    *,
    join: Sequence[StartAddress] = (),
    tags: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    profile: GossipProfile = LOCAL,
    key: str | None = None,
    label: bytes = b"",
    cluster_tag: str | None = None,
    name_patience: float = 0.0,
    query_handlers: Mapping[str, QueryHandler] | None = None,
    largest: int | None = None,
    merge_check: MergeCheck | None = None,
    **options: Any,
) -> Ours:
    """Start a member of ours; it has taken its place in the cluster if a start address answered at once.

    Its arguments, and further options, are those of GossipConfig and open_membership; largest: all limits of events,
    queries and answers.
    """
    keyring = Keyring.from_base64([key]) if key else None
    config = GossipConfig(
        name=name,
        bind_host=host,
        bind_port=port,
        profile=profile,
        keyring=keyring,
        label=label,
        cluster_tag=cluster_tag,
        **options,
    )
    if largest is not None:
        config = evolve(config, user_event_bytes=largest, query_bytes=largest, query_response_bytes=largest)
    peers = Peers()
    tags = tags or {"rpc_addr": f"{name}:8400"}
    membership = await bind_membership(
        config, tags, handler=peers, query_handlers=query_handlers or {}, merge_check=merge_check
    )
    ours = Ours(membership, peers)
    with trio.fail_after(EVENTUALLY_SECONDS):
        await nursery.start(partial(ours.run, join, name_patience=name_patience))
    return ours


@asynccontextmanager
async def start_ours_in() -> AsyncIterator[Callable[..., Awaitable[Ours]]]:
    """Give what starts members of ours, which all end with the block."""
    async with trio.open_nursery() as nursery:
        yield partial(start_ours, nursery)
        nursery.cancel_scope.cancel()


# For tests in which somebody fails: as short as a busy machine allows.
QUICK = evolve(
    LOCAL,
    probe_interval=0.3,
    probe_timeout=0.15,
    suspicion_multiplier=2,
    gossip_interval=0.05,
    gossip_to_the_dead=2.0,
    push_pull_interval=1.0,
)


JOIN, UPDATE, LEAVE, FAILED, REAP = (
    MemberEventKind.JOIN,
    MemberEventKind.UPDATE,
    MemberEventKind.LEAVE,
    MemberEventKind.FAILED,
    MemberEventKind.REAP,
)


def event_of(kind: MemberEventKind, name: str, rpc_addr: str | None) -> MemberEvent:
    """An event about one member."""
    tags = {} if rpc_addr is None else {"rpc_addr": rpc_addr}
    status = MemberStatus.FAILED if kind is MemberEventKind.FAILED else MemberStatus.ALIVE
    return MemberEvent(kind, (Member(name, "127.0.0.1", 1, tags, status),))


async def running(nursery: trio.Nursery, handler: Peers) -> Membership:
    """Start a member with a handler."""
    membership = await bind_membership(GossipConfig(name="me", profile=LOCAL), {"rpc_addr": "me:1"}, handler=handler)
    await nursery.start(membership.run)
    return membership
