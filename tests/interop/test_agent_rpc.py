"""The same sessions with an agent and with a member of ours: the `serf` command, serfclient, and what neither sends.

Each of the two is in a cluster of its own, with a further agent that the sessions have it join. What is compared is all
that comes back, but for ports, Lamport times and what tells that one is written in Go.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest
import trio
from attrs import define

from proglog_trio.address import Address
from proglog_trio.membership import AgentRpcServer, EventHandler, EventHandlers, GossipConfig, Keyring, open_membership
from proglog_trio.membership.profile import ProfileName
from proglog_trio.membership.wire.keyring import encode_key
from tests.interop.agents import agent, free_port, run_command
from tests.interop.settings import Setting
from tests.membership.agent_rpc.sessions import REQUESTS, comparable, converse
from tests.membership.running import EVENTUALLY_SECONDS, LAN, eventually

pytestmark = pytest.mark.system

NAME, OTHER = "one", "other"
TAGS = {"role": "web", "zone": "a b"}
KEY, NEW_KEY = encode_key(bytes(range(32))), encode_key(bytes(range(1, 33)))
SCRIPT = 'printf "answer of %s" "$SERF_SELF_NAME"'
"""As the agents of these tests answer."""


@define
class Side:
    """One of the two that are compared.

    Attributes:
        rpc: where it takes commands.
        other: where the further agent gossips.
        within: what stands before a command that speaks to it.
    """

    rpc: Address
    other: Address
    within: tuple[str, ...] = ()

    async def serf(self, command: str, *arguments: str) -> tuple[int, str, str]:
        """Run a `serf` command; return its status, and what it prints."""
        done = await run_command(*self.within, "serf", command, f"-rpc-addr={self.rpc}", *arguments)
        return done.returncode, done.stdout.decode(), done.stderr.decode()


@asynccontextmanager
async def both(directory: Path, *, key: str | None = None) -> AsyncIterator[tuple[Side, Side]]:
    """Run an agent and a member of ours, and for each a further agent that is not joined yet."""
    tags = [f"-tag={name}={value}" for name, value in TAGS.items()]
    start = partial(agent, profile=ProfileName.LAN, key=key)
    (directory / "theirs").mkdir()
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(start(directory, OTHER + str(number))) for number in range(2)]
        theirs = await stack.enter_async_context(start(directory / "theirs", NAME, *tags))
        ours = await stack.enter_async_context(our_agent(NAME, key))
        yield (
            Side(Address.parse(theirs.rpc), others[0].address),
            Side(ours, others[1].address),
        )


@asynccontextmanager
async def our_agent(name: str, key: str | None, auth_key: str | None = None) -> AsyncIterator[Address]:
    """Run a member of ours that is an agent to Serf's tools; give where it takes commands."""
    keyring = None if key is None else Keyring.from_base64([key])
    handlers = [EventHandler.parse(f"query={SCRIPT}")]
    async with (
        open_membership(GossipConfig(name=name, profile=LAN, keyring=keyring), TAGS) as membership,
        trio.open_nursery() as nursery,
    ):
        server = AgentRpcServer(membership, auth_key=auth_key, event_handlers=handlers)
        address = await nursery.start(server.run, Address("127.0.0.1", 0))
        await nursery.start(EventHandlers(membership, handlers).run)
        assert isinstance(address, Address)
        yield address
        nursery.cancel_scope.cancel()


async def of_both(sides: tuple[Side, Side], do: Callable[[Side], Awaitable[Any]]) -> tuple[Any, Any]:
    """Do the same with both, at the same time; return what came of each."""
    found: list[Any] = [None, None]

    async def one(index: int) -> None:
        found[index] = await do(sides[index])

    async with trio.open_nursery() as nursery:
        for index in range(2):
            nursery.start_soon(one, index)
    return found[0], found[1]


def masked(text: str) -> str:
    """Return what a command prints without ports, numbers of the moment and the names of the further agents."""
    text = re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text)
    text = re.sub(rf"{OTHER}\d", OTHER, text)
    text = re.sub(r"[0-9.]+ ms", "TIME", text)
    text = re.sub(r"Protocol Version: \d", "Protocol Version: N", text)
    # Tags have no order.
    text = re.sub(r"(\S+=\S*(?: b)?(?:,\S+=\S*)+)", lambda found: ",".join(sorted(found[1].split(","))), text)
    return re.sub(r"[ \t]+", " ", text)


# -- the serf command --------------------------------------------------------------------------------------------------

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("members",),
    ("join", "OTHER"),
    ("members", "-name=one"),
    ("members", "-status=alive", "-tag=role=w.b"),
    ("members", "-status=failed"),
    ("members", "-name=one", "-detailed"),
    ("event", "deploy", "payload"),
    ("event", "-coalesce=false", "deploy"),
    ("event", "large", "x" * 600),
    ("query", "-node=one", "-timeout=2s", "answered", "this"),
    ("query", "-tag=role=web", "-no-ack", "-timeout=2s", "answered"),
    ("query", "-node=nobody", "-timeout=500ms", "answered"),
    ("tags", "-set=rack=7", "-delete=zone"),
    ("members", "-name=one"),
    ("rtt", "one"),
    ("rtt", "nobody"),
    ("force-leave", "nobody"),
    ("force-leave", "-prune", "nobody"),
)


