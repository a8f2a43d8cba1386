"""Who may call what: every kind of client with every RPC, over a real process; and what is refused changes nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from google.protobuf import descriptor_pb2

import proglog_trio
from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.client import open_producer
from proglog_trio.internal_errors import InternalErrors
from proglog_trio.replication.messages import PROTOCOL_VERSION
from proglog_trio.replication.peers.directories_file import DIRECTORIES_FILE
from proglog_trio.rpc.server.authorization import METHODS, SERVICES, requirement_of
from proglog_trio.rpc.server.cluster_service import ClusterService
from proglog_trio.rpc.server.handlers import ServerCounters, Service
from proglog_trio.rpc.server.log_service import LogService
from proglog_trio.rpc.server.replication_service import ReplicationService
from proglog_trio.rpc.server.server import ServerConfig, _Server
from tests.node_process import NodeProcess, node_process
from tests.pki import POLICY, Pki
from tests.security.grpcio import channel, outcome

KEY = "AAECAwQFBgcICQoLDA0ODw=="
HEALTH = "grpc.health.v1.Health"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
LIST_SERVICES = bytes.fromhex("3a00")  # ServerReflectionRequest(list_services="")
LEAVE = "/log.v1.Cluster/Leave"
# a stream that waits for the log's end to move, or a call that the node has no answer to, has passed the gate
WAITS_SECONDS = 3.0
REFUSED = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
OUR_POLICY = POLICY + "p, operator, *, admin\np, copier, *, replicate\n"

# What makes a client that may call these get an answer; an empty message shows of the others that they were reached.
REQUESTS: Mapping[str, bytes] = {
    "/log.v1.Replication/Pull": bytes(
        log_v1.PullRequest(
            hello=log_v1.Hello(
                version=PROTOCOL_VERSION, cluster_name="proglog", node_name="copier", directory_id=b"elsewhere"[:8]
            )
        )
    ),
    "/log.v1.Replication/FetchFrames": bytes(
        log_v1.FetchFramesRequest(cluster_name="proglog", origin=bytes(16), from_sequence=0, to_sequence=1)
    ),
    "/log.v1.Cluster/GetStatus": b"",
    "/log.v1.Cluster/GetMembers": b"",
    "/log.v1.Cluster/AcceptGaps": b"",
    "/log.v1.Log/GetServers": b"",
}

# what a client may do, by name; the first four never may do anything
OUTSIDERS = ("plain", "no certificate", "another authority's", "expired")
RIGHTS: Mapping[str, set[str]] = {
    "nobody": set(),
    "root": {"produce", "consume"},
    "copier": {"replicate"},
    "operator": {"admin"},
}


def served_methods() -> set[str]:
    """What a node serves, as its server maps paths to methods; nothing is called, so there is nothing behind them."""
    nothing: Any = None
    member: Any = SimpleNamespace(gossip=SimpleNamespace(keys=nothing))
    services: list[Service] = [
        LogService(nothing, nothing),
        ClusterService(member, 0, nothing, nothing, nothing),
        ReplicationService(nothing, nothing),
    ]
    return set(_Server(services, ServerConfig(), ServerCounters(), None, InternalErrors())._mapping)


def methods_of_the_contract() -> set[str]:
    """Every method that the contract has."""
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(
        (Path(proglog_trio.__file__).parent / "_proto" / "descriptors.binpb").read_bytes()
    )
    return {
        f"/{file.package}.{service.name}/{method.name}"
        for file in descriptors.file
        for service in file.service
        for method in service.method
    }


def all_methods() -> list[str]:
    """Every method that a node serves, and two that it does not."""
    return sorted({*served_methods(), "/log.v1.Log/Unknown", "/unknown.Service/Method"})


def service_of(path: str) -> str:
    return path.split("/")[1]


def test_every_method_of_the_contract_is_served_and_has_a_rule() -> None:
    assert {path for path in served_methods() if path.startswith("/log.")} == methods_of_the_contract()
    assert set(METHODS) <= served_methods()
    assert set(SERVICES) <= {service_of(path) for path in served_methods()}
    assert set(REQUESTS) <= served_methods()
    without = [path for path in all_methods() if requirement_of(path) is None]
    assert without == ["/log.v1.Log/Unknown", "/unknown.Service/Method"]


def expected(client: str, path: str) -> set[str] | None:
    """The statuses that are right; None: any that shows that the gate was passed."""
    if client in ("plain", "another authority's", "expired"):
        return {"UNAVAILABLE"}
    if service_of(path) == HEALTH:
        # Empty, it asks about the whole node; reflection does nothing with what is empty but to say so.
        return {"OK"}
    if client == "no certificate":
        return {"UNAUTHENTICATED"}
    requirement = requirement_of(path)
    if requirement is None:
        return {"UNIMPLEMENTED"}
    if not requirement.actions or RIGHTS[client] & {action.value for action in requirement.actions}:
        return {"OK"} if path in REQUESTS else None
    return {"PERMISSION_DENIED"}


def contents(directory: Path) -> dict[str, str]:
    """Every file below a directory, and what is in it; but for the list of nodes, in which one that pulls is noted."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != DIRECTORIES_FILE
    }


