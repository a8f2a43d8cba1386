"""User events and queries beside real `serf` agents: how soon all have heard an event, and all have a query.

    python -m benchmarks.user_messages [--sizes 3,10,30] [--rounds 20] [--profile lan]

One cluster of every size and of each kind, one process a member, on the loopback address. In each round one member
sends an event, and the time ends when the last member has said (agents: has logged) that it has it; then another asks
all, and the time ends when it has heard of all that they have the query. No member answers: a handler of an agent is a
process, whose start would be what is measured. Figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgpack
import trio
from attrs import field, frozen

from benchmarks.common import goal, print_machine
from benchmarks.membership import (
    PATIENCE_SECONDS,
    TIME_GOAL,
    Kind,
    Member,
    Ours,
    Serf,
    cluster_of,
    enter_own_network,
    last_of,
    sizes_of,
)
from proglog_trio.node.log_output import configure_log_output

SETTLE_SECONDS = 5.0
"""What came with the joins is gossiped no longer then."""


@frozen
class Figures:
    """Seconds, one for each round."""

    events: list[float] = field(factory=list)
    queries: list[float] = field(factory=list)


async def send_event(kind: Kind, member: Member, name: str) -> None:
    """Have a member send an event."""
    if isinstance(kind, Ours):
        await _say(member, f"event {name}")
    else:
        await _ipc(member, "event", {"Name": name, "Payload": b"", "Coalesce": False}, lambda _: True)


async def ask(kind: Kind, member: Member, name: str, members: int) -> None:
    """Have a member ask all; return when it has heard of so many that they have the query."""
    if isinstance(kind, Ours):
        await _say(member, f"query {name} {members}")
        await member.until("acknowledged", [name])
        return
    acknowledged = 0

    def is_done(answer: Any) -> bool:  # noqa: ANN401 - whatever msgpack gives
        nonlocal acknowledged
        acknowledged += isinstance(answer, dict) and answer.get("Type") == "ack"
        return acknowledged == members

    await _ipc(member, "query", {"Name": name, "RequestAck": True}, is_done)


async def _say(member: Member, line: str) -> None:
    assert member.process.stdin is not None
    await member.process.stdin.send_all(line.encode() + b"\n")


async def _ipc(member: Member, command: str, body: dict[str, Any], is_done: Any) -> None:  # noqa: ANN401 - as above
    """Give an agent a command by its IPC, and read answers until one is the last."""
    async with await trio.open_tcp_stream("127.0.0.1", member.rpc) as stream:
        pack = msgpack.Packer().pack
        handshake = pack({"Command": "handshake", "Seq": 0}) + pack({"Version": 1})
        await stream.send_all(handshake + pack({"Command": command, "Seq": 1}) + pack(body))
        unpacker, headers = msgpack.Unpacker(), 0
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                unpacker.feed(await stream.receive_some())
                for answer in unpacker:
                    if isinstance(answer, dict) and answer.get("Error"):
                        raise RuntimeError(f"the agent answers: {answer['Error']}")
                    headers += isinstance(answer, dict) and "Seq" in answer
                    # The first header is the handshake's.
                    if headers > 1 and is_done(answer):
                        return


async def measure(kind: Kind, size: int, profile: str, rounds: int) -> Figures:
    """Run all rounds with one cluster."""
    figures = Figures()
    async with cluster_of(kind, size, profile) as members:
        async with trio.open_nursery() as nursery:
            for member in members[1:]:
                nursery.start_soon(kind.join, member, members[0])
        await last_of(members, "join", [member.name for member in members])
        await trio.sleep(SETTLE_SECONDS)
        for number in range(rounds):
            sender, asker = members[number % size], members[(number + 1) % size]
            began = time.perf_counter()
            await send_event(kind, sender, f"e{number}")
            figures.events.append(await last_of(members, "user", [f"e{number}"]) - began)
            began = time.perf_counter()
            await ask(kind, asker, f"q{number}", size)
            figures.queries.append(time.perf_counter() - began)
    return figures


def compare(sizes: Sequence[int], rounds: int, profile: str) -> bool:
    """Measure both kinds, and print medians and ratios; return whether all goals are reached."""
    reached = True
    for size in sizes:
        print(f"\n{size} members, {profile} profile, median of {rounds}")
        figures = {kind.name: trio.run(partial(measure, kind, size, profile, rounds)) for kind in (Serf(), Ours())}
        print(f"{'':<40}{Ours.name:>14}{Serf.name:>10}{'ratio':>8}")
        for what in ("events", "queries"):
            ours, serf = (statistics.median(getattr(figures[name], what)) for name in (Ours.name, Serf.name))
            ratio = ours / serf
            reached &= ratio <= TIME_GOAL
            label = {"events": "an event heard by all, s", "queries": "a query acknowledged by all, s"}[what]
            words = f"   goal, at most ratio of {TIME_GOAL}: {goal(ratio <= TIME_GOAL)}"
            print(f"{label:<40}{ours:>14.3f}{serf:>10.3f}{ratio:>8.2f}{words}")
    return reached


def main() -> None:
    """Measure what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=sizes_of, default=[3, 10, 30], help="members of the clusters, as 3,10,30")
    parser.add_argument("--rounds", type=int, default=20, help="how often everything is done")
    parser.add_argument("--profile", choices=["lan", "local", "wan"], default="lan")
    arguments = parser.parse_args()
    if shutil.which("serf") is None:
        sys.exit("serf is not installed; on Debian: apt-get install serf")
    enter_own_network("benchmarks.user_messages")
    configure_log_output("auto", "warning")
    print_machine()
    sys.exit(0 if compare(arguments.sizes, arguments.rounds, arguments.profile) else 1)


if __name__ == "__main__":
    main()
