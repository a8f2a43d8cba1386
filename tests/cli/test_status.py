"""`status`, and what `members --json` shows of peers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio
from attrs import frozen
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.client import ProducerConfig, open_producer
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.messages.stream_io import receive_only
from proglog_trio.rpc.server.server import serve
from tests.members import node_inside
from tests.node_process import run_command
from tests.pki import Pki
from tests.replication.real_nodes import nodes_inside, wait_for

ORIGIN = bytes(range(16))


async def test_status_and_members(tmp_path: Path) -> None:
    async with nodes_inside(tmp_path, "ab", cluster_size=2) as (a, b):
        async with open_producer(a.address, ProducerConfig()) as producer:
            await producer.send_batch([b"value"] * 5)
        await wait_for(a, lambda status: any(place.next == 5 for peer in status.peers for place in peer.places))

        code, output, errors = await run_command("status", "--addr", b.address, "--json")
        assert code == ExitCode.DONE, errors
        status = json.loads(output)
        assert (status["node_name"], status["rpc_addr"], status["next_offset"]) == ("b", b.address, 5)
        assert (status["cluster_size"], status["read_only_reason"]) == (2, None)
        (origin,) = status["origins"]
        assert {key: origin[key] for key in origin if key != "origin"} == {
            "low": 0,
            "next": 5,
            "written_by": "a",
            "pulled_from": "a",
            "behind": 0,
            "missing": 0,
            "missing_at_present": [],
        }
        assert [(peer["name"], peer["connected"], peer["peer_behind"]) for peer in status["peers"]] == [("a", True, 0)]
        assert status["counters"]["records_applied"] == 5
        assert status["counters"]["records_produced"] == 0

        code, output, errors = await run_command("status", "--addr", a.address)
        assert code == ExitCode.DONE, errors
        lines = output.decode().splitlines()
        assert "a cluster meant to have 2 nodes" in lines[1]
        assert lines[2] == "log       offsets 0 to 4, 5 records"
        assert [line.split() for line in lines[4:6]] == [
            ["origin", "low", "next", "behind", "missing", "written", "by", "pulled", "from"],
            [origin["origin"], "0", "5", "0", "0", "this", "node", "-"],
        ]
        assert lines[-1].split() == ["b", b.address, "0", "0", "connected"]

        code, output, errors = await run_command("members", "--addr", a.address, "--json")
        assert code == ExitCode.DONE, errors
        members = {each["name"]: each for each in json.loads(output)}
        assert "peer_behind" not in members["a"]
        assert (members["b"]["connected"], members["b"]["peer_behind"], members["b"]["node_behind"]) == (True, 0, 0)
        assert members["b"]["places"] == [{"origin": origin["origin"], "low": 0, "next": 5}]
        assert members["b"]["status"] == "alive"


@frozen
class OldClusterService:
    """The Cluster service before it knew GetStatus."""

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            "/log.v1.Cluster/GetMembers": Handler(
                self._get_members, Cardinality.UNARY_UNARY, log_v1.GetMembersRequest, log_v1.GetMembersResponse
            )
        }

    async def _get_members(self, stream: Stream[Any, Any]) -> None:
        await receive_only(stream)
        members = [log_v1.Member(name="old", address="127.0.0.1", port=1, status=log_v1.MemberStatus.ALIVE)]
        await stream.send_message(log_v1.GetMembersResponse(members=members))


async def test_members_of_a_node_that_does_not_know_status() -> None:
    async with asyncio_loop(), trio.open_nursery() as nursery:
        host, port = await nursery.start(serve, [OldClusterService()], "127.0.0.1", 0)
        code, output, errors = await run_command("members", "--addr", f"{host}:{port}", "--json")
        assert code == ExitCode.DONE, errors
        (member,) = json.loads(output)
        assert set(member) == {
            "name",
            "address",
            "port",
            "status",
            "tags",
            "round_trip_seconds",
            "coordinate",
            "versions",
        }
        code, _, errors = await run_command("status", "--addr", f"{host}:{port}")
        assert code == ExitCode.FAILED
        assert "UNIMPLEMENTED" in errors
        assert len(errors.splitlines()) == 1
        nursery.cancel_scope.cancel()


async def test_status_of_a_node_with_tls(tmp_path: Path) -> None:
    pki = Pki.make(tmp_path / "pki")
    async with node_inside(tmp_path / "data", "a", **pki.node_options()) as node:
        code, output, errors = await run_command("status", "--addr", node.address, *pki.command_arguments())
        assert code == ExitCode.DONE, errors
        assert output.startswith(b"node      a, RPC at ")
        code, output, errors = await run_command("status", "--addr", node.address)
        assert (code, output) == (ExitCode.UNREACHABLE, b"")
        assert len(errors.splitlines()) == 1


async def test_status_of_a_node_that_is_not_there() -> None:
    code, output, errors = await run_command("status", "--addr", "127.0.0.1:1")
    assert (code, output) == (ExitCode.UNREACHABLE, b"")
    assert "127.0.0.1:1" in errors
    assert len(errors.splitlines()) == 1
