"""Certificates, authorities and gossip keys are replaced under load: no call fails, no member or stream is lost.

Among the system's tests for its four processes and a serf agent. The plain ones replace one thing at a time: gossip
keys in test_keys.py, certificates and policies in tests/node/test_security.py, authorities in test_tls.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from attrs import define, field

from proglog_trio.address import Address
from proglog_trio.client import Acknowledgement, ClientTls, ConnectionConfig, open_consumer, open_producer
from proglog_trio.membership.profile import ProfileName
from proglog_trio.rpc.calls.cluster import change_key, get_members, get_status, list_keys
from tests.interop.agents import SERF, Agent, agent
from tests.node_process import NodeProcess, node_process
from tests.pki import POLICY, Pki
from tests.replication.real_nodes import connected, records_of, status_of, wait_for, wait_for_records

OLD = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
NEW = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
pytestmark = pytest.mark.system
SECONDS = 120.0
NAMES = ("a", "b", "c")


@define
class Load:
    """Clients that never stop: streams that stay open, and calls on new connections.

    Attributes:
        produced: how many records each node has acknowledged.
        calls: how many calls on new connections were answered.
        pulled: how many records each node says it has from others.
        moved: wakes who waits for more of either.
    """

    nodes: Sequence[NodeProcess]
    tls: ClientTls
    produced: dict[str, int] = field(factory=dict)
    calls: int = 0
    pulled: dict[str, int] = field(factory=dict)
    moved: trio.Event = field(factory=trio.Event)

    def _note(self) -> None:
        self.moved.set()
        self.moved = trio.Event()

    async def produce(self, node: NodeProcess) -> None:
        """Append records one after the other; a failed delivery ends the test."""
        async with open_producer(node.address, connection=ConnectionConfig(tls=self.tls)) as producer:
            while True:
                await (await producer.send(b"x" * 100)).wait()
                self.produced[node.address] = self.produced.get(node.address, 0) + 1
                self._note()

    async def call(self, node: NodeProcess) -> None:
        """Connect and ask, again and again."""
        while True:
            status = await get_status(node.address, SECONDS, tls=self.tls)
            assert [peer.name for peer in status.peers if not peer.connected] == []
            self.pulled[node.address] = status.counters["records_applied"]
            self.calls += 1
            self._note()

    async def goes_on(self) -> None:
        """Wait until every node has acknowledged and pulled more, and every kind of client has had an answer."""
        counted = (self.produced, self.pulled)
        before, calls = [dict(each) for each in counted], self.calls
        with trio.fail_after(SECONDS):
            while self.calls < calls + 2 * len(self.nodes) or any(
                now.get(node.address, 0) <= then.get(node.address, 0)
                for node in self.nodes
                for now, then in zip(counted, before, strict=True)
            ):
                await self.moved.wait()


def options_of(name: str, directory: Path, pki: Pki, others: Sequence[NodeProcess]) -> list[str]:
    """What a node with everything on is told."""
    join = ["--start-join-addrs", str(others[0].ready["gossip_addr"])] if others else []
    keyring = ["--keyring-file", str(directory / f"{name}.keys")]
    return [*pki.node_arguments(), "--node-name", name, *keyring, "--gossip-profile", "lan", *join]


@asynccontextmanager
async def cluster(directory: Path, pki: Pki) -> AsyncIterator[list[NodeProcess]]:
    """Run three nodes with everything on."""
    async with AsyncExitStack() as stack:
        nodes: list[NodeProcess] = []
        for name in NAMES:
            started = node_process(directory / name, *options_of(name, directory, pki, nodes), PROGLOG_ENCRYPT=OLD)
            nodes.append(await stack.enter_async_context(started))
        yield nodes


async def alive(node: NodeProcess, tls: ClientTls) -> set[str]:
    return {member.name for member in await get_members(node.address, SECONDS, tls=tls) if member.status.value == 1}


async def reload(nodes: Sequence[NodeProcess], pki: Pki) -> None:
    """Tell all nodes, and wait until each has read its certificates again."""
    before = [node.logged().count("the server's certificate: read again") for node in nodes]
    for node in nodes:
        node.process.send_signal(signal.SIGHUP)
    with trio.fail_after(SECONDS):
        for node, count in zip(nodes, before, strict=True):
            while node.logged().count("the server's certificate: read again") <= count:  # noqa: ASYNC110 - a file
                await trio.sleep(0.05)


@asynccontextmanager
async def an_agent(directory: Path, nodes: Sequence[NodeProcess]) -> AsyncIterator[Agent | None]:
    """Run a serf agent in the same cluster, where there is serf."""
    if SERF is None:
        if os.environ.get("PROGLOG_REQUIRE_SERF") == "1":
            pytest.fail("serf is not installed")
        yield None
        return
    host, _, port = str(nodes[0].ready["gossip_addr"]).rpartition(":")
    async with agent(directory, "x", join=[Address(host, int(port))], key=OLD, profile=ProfileName.LAN) as running:
        yield running


async def test_everything_is_replaced_under_load(tmp_path: Path) -> None:
    pki = Pki.make(tmp_path / "pki")
    (pki / "policy.csv").write_text(POLICY + "p, operator, *, admin\np, root, *, replicate\n")
    pki.client("operator")
    operator = pki.client_tls("operator")
    async with cluster(tmp_path, pki) as nodes, an_agent(tmp_path, nodes) as foreign:
        names = {*NAMES, *(() if foreign is None else ("x",))}
        with trio.fail_after(SECONDS):
            for node in nodes:
                while await alive(node, operator) != names:  # noqa: ASYNC110 - asked of another process
                    await trio.sleep(0.1)
            for node in nodes:
                await wait_for(node, lambda status: connected(status) == 2, operator)
        load = Load(nodes, pki.client_tls())
        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(load.produce, node)
                nursery.start_soon(load.call, node)
            await load.goes_on()

            # Certificates: all trust both authorities, then all show what the new one signed, then it alone counts.
            old, new = pki.authority.signed, pki.other.signed
            (pki / "both.new").write_bytes(old.certificate_pem + new.certificate_pem)
            (pki / "both.new").replace(pki / "ca.pem")
            await reload(nodes, pki)
            await load.goes_on()
            for client in ("root", "operator"):
                pki.replace(f"{client}-client", pki.other.client(client))
            pki.replace("server", pki.other.server())
            await reload(nodes, pki)
            await load.goes_on()
            pki.replace("ca", new)
            await reload(nodes, pki)
            await load.goes_on()

            # Gossip keys: each step asked of another node.
            for node, method, key in (
                (nodes[0], "InstallKey", NEW),
                (nodes[1], "UseKey", NEW),
                (nodes[2], "RemoveKey", OLD),
            ):
                answers = await change_key(node.address, method, key, SECONDS, tls=operator)
                assert (set(answers.done), answers.problems, answers.silent) == (names, {}, [])
                await load.goes_on()
            found = await list_keys(nodes[0].address, SECONDS, tls=operator)
            assert [(each.key, set(each.members), set(each.primary_of)) for each in found.keys] == [(NEW, names, names)]

            for node in nodes:
                assert await alive(node, operator) == names
            nursery.cancel_scope.cancel()
        for node in nodes:
            # Every record that was acknowledged is there, and nobody ever saw anybody fail.
            async with open_consumer(node.address, connection=ConnectionConfig(tls=load.tls), follow=False) as consumer:
                assert (consumer.end_offset or 0) >= load.produced[node.address]
            assert '"happened": "join"' in node.logged()
            assert '"happened": "failed"' not in node.logged()
            # The streams that were open at the beginning are open still.
            assert node.logged().count('"pulling from a peer"') == len(NAMES) - 1
            assert "cannot pull from a peer" not in node.logged()
        if foreign is not None:
            assert "EventMemberFailed" not in foreign.log
        await a_new_node_replicates(tmp_path, pki, nodes)


async def a_new_node_replicates(directory: Path, pki: Pki, nodes: Sequence[NodeProcess]) -> None:
    """Start a node that knows nothing but what is new: streams begun now are replicated over as well."""
    tls = pki.client_tls()
    written = 0
    for node in nodes:
        status = await status_of(node, tls)
        written += sum(origin.next for origin in status.origins if origin.written_by == status.node_name)
    started = node_process(directory / "d", *options_of("d", directory, pki, nodes), PROGLOG_ENCRYPT=NEW)
    async with started as new:
        async with open_producer(
            new.address, acknowledgement=Acknowledgement.nodes_of(2), connection=ConnectionConfig(tls=tls)
        ) as to:
            await to.send(b"of the new node")
        everybody = [*nodes, new]
        await wait_for_records(everybody, written + 1, tls)
        found = [{(record.origin, record.sequence) for record in await records_of(node, tls)} for node in everybody]
        assert all(each == found[0] for each in found)
        assert len(found[0]) == written + 1
        for node in everybody:
            assert (await status_of(node, tls)).next_offset == written + 1
            assert connected(await wait_for(node, lambda status: connected(status) == len(NAMES), tls)) == len(NAMES)
