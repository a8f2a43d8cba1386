"""A node is an agent to Serf's tools, where it is told to be."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from proglog_trio.address import Address
from proglog_trio.errors import AddressUnavailable
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.run import run_node
from tests.members import node_inside
from tests.membership.agent_rpc.clients import client, named
from tests.node_process import node_process

pytestmark = pytest.mark.timeout(120)


async def test_a_node_is_managed_by_the_agents_rpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the node was told in secret is not a script's to know.
    monkeypatch.setenv("PROGLOG_SERF_RPC_AUTH_KEY", "SECRET")
    heard = tmp_path / "heard"
    said = '"$SERF_SELF_NAME $SERF_EVENT $PROGLOG_SERF_RPC_AUTH_KEY$(cat)"'
    handler = f"user:deploy,query:load=echo {said} | tee -a {heard}"
    path = tmp_path / "serf.sock"
    async with (
        node_inside(tmp_path / "a", "a", serf_rpc_addr=Address("127.0.0.1", 0), event_handler=(handler,)) as a,
        node_inside(tmp_path / "b", "b", join=a.gossip, serf_rpc_addr=path, serf_rpc_auth_key="k") as b,
    ):
        assert isinstance(a.running.agent_rpc_address, Address)
        assert b.running.agent_rpc_address == path
        async with client(a.running.agent_rpc_address) as at_a, client(path, auth_key="k") as at_b:
            for each in (at_a, at_b):
                assert set(named((await each.get("members"))[1])) == {"a", "b"}
            assert await at_b.ask("event", {"Name": "deploy", "Payload": b"1.0"}) == ""
            with trio.fail_after(60):
                while not heard.exists() or not heard.read_text():  # noqa: ASYNC110 - a script writes it
                    await trio.sleep(0.05)
            assert heard.read_text() == "a user 1.0\n"
            assert await at_b.ask("query", {"Name": "load", "Payload": b"now", "Timeout": 30_000_000_000}, seq=99) == ""
            assert await at_b.header(99) == ""
            assert await at_b.read() == {"Type": "response", "From": "a", "Payload": b"a query now\n"}
            error, stats = await at_a.get("stats")
            assert error == ""
            assert set(stats["event_handlers"]) == {"user:deploy", "query:load"}
            # What the node itself needs is not a client's to change.
            assert "rpc_addr" in await at_a.ask("tags", {"DeleteTags": ["rpc_addr"]})
            assert await at_a.ask("tags", {"Tags": {"zone": "1"}}) == ""


async def test_a_node_that_is_told_to_leave_ends(tmp_path: Path) -> None:
    async with node_process(tmp_path / "data", "--serf-rpc-addr", "127.0.0.1:0") as node:
        async with client(Address.parse(node.ready["serf_rpc_addr"])) as asking:
            assert await asking.ask("leave") == ""
            assert await asking.ended() == []
        with trio.fail_after(60):
            assert await node.process.wait() == 0


async def test_an_address_that_another_has_is_no_start(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "a", "a", serf_rpc_addr=Address("127.0.0.1", 0)) as a:
        config = NodeConfig(
            data_dir=tmp_path / "b",
            rpc_port=0,
            bind_addr=Address("127.0.0.1", 0),
            serf_rpc_addr=a.running.agent_rpc_address,
            start_timeout=0,
            disk_reserve=0,
        )
        with pytest.RaisesGroup(
            pytest.RaisesExc(AddressUnavailable, match="agent's RPC"), flatten_subgroups=True, allow_unwrapped=True
        ):
            await run_node(config)
