"""What stands around a replica in tests: what runs it, the membership, and streams that are functions."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from attrs import define, frozen

from proglog_trio.log.repair.missing_ranges import Missing
from proglog_trio.replication.peer_task import NewStream
from proglog_trio.replication.pull_session import PullSession
from proglog_trio.replication.replica import Replica, ReplicaHost
from proglog_trio.replication.replicator import Replicator

RunPull = Callable[[str, PullSession], Awaitable[None]]


class QuietHost:
    """Does nothing of what a replica leaves to what runs it."""

    def deadline_changed(self) -> None:
        pass

    def directories_changed(self) -> None:
        pass

    def superseded(self, opened: int) -> None:
        pass


@define
class AlikeMembers:
    """A membership that says the same of every member."""

    directory_id: bytes | None = None
    opening: int | None = None
    is_there: bool = True

    def directory_of(self, _name: str) -> bytes | None:
        return self.directory_id

    def opening_of(self, _name: str) -> int | None:
        return self.opening

    def statuses(self) -> dict[str, str]:
        return {}

    async def answers(self, _name: str) -> bool:
        await trio.lowlevel.checkpoint()
        return self.is_there


@frozen
class RunBy:
    """A pull stream that is run by a function."""

    run_pull: RunPull
    address: str

    def on_ready(self) -> None:
        pass

    def on_room(self) -> None:
        pass

    async def run(self, session: PullSession) -> None:
        await self.run_pull(self.address, session)


def streams_run_by(run_pull: RunPull) -> NewStream:
    return partial(RunBy, run_pull)


async def pull_nothing(_address: str, _session: PullSession) -> None:
    await trio.lowlevel.checkpoint()


async def fetch_nothing(_address: str, _missing: Missing) -> list[bytes]:
    await trio.lowlevel.checkpoint()
    return []


def replicator_around(replica: Replica) -> Replicator:
    """Return what does not run, over a replica that another runs."""
    return replicator_of(lambda _host: replica)


def replicator_of(
    new_replica: Callable[[ReplicaHost], Replica],
    run_pull: RunPull = pull_nothing,
    fetch: Callable[[str, Missing], Awaitable[list[bytes]]] = fetch_nothing,
    members: AlikeMembers | None = None,
    on_copied: Callable[[str], None] = lambda _name: None,
) -> Replicator:
    members = members or AlikeMembers()
    return Replicator(new_replica, streams_run_by(run_pull), fetch, random.Random(1), members, on_copied)