async def test_the_serf_command_prints_the_same(tmp_path: Path) -> None:
    async with both(tmp_path) as sides:
        for command in COMMANDS:

            async def run(side: Side, command: tuple[str, ...] = command) -> tuple[int, str, str]:
                return await side.serf(*(part.replace("OTHER", str(side.other)) for part in command))

            theirs, ours = await of_both(sides, run)
            if command[0] == "event" and command[1] == "large":
                assert theirs[0] == ours[0] == 1  # what is wrong is said in words of ours
                continue
            assert (ours[0], masked(ours[1]), masked(ours[2])) == (theirs[0], masked(theirs[1]), masked(theirs[2])), (
                command
            )


async def test_reachability_round_trips_and_figures(tmp_path: Path) -> None:
    async with both(tmp_path) as sides:

        async def joined(side: Side) -> None:
            assert (await side.serf("join", str(side.other)))[0] == 0

            async def reached() -> str:
                return (await side.serf("reachability"))[1]

            await eventually(reached, lambda printed: "Successfully contacted all live nodes" in printed)

        await of_both(sides, joined)

        async def info(side: Side) -> tuple[int, str, str]:
            return await side.serf("info")

        theirs, ours = (sections(found[1]) for found in await of_both(sides, info))
        assert ours.keys() == theirs.keys()
        for section in ("runtime", "serf"):
            assert theirs[section].keys() <= ours[section].keys()
        for section, keys in {
            "serf": ("failed", "left", "members", "encrypted"),
            "tags": TAGS,
            "agent": ["name"],
        }.items():
            for key in keys:
                assert ours[section][key] == theirs[section][key]
        assert ours["event_handlers"] == {"query:": SCRIPT}
        assert theirs["event_handlers"].keys() == {"query:", "user:"}

        async def others(side: Side) -> str:
            listed = json.loads((await side.serf("members", "-format=json"))[1])["members"]
            (name,) = {member["name"] for member in listed} - {NAME}

            async def estimated() -> str:
                return (await side.serf("rtt", name))[1]

            return await eventually(estimated, lambda printed: "Estimated" in printed)

        theirs_said, ours_said = await of_both(sides, others)
        assert masked(ours_said) == masked(theirs_said)


def sections(printed: str) -> dict[str, dict[str, str]]:
    """Return what `serf info` prints, by section."""
    found: dict[str, dict[str, str]] = {}
    section = ""
    for line in printed.splitlines():
        if line.startswith("\t"):
            key, _, value = line.strip().partition(" =")
            found[section][key] = value.strip()
        else:
            section = line.rstrip(":")
            found[section] = {}
    return found


async def test_monitor_shows_what_is_logged(tmp_path: Path) -> None:
    async with both(tmp_path) as sides:

        async def monitored(side: Side) -> set[str]:
            command = [*side.within, "serf", "monitor", f"-rpc-addr={side.rpc}", "-log-level=debug"]
            async with trio.open_nursery() as nursery:
                process = await nursery.start(partial(trio.run_process, command, stdout=PIPE, check=False))
                seen: set[str] = set()
                said = b""
                with trio.fail_after(60):
                    while seen < {"event", "log"}:
                        await side.serf("event", "-coalesce=false", "seen")
                        # Of the process that has the member of ours: these tests.
                        logging.getLogger("tests").warning("something is logged")
                        said += await process.stdout.receive_some(65536)
                        seen |= {"event"} if b'Name: "seen"' in said else set()
                        seen |= {"log"} if re.search(rb"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[[A-Z]+\] ", said) else set()
                nursery.cancel_scope.cancel()
            return seen

        theirs, ours = await of_both(sides, monitored)
        assert ours == theirs


async def test_keys_are_rotated(tmp_path: Path) -> None:
    async with both(tmp_path, key=KEY) as sides:
        for command in (
            ("join", "OTHER"),
            ("keys", "-list"),
            ("keys", f"-install={NEW_KEY}"),
            ("keys", f"-use={NEW_KEY}"),
            ("keys", "-list"),
            ("keys", f"-remove={KEY}"),
            ("keys", "-list"),
        ):

            async def run(side: Side, command: tuple[str, ...] = command) -> tuple[int, str, str]:
                return await side.serf(*(part.replace("OTHER", str(side.other)) for part in command))

            theirs, ours = await of_both(sides, run)
            assert ours[0] == theirs[0] == 0, (command, ours)
            assert sorted(masked(ours[1]).splitlines()) == sorted(masked(theirs[1]).splitlines()), command


