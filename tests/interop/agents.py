"""Real `serf` agents for tests: started on free ports, looked at through their command line, and always ended."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from attrs import define, frozen

from proglog_trio.address import Address
from proglog_trio.membership.profile import ProfileName
from tests.membership.running import EVENTUALLY_SECONDS, POLL_SECONDS, eventually

SERF = shutil.which("serf")

# generous bounds for a machine that is busy with other tests; nothing waits for them to pass
READY_SECONDS = 30
BIND_ATTEMPTS = 5


class AgentEnded(Exception):
    """An agent ended before it was ready; the message is what it logged."""


@frozen
class SeenMember:
    """A member as `serf members` shows it."""

    address: str
    status: str
    tags: Mapping[str, str]


async def run_command(*command: str, timeout: float = READY_SECONDS) -> subprocess.CompletedProcess[bytes]:
    """Run a command beside the other tasks and return what became of it; a failing one is no error."""
    with trio.fail_after(timeout):
        return await trio.run_process(list(command), capture_stdout=True, capture_stderr=True, check=False)


def free_port(host: str) -> int:
    """Return a port that is free for UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((host, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((host, port))
            except OSError:
                continue
            return port


@define(eq=False)
class Agent:
    """A running agent.

    Attributes:
        name: in the cluster.
        address: where it gossips.
        rpc: where it takes commands, host:port.
        process: of the agent.
        directory: its log and what its event handler writes are there.
        within: a command in front of those that speak to it.
    """

    name: str
    address: Address
    rpc: str
    process: trio.Process
    directory: Path
    within: tuple[str, ...] = ()

    @property
    def log(self) -> str:
        """All that it logged."""
        return (self.directory / f"{self.name}.log").read_text("utf-8", "replace")

    def complaints(self) -> list[str]:
        """The warnings and errors that it logged, but for what it says of its own command-line program.

        That one ends as soon as it has what it asked for: an agent that is slow finds its connection reset.
        """
        return [
            line
            for line in self.log.splitlines()
            if ("[WARN]" in line or "[ERR]" in line)
            and not ("agent.ipc:" in line and "connection reset by peer" in line)
        ]

    async def command(self, name: str, *arguments: str) -> str:
        """Run a `serf` command against it and return what it prints; fail if it fails."""
        result = await self.try_command(name, *arguments)
        assert result.returncode == 0, f"serf {name} {arguments}: {result.stdout!r} {result.stderr!r}\n{self.log}"
        return result.stdout.decode()

    async def try_command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a `serf` command against it."""
        return await run_command(*self.within, "serf", name, f"-rpc-addr={self.rpc}", *arguments)

    async def members(self) -> dict[str, SeenMember]:
        """Return all members as it sees them."""
        listed: dict[str, Any] = json.loads(await self.command("members", "-format=json"))
        return {
            member["name"]: SeenMember(member["addr"], member["status"], member["tags"]) for member in listed["members"]
        }

    async def until(self, wanted: Callable[[dict[str, SeenMember]], bool]) -> dict[str, SeenMember]:
        """Wait until it sees the members as wanted."""
        return await eventually(self.members, wanted)

    async def until_status(self, status: str, *names: str) -> None:
        """Wait until it sees all of these members in this status."""
        await self.until(lambda seen: all(name in seen and seen[name].status == status for name in names))

    def heard(self) -> list[tuple[str, str, str]]:
        """Return the events and queries that it heard: kind, name, payload."""
        try:
            lines = (self.directory / f"{self.name}.heard").read_text("utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [(kind, name, payload) for kind, name, payload in (line.split("|", 2) for line in lines)]

    async def until_heard(self, kind: str, name: str, payload: str) -> None:
        """Wait until it heard an event or query."""

        async def look() -> list[tuple[str, str, str]]:
            return self.heard()

        await eventually(look, lambda heard: (kind, name, payload) in heard)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        await end(self.process)

    async def ended(self) -> int:
        """Wait until it ends by itself, and return its exit code."""
        with trio.fail_after(EVENTUALLY_SECONDS):
            return await self.process.wait()


async def end(process: trio.Process) -> None:
    """End a process with SIGKILL and wait for it."""
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    with trio.CancelScope(shield=True), trio.fail_after(READY_SECONDS):
        await process.wait()


def _event_handler(directory: Path, name: str) -> Path:
    """Write a program that notes events and queries and answers the latter; return its path."""
    script = directory / f"{name}.sh"
    script.write_text(
        "#!/bin/sh\n"
        "payload=$(cat)\n"
        f'heard="{directory}/{name}.heard"\n'
        'printf "%s|%s|%s\\n" "$SERF_EVENT" "$SERF_USER_EVENT$SERF_QUERY_NAME" "$payload" >> "$heard"\n'
        '[ "$SERF_EVENT" != query ] || [ "$SERF_QUERY_NAME" = silence ] || printf "answer of %s" "$SERF_SELF_NAME"\n'
        '[ "$SERF_QUERY_NAME" != echo ] || printf " %s" "$payload"\n'
    )
    script.chmod(0o755)
    return script


@asynccontextmanager
async def agent(
    directory: Path,
    name: str,
    *options: str,
    join: Sequence[Address] = (),
    host: str = "127.0.0.1",
    port: int | None = None,
    profile: ProfileName = ProfileName.LOCAL,
    key: str | None = None,
    within: Sequence[str] = (),
    at_defaults: bool = False,
) -> AsyncIterator[Agent]:
    """Run an agent until the block ends.

    Args:
        directory: for its files.
        name: in the cluster.
        options: further ones of `serf agent`.
        join: members to join through.
        host, port: where it gossips; a free port if none is given.
        profile: its timing.
        key: encrypts.
        within: a command in front of its own, that enters a network namespace.
        at_defaults: it is not told where to gossip and to take commands: in a namespace whose address is host.
    """
    joins = [f"-join={address}" for address in join]
    encryption = [f"-encrypt={key}"] if key else []
    options = (*options, f"-profile={profile.value}", *joins, *encryption)
    started = await _start(directory, name, options, host, port, tuple(within), at_defaults=at_defaults)
    try:
        yield started
    finally:
        await end(started.process)


async def _start(
    directory: Path,
    name: str,
    options: Sequence[str],
    host: str,
    port: int | None,
    within: tuple[str, ...],
    *,
    at_defaults: bool,
) -> Agent:
    script = _event_handler(directory, name)
    for attempt in range(BIND_ATTEMPTS):
        # In a namespace of its own every port is free; elsewhere somebody may be faster than the agent.
        address = Address(host, port or (7946 if within else free_port(host)))
        rpc = "127.0.0.1:7373" if at_defaults else f"{host}:{7373 if within else free_port(host)}"
        places = [] if at_defaults else [f"-bind={address}", f"-rpc-addr={rpc}"]
        command = [
            *within, "serf", "agent", f"-node={name}", *places,
            f"-event-handler=user={script}", f"-event-handler=query={script}", *options,
        ]  # fmt: skip
        with (directory / f"{name}.log").open("wb") as log:
            process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        started = Agent(name, address, rpc, process, directory, within)
        try:
            with trio.fail_after(READY_SECONDS):
                await _until_ready(started)
        except AgentEnded:
            if "address already in use" not in started.log or attempt == BIND_ATTEMPTS - 1:
                raise
        except BaseException:
            await end(process)
            raise
        else:
            return started
    raise AssertionError("no port is free")


async def _until_ready(started: Agent) -> None:
    while (await started.try_command("members")).returncode != 0:
        if started.process.poll() is not None:
            raise AgentEnded(started.log)
        await trio.sleep(POLL_SECONDS)
