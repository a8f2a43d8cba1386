"""A process that is a member of a gossip cluster and nothing else; for benchmarks/membership.py.

    python -m benchmarks._member NAME PROFILE

Prints its address, then each change of its members, as JSON objects, one a line. Each line on its standard input is an
address to join through; at the end of the input it ends without leaving.
"""

import json
import sys

import trio

from proglog_trio.address import Address
from proglog_trio.membership import (
    GossipConfig,
    GossipProfile,
    MemberEvent,
    Membership,
    ProfileName,
    QueryAcknowledgement,
    UserEvent,
    bind_membership,
)
from proglog_trio.node.log_output import configure_log_output


def say(**what: object) -> None:
    """Print one line, at once."""
    print(json.dumps(what), flush=True)


async def say_what_happens(membership: Membership, *, task_status: trio.TaskStatus[None]) -> None:
    """Print each event."""
    async with membership.events() as events:
        task_status.started()
        async for event in events:
            if isinstance(event, MemberEvent):
                say(event=event.kind.value, names=[member.name for member in event.members])
            elif isinstance(event, UserEvent):
                say(event="user", names=[event.name])


async def ask(membership: Membership, name: str, members: int) -> None:
    """Ask all, and say when so many have acknowledged."""
    async for answer in membership.query(name):
        members -= isinstance(answer, QueryAcknowledgement)
        if members == 0:
            say(event="acknowledged", names=[name])
            return


async def obey(membership: Membership, line: str) -> None:
    """Do what a line of standard input says: join through an address, send an event, or ask so many."""
    match line.split():
        case ["event", name]:
            membership.send_event(name)
        case ["query", name, members]:
            await ask(membership, name, int(members))
        case [address]:
            await membership.join([Address.parse(address)])


async def main(name: str, profile: ProfileName) -> None:
    """Be a member until standard input ends."""
    membership = await bind_membership(GossipConfig(name=name, profile=GossipProfile.named(profile)), {})
    async with trio.open_nursery() as nursery:
        await nursery.start(say_what_happens, membership)
        await nursery.start(membership.run)
        say(address=str(membership.address))
        lines = trio.lowlevel.FdStream(0)
        waiting = b""
        while data := await lines.receive_some():
            *whole, waiting = (waiting + data).split(b"\n")
            for line in whole:
                nursery.start_soon(obey, membership, line.decode())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    configure_log_output("auto", "error")
    trio.run(main, sys.argv[1], ProfileName(sys.argv[2]))