async def test_a_member_leaves(tmp_path: Path) -> None:
    async with both(tmp_path) as sides:

        async def leave(side: Side) -> tuple[int, str, str]:
            await side.serf("join", str(side.other))
            return await side.serf("leave")

        theirs, ours = await of_both(sides, leave)
        assert ours == theirs


async def test_a_failed_member_is_forced_out(tmp_path: Path) -> None:
    async with our_agent(NAME, None) as ours, agent(tmp_path, "gone", profile=ProfileName.LAN) as gone:
        side = Side(ours, gone.address)
        assert (await side.serf("join", str(gone.address)))[0] == 0
        await gone.kill()

        async def status() -> str:
            listed = json.loads((await side.serf("members", "-format=json"))[1])["members"]
            return str({member["name"]: member["status"] for member in listed}.get("gone"))

        await eventually(status, lambda seen: seen == "failed")
        assert (await side.serf("force-leave", "gone"))[0] == 0
        assert await status() == "left"
        assert (await side.serf("force-leave", "-prune", "gone"))[0] == 0
        assert await status() == "None"


async def test_members_at_their_defaults_are_shown(tmp_path: Path, setting: Setting, key: str | None) -> None:
    """Of those at their defaults an address has 16 bytes; who reads it sees the same address."""
    async with (
        setting.agent(tmp_path, "x", key=key, profile=ProfileName.LAN) as x,
        setting.start_ours_in() as start,
        trio.open_nursery() as nursery,
    ):
        a = await start("a", join=[x.address], profile=LAN, key=key)
        rpc = await nursery.start(AgentRpcServer(a.membership).run, Address("127.0.0.1", 0))
        side = Side(rpc, x.address)
        theirs = await x.until(lambda seen: seen.keys() == {"x", "a"})
        await a.until_status("alive", "x", "a")
        listed = json.loads((await side.serf("members", "-format=json"))[1])["members"]
        assert {one["name"]: (one["addr"], one["status"], one["tags"]) for one in listed} == {
            name: (one.address, one.status, one.tags) for name, one in theirs.items()
        }
        assert "Ack from 'x'" in (await side.serf("reachability", "-verbose"))[1]
        nursery.cancel_scope.cancel()


async def test_the_serf_command_says_the_key(tmp_path: Path) -> None:
    """An agent is told its own in a file."""
    configuration = tmp_path / "agent.json"
    configuration.write_text(json.dumps({"rpc_auth": "sesame"}))

    async def tried(rpc: Address) -> list[tuple[int, str, str]]:
        side = Side(rpc, rpc)
        options = ("-rpc-auth=sesame",), ("-rpc-auth=wrong",), ()
        return [await side.serf("members", *each) for each in options]

    rpc = Address("127.0.0.1", free_port("127.0.0.1"))
    command = [
        "serf", "agent", f"-node={NAME}", f"-bind=127.0.0.1:{free_port('127.0.0.1')}", f"-rpc-addr={rpc}",
        f"-config-file={configuration}", "-tag=role=web", "-tag=zone=a b",
    ]  # fmt: skip
    async with our_agent(NAME, None, "sesame") as ours, trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, capture_stdout=True, check=False))

        async def theirs() -> list[tuple[int, str, str]]:
            return await tried(rpc)

        said_theirs = await eventually(theirs, lambda said: said[0][0] == 0)
        said_ours = await tried(ours)
        process.kill()
    assert [(status, masked(out), masked(error)) for status, out, error in said_ours] == [
        (status, masked(out), masked(error)) for status, out, error in said_theirs
    ]
    assert [status for status, _, _ in said_ours] == [0, 1, 1]


# -- libraries ---------------------------------------------------------------------------------------------------------


async def test_serfclient_gets_the_same(tmp_path: Path) -> None:
    program = Path(__file__).with_name("serfclient_session.py")
    async with both(tmp_path) as sides:

        async def run(side: Side) -> Any:
            done = await run_command(
                sys.executable, "-W", "ignore", str(program), side.rpc.host, str(side.rpc.port), str(side.other),
                timeout=EVENTUALLY_SECONDS,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr.decode()
            return comparable(json.loads(done.stdout))

        theirs, ours = await of_both(sides, run)
        for each in (theirs, ours):
            each["stats"]["body"] = sorted(each["stats"]["body"])
        assert ours == theirs


# -- what no client sends ----------------------------------------------------------------------------------------------


async def test_what_no_client_sends_is_answered_in_the_same_words(tmp_path: Path) -> None:
    async with both(tmp_path) as sides:

        async def session(side: Side) -> list[Any]:
            return [comparable(each) for each in await converse(side.rpc)]

        theirs, ours = await of_both(sides, session)
        for ask, one, other in zip(REQUESTS, theirs, ours, strict=True):
            assert other == one, ask
