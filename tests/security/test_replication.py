"""Replication with everything on, over real processes: who may pull gets every record once, who may not gets none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import trio

from proglog_trio.address import Address
from proglog_trio.client import Acknowledgement, DeliveredBatch, ProducerConfig, open_producer
from tests.node_process import NodeProcess, node_process, run_command
from tests.pki import POLICY, Pki
from tests.replication.real_nodes import (
    LOCAL,
    WAIT_SECONDS,
    connected,
    joining,
    records_of,
    running_nodes,
    status_of,
    wait_for,
    wait_for_records,
)

KEY = "AAECAwQFBgcICQoLDA0ODw=="
OUR_POLICY = POLICY + "p, peer, *, replicate\n"
MANY = 500
RETRIES = 3


def our_pki(directory: Path) -> Pki:
    """Certificates, and a policy under which a client cannot replicate and a peer cannot do anything else."""
    pki = Pki.make(directory)
    (pki / "policy.csv").write_text(OUR_POLICY)
    pki.client("peer")
    return pki


def secured(pki: Pki, peer: str | None = "peer") -> tuple[str, ...]:
    """The options of a node with everything on; peer: whose certificate it shows to others."""
    options = [
        option for option in pki.node_arguments() if not option.startswith(("--peer-tls-cert", "--peer-tls-key"))
    ]
    if peer is not None:
        options += [
            f"--peer-tls-cert-file={pki / f'{peer}-client.pem'}",
            f"--peer-tls-key-file={pki / f'{peer}-client-key.pem'}",
        ]
    return (*options, "--encrypt", KEY, "--cluster-size", "3")


async def produce(node: NodeProcess, pki: Pki, numbers: range, acknowledgement: Acknowledgement) -> None:
    """Write numbers, in batches of a few, and see each reach as many nodes as asked."""
    config = ProducerConfig(batch_records=50, acknowledgement=acknowledgement)
    async with open_producer(node.address, config, connection=pki.connection()) as producer:
        deliveries = [await producer.send_batch([b"%d" % number for number in numbers])]
        for delivery in deliveries:
            for outcome in await delivery.outcomes():
                assert isinstance(outcome, DeliveredBatch), outcome
                assert outcome.reached


async def holds_each_once(nodes: Sequence[NodeProcess], pki: Pki, count: int) -> None:
    """Wait for so many records everywhere, and see that they are the numbers up to it."""
    tls = pki.client_tls()
    await wait_for_records(nodes, count, tls)
    for node in nodes:
        assert sorted(int(record.value) for record in await records_of(node, tls)) == list(range(count))


@pytest.mark.system
async def test_every_node_gets_every_record_once_and_a_killed_one_catches_up(tmp_path: Path) -> None:
    pki = our_pki(tmp_path / "pki")
    options, tls = secured(pki), pki.client_tls()
    async with running_nodes(tmp_path, "ab", *options, tls=tls) as (a, b):
        async with node_process(tmp_path / "c", "--node-name", "c", *LOCAL, *joining(a), *options) as c:
            for node in (a, b, c):
                await wait_for(node, lambda status: connected(status) == 2, tls)
            await produce(a, pki, range(MANY), Acknowledgement.majority())
            await holds_each_once([a, b, c], pki, MANY)
            address = ("--bind-addr", str(c.ready["gossip_addr"]))
            c.kill()
        await produce(b, pki, range(MANY, 2 * MANY), Acknowledgement.majority())
        async with node_process(tmp_path / "c", "--node-name", "c", *LOCAL, *joining(a), *options, *address) as c:
            await holds_each_once([a, b, c], pki, 2 * MANY)
            await produce(c, pki, range(2 * MANY, 2 * MANY + 1), Acknowledgement.nodes_of(3))
            await holds_each_once([a, b, c], pki, 2 * MANY + 1)
        for node in (a, b):
            assert "was denied" not in node.logged()
            assert "was turned away" not in node.logged()
            assert "was not accepted" not in node.logged()


async def turned_away(node: NodeProcess, count: int) -> None:
    """Wait until a node has turned connections or calls away so often, as it counts them."""
    counted = re.compile(
        r"^proglog_(?:denied_total\{.*\}|unauthenticated_total|server_handshakes_failed_total) (\S+)$", re.MULTILINE
    )
    address = Address.parse(str(node.ready["metrics_addr"]))
    with trio.fail_after(WAIT_SECONDS):
        while sum(map(float, counted.findall(await figures(address)))) < count:
            await trio.lowlevel.checkpoint()


async def figures(address: Address) -> str:
    """What a node tells Prometheus."""
    stream = await trio.open_tcp_stream(address.host, address.port)
    async with stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n")
        return b"".join([data async for data in stream]).decode()


REASONS: Mapping[str, tuple[str | None, str, str]] = {
    "no certificate": (
        None,
        "the peer wants to know who this node is: a client certificate is needed for this, and none was sent",
        "a call without a valid identity was turned away",
    ),
    "another authority's": (
        "other",
        "as it does when a client shows a certificate that it does not accept",
        "a certificate was not accepted",
    ),
    "no right": (
        "nobody",
        "the peer's policy does not let this node pull: nobody not permitted to replicate to *",
        "a call was denied",
    ),
}


# One reason shows that nobody is disturbed; that connections with the other certificates may not pull either is seen by
# test_rpc_matrix.py.
@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=() if what == "no right" else pytest.mark.system) for what in REASONS]
)
async def test_a_node_that_may_not_replicate_pulls_nothing_and_disturbs_nobody(tmp_path: Path, what: str) -> None:
    pki = our_pki(tmp_path / "pki")
    tls = pki.client_tls()
    certificate, reason, denial = REASONS[what]
    options = (*secured(pki), "--metrics-addr", "127.0.0.1:0")
    async with running_nodes(tmp_path, "ab", *options, tls=tls) as (a, b):
        await produce(a, pki, range(MANY), Acknowledgement.nodes_of(2))
        streams_before = [node.logged().count('"pulling from a peer"') for node in (a, b)]
        x_options = ("--node-name", "x", *LOCAL, *joining(a), *secured(pki, certificate))
        async with node_process(tmp_path / "x", *x_options) as x:
            # Others may pull from it, so what it has to say arrives.
            await produce(x, pki, range(MANY, MANY + 1), Acknowledgement.nodes_of(3))
            await holds_each_once([a, b], pki, MANY + 1)
            for node in (a, b):
                await turned_away(node, RETRIES)
            status = await wait_for(x, lambda found: len(found.peers) == 2 and all(p.problem for p in found.peers), tls)
            assert (status.next_offset, connected(status)) == (1, 0)
            assert [record.value for record in await records_of(x, tls)] == [b"%d" % MANY]
            for peer in status.peers:
                assert reason in peer.problem
            code, shown, errors = await run_command("status", "--addr", x.address, *pki.command_arguments())
            assert code == 0, errors
            assert shown.decode().count("not connected: ") == shown.decode().count(reason) == 2

            # Nobody else is disturbed.
            await produce(b, pki, range(MANY + 1, 2 * MANY), Acknowledgement.nodes_of(2))
            await holds_each_once([a, b], pki, 2 * MANY)
            for node, before in zip((a, b), streams_before, strict=True):
                assert connected(await status_of(node, tls)) == 2
                logged = node.logged()
                assert logged.count('"pulling from a peer"') == before + 1
                assert logged.count(denial) == 1, logged
                assert "cannot pull from a peer" not in logged
            assert (await status_of(x, tls)).next_offset == 1
            # Once for each of the others, however often it tries.
            assert x.logged().count("cannot pull from a peer") == 2, x.logged()