def try_everything(address: str, pki: Pki, client: str, paths: list[str]) -> list[str]:
    """Call every method as one client; return what is not as it should be."""
    wrong = []
    certificate = {"no certificate": None, "another authority's": "other", "expired": "expired"}.get(client, client)
    with channel(address, None if client == "plain" else pki, certificate) as opened:
        for path in paths:
            right = expected(client, path)
            request = REQUESTS.get(path, b"")
            status, message = outcome(opened, path, request, seconds=WAITS_SECONDS if right is None else 30.0)
            passed = status not in {*REFUSED, "UNAVAILABLE"} if right is None else status in right
            if status == "PERMISSION_DENIED":
                passed &= message.startswith(f"{client} not permitted to ")
            if not passed:
                wrong.append(f"{client} {path}: {status} {message}")
    return wrong


def secured(pki: Pki) -> tuple[str, ...]:
    return (*pki.node_arguments(), "--encrypt", KEY, "--gossip-profile", "local", "--node-name", "a")


def services_of(address: str, pki: Pki) -> set[str]:
    """The names of services that a node says it has."""
    with channel(address, pki) as opened:
        call = opened.stream_stream(REFLECTION, request_serializer=bytes, response_deserializer=bytes)
        answers = call(iter([LIST_SERVICES]), timeout=30.0)
        for answer in answers:
            answers.cancel()  # type: ignore[no-untyped-call]  # the stubs leave it out
            return {found.decode() for found in re.findall(rb"[a-z0-9]+(?:\.[A-Za-z0-9]+)+", answer)}
    raise AssertionError("the node does not say what it has")


async def test_a_node_has_no_service_that_is_not_looked_at(tmp_path: Path) -> None:
    pki = Pki.make(tmp_path / "pki")
    async with node_process(tmp_path / "data", *secured(pki)) as node:
        found = await trio.to_thread.run_sync(services_of, node.address, pki)
    assert found == {service_of(path) for path in served_methods() if "ServerReflection" not in path}


async def members_and_offset(node: NodeProcess, pki: Pki) -> tuple[bytes, int]:
    from proglog_trio.client import open_consumer
    from proglog_trio.rpc.calls.cluster import get_members

    found = await get_members(node.address, 30.0, tls=pki.client_tls("operator"))
    async with open_consumer(node.address, connection=pki.connection(), follow=False) as consumer:
        return repr([(each.name, each.status) for each in found]).encode(), consumer.end_offset or 0


@pytest.mark.system
async def test_only_the_right_cells_pass(tmp_path: Path) -> None:
    pki = Pki.make(tmp_path / "pki")
    (pki / "policy.csv").write_text(OUR_POLICY)
    for name in ("operator", "copier"):
        pki.client(name)
    methods = [path for path in all_methods() if path != LEAVE]
    async with node_process(tmp_path / "data", *secured(pki)) as node:
        async with open_producer(node.address, connection=pki.connection()) as producer:
            await producer.send(b"what was there before")
        before = await members_and_offset(node, pki), contents(tmp_path / "data")
        wrong: list[str] = []
        for client in (*OUTSIDERS, "nobody", "copier"):
            wrong += await trio.to_thread.run_sync(try_everything, node.address, pki, client, [*methods, LEAVE])
        assert (await members_and_offset(node, pki), contents(tmp_path / "data")) == before
        for client in ("root", "operator"):
            wrong += await trio.to_thread.run_sync(try_everything, node.address, pki, client, methods)
        assert not wrong, "\n".join(wrong)
        # What the policy allows nobody else, and ends the node.
        assert not await trio.to_thread.run_sync(try_everything, node.address, pki, "root", [LEAVE])
        assert not await trio.to_thread.run_sync(try_everything, node.address, pki, "operator", [LEAVE])
        with trio.fail_after(30):
            assert await node.process.wait() == 0
        logged = node.logged()
    # Of the first client: with so many at once, those of the others are only counted.
    assert "a call without a valid identity was turned away" in logged
    assert "casbin" not in logged
    assert KEY not in logged
    assert "PRIVATE KEY" not in logged


async def test_the_books_policy_lets_who_may_do_both_copy_and_nobody_administer(tmp_path: Path) -> None:
    pki = Pki.make(tmp_path / "pki")
    async with node_process(tmp_path / "data", *secured(pki)) as node:

        def statuses(client: str) -> list[str]:
            with channel(node.address, pki, client) as opened:
                paths = ("/log.v1.Replication/Pull", "/log.v1.Cluster/Join", "/log.v1.Cluster/GetMembers")
                return [outcome(opened, path, seconds=WAITS_SECONDS)[0] for path in paths]

        pull, join, members = await trio.to_thread.run_sync(statuses, "root")
        assert pull not in REFUSED
        assert (join, members) == ("PERMISSION_DENIED", "OK")
        assert await trio.to_thread.run_sync(statuses, "nobody") == ["PERMISSION_DENIED"] * 3


@pytest.mark.parametrize("client", ["root", "nobody"])
async def test_without_a_policy_every_accepted_certificate_may_do_everything(tmp_path: Path, client: str) -> None:
    pki = Pki.make(tmp_path / "pki")
    async with node_process(tmp_path / "data", *pki.node_arguments(access=False)) as node:

        def statuses(certificate: str | None) -> list[str]:
            with channel(node.address, pki, certificate) as opened:
                return [outcome(opened, path)[0] for path in ("/log.v1.Log/GetServers", "/log.v1.Cluster/ForceLeave")]

        assert await trio.to_thread.run_sync(statuses, client) == ["OK", "NOT_FOUND"]
        assert await trio.to_thread.run_sync(statuses, None) == ["UNAUTHENTICATED"] * 2
