"""A `serf` agent that is observed: by its RPC port, and by its log for what that tells late or not at all."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress

import trio
from attrs import define, field

from tests.observed.agent_connection import AgentConnection, CommandFailed, Record
from tests.observed.member import Happening, Kind, ObservedMember

START_SECONDS = 180.0

# The RPC port tells of members when the agent has coalesced what happened to them, seconds later.
_LOGGED = (
    (re.compile(r"serf: EventMemberJoin: (\S+)"), Kind.JOIN),
    (re.compile(r"serf: EventMemberLeave: (\S+)"), Kind.LEAVE),
    (re.compile(r"serf: EventMemberFailed: (\S+)"), Kind.FAILED),
    (re.compile(r"memberlist: Suspect (\S+) has failed"), Kind.SUSPECTS),
    (re.compile(r"memberlist: Marking (\S+) as failed, suspect timeout reached"), Kind.DECLARES_DEAD),
)
_LISTENS = "serf: EventMemberJoin: "


@define(eq=False)
class ObservedAgent(ObservedMember):
    """A running agent."""

    _connection: AgentConnection | None = None
    _listens: trio.Event = field(factory=trio.Event)

    async def join(self, address: str) -> None:
        """Have it join through a member."""
        found: list[Record] = []
        await self._command("join", {"Existing": [address], "Replay": False}, found.append, at_once=True)

    async def send_event(self, name: str, payload: bytes = b"") -> None:
        """Have it send a user event."""
        await self._command("event", {"Name": name, "Payload": payload, "Coalesce": False})

    async def ask(self, name: str, *, relay_factor: int = 0) -> None:
        """Have it ask all members."""

        def take(record: Record) -> None:
            match record["Type"]:
                case "ack":
                    self.happened(Kind.ACKNOWLEDGEMENT, name, record["From"])
                case "response":
                    self.happened(Kind.ANSWER, name, record["From"])
                case "done":
                    self.happened(Kind.QUERY_OVER, name)

        await self._command(
            "query", {"Name": name, "Payload": b"", "RequestAck": True, "RelayFactor": relay_factor}, take
        )

    async def _command(
        self,
        name: str,
        body: Record,
        take: Callable[[Record], object] | None = None,
        *,
        at_once: bool = False,
    ) -> None:
        assert self._connection is not None
        await self._connection.command(name, body, take, at_once=at_once)

    def take_line(self, line: str) -> None:
        """Take a line of its log."""
        for pattern, kind in _LOGGED:
            said = pattern.search(line)
            if said is not None:
                self.happened(kind, said[1])
        if _LISTENS in line:
            self._listens.set()

    async def connect(self, host: str, port: int, nursery: trio.Nursery) -> None:
        """Connect to its RPC port once it listens, and have it tell of events and queries."""
        await self._listens.wait()
        while True:
            try:
                stream = await trio.open_tcp_stream(host, port)
                break
            except OSError:
                if self.process.poll() is not None:
                    raise RuntimeError(f"the agent {self.name} has ended") from None
                await trio.sleep(0.05)
        self._connection = AgentConnection(stream)
        nursery.start_soon(self._connection.run)
        await self._connection.command("handshake", {"Version": 1})
        await self._connection.command("stream", {"Type": "user,query"}, lambda record: self._heard(record, nursery))

    def _heard(self, record: Record, nursery: trio.Nursery) -> None:
        if record["Event"] == "user":
            self.happened(Kind.EVENT, record["Name"])
        elif record["Event"] == "query":
            self.happened(Kind.QUERY, record["Name"])
            nursery.start_soon(self._answer, record["ID"])

    async def _answer(self, number: int) -> None:
        # Where it is late, or was killed meanwhile, the one who asked misses the answer.
        with suppress(CommandFailed, trio.BrokenResourceError):
            await self._command("respond", {"ID": number, "Payload": self.name.encode()})

    async def close(self) -> None:
        """Kill it, and close what leads to it."""
        await super().close()
        if self._connection is not None:
            with trio.CancelScope(shield=True):
                await self._connection.stream.aclose()


async def start_agent(
    nursery: trio.Nursery,
    name: str,
    profile: str,
    note: Callable[[Happening], None],
    *,
    host: str,
    port: int,
    rpc_port: int,
    within: Sequence[str] = (),
    is_bound: bool = True,
) -> ObservedAgent:
    """Start an agent that is alone; it is to be killed before the nursery ends.

    Args:
        nursery: reads what it says.
        name: in the cluster.
        profile: its timing.
        note: called with what it says.
        host, port: where it gossips.
        rpc_port: where it takes commands, on the same address.
        within: a command in front of its own, that enters a network namespace.
        is_bound: it is told where to gossip; if not, it is at its defaults, in a namespace with this address.
    """
    places = [f"-bind={host}:{port}"] if is_bound else []
    command = [
        *within, "serf", "agent", f"-node={name}", *places, f"-rpc-addr={host}:{rpc_port}", f"-profile={profile}",
    ]  # fmt: skip
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    agent = ObservedAgent(name, process, note, f"{host}:{port}")
    nursery.start_soon(agent.read_lines, agent.take_line)
    with trio.fail_after(START_SECONDS):
        await agent.connect(host, rpc_port, nursery)
    return agent
