import ctypes
import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from proglog_trio.address import Address
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.client import Anchor, DeliveryRefused, open_consumer, open_producer
from proglog_trio.errors import DataDirectoryError
from proglog_trio.log.format.checksum import crc32c
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.parts_config import log_config, server_config
from proglog_trio.node.run import RunningNode, run_node
from tests.members import node_inside
from tests.node_process import (
    READY_SECONDS,
    allow_small_files_only,
    clean_environment,
    node_command,
    node_process,
    read_line,
    run_command,
)

# what a node promises, with clients connected; it takes a tenth of that
PROMISED_STOP_SECONDS = 5


async def fails_to_start(
    data_dir: Path,
    *arguments: str,
    code: ExitCode = ExitCode.USAGE,
    preexec: Callable[[], None] | None = None,
) -> str:
    """Start a node that must refuse; return its one line."""
    with trio.fail_after(READY_SECONDS):
        done = await trio.run_process(
            node_command(data_dir, "--log-level", "error", "--start-timeout", "0", *arguments),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=clean_environment(),
            preexec_fn=preexec,
        )
    errors = done.stderr.decode()
    assert (done.returncode, done.stdout) == (code, b""), errors
    assert errors.startswith("proglog-trio: ")
    assert len(errors.splitlines()) == 1
    return errors


async def refuses(data_dir: Path, problem: str) -> None:
    """Have a node in this process refuse a directory; fails_to_start sees what a process makes of such an error."""
    with pytest.RaisesGroup(pytest.RaisesExc(DataDirectoryError, match=re.escape(problem)), flatten_subgroups=True):
        async with node_inside(data_dir, "a"):
            pytest.fail("it started")


# -- running -----------------------------------------------------------------------------------------------------------


async def test_says_that_it_is_ready(tmp_path: Path) -> None:
    async with node_process(tmp_path / "data", "--node-name", "one", "--bind-addr", "localhost:0") as node:
        port = int(node.address.rpartition(":")[2])
        assert node.ready == {
            "node_name": "one",
            "rpc_addr": f"localhost:{port}",
            "gossip_addr": node.ready["gossip_addr"],
            "data_dir": str(tmp_path / "data"),
            "lowest_offset": 0,
            "next_offset": 0,
            "pid": node.process.pid,
        }
        assert await node.stop() == ExitCode.DONE
    logged = [json.loads(line) for line in node.logged().splitlines()]
    assert [line["event"] for line in logged if line["logger"] == "proglog_trio.cli.node"] == ["told to stop"]


async def test_records_outlive_the_process(tmp_path: Path) -> None:
    async with node_process(tmp_path / "data") as node:
        async with open_producer(node.address) as producer:
            assert [(await (await producer.send(value)).wait()).offset for value in (b"a", b"b")] == [0, 1]
        assert await node.stop(signal.SIGINT) == ExitCode.DONE
    async with node_process(tmp_path / "data") as node:
        assert node.ready["next_offset"] == 2
        async with open_consumer(node.address, follow=False) as consumer:
            assert [(record.offset, record.value) async for record in consumer] == [(0, b"a"), (1, b"b")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stops_in_time_with_clients_connected(number: signal.Signals, tmp_path: Path) -> None:
    acknowledged = 0
    async with node_process(tmp_path / "data") as node:
        host, _, port = node.address.rpartition(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(10)]
        seen = trio.Event()

        async def produce() -> None:
            nonlocal acknowledged
            async with open_producer(node.address) as producer:
                while True:
                    delivered = await (await producer.send(b"x" * 1000)).wait()
                    acknowledged = delivered.offset + 1

        async def follow() -> None:
            async with open_consumer(node.address, anchor=Anchor.LOWEST) as consumer:
                async for _ in consumer:
                    seen.set()

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(produce)
                nursery.start_soon(follow)
            await seen.wait()
            node.process.send_signal(number)
            with trio.fail_after(PROMISED_STOP_SECONDS):
                assert await node.process.wait() == ExitCode.DONE
            nursery.cancel_scope.cancel()
        for each in silent:
            each.close()
    async with node_inside(tmp_path / "data", "a") as again:
        assert again.running.next_offset >= acknowledged


async def test_runs_and_stops_inside_a_program(tmp_path: Path) -> None:
    config = NodeConfig(data_dir=tmp_path / "data", rpc_port=0, bind_addr=Address("127.0.0.1", 0), node_name="inside")
    for held in range(2):
        async with trio.open_nursery() as nursery:
            node: RunningNode = await nursery.start(run_node, config)
            assert (node.name, node.lowest_offset, node.next_offset) == ("inside", 0, held)
            async with open_producer(str(node.rpc_address)) as producer:
                await (await producer.send(b"x")).wait()
            nursery.cancel_scope.cancel()


def test_configuration_reaches_the_parts(tmp_path: Path) -> None:
    config = NodeConfig(
        data_dir=tmp_path,
        cluster_name="blue",
        segment_bytes=1 << 20,
        retention_bytes=1 << 30,
        retention_age=60.0,
        max_message_bytes=1 << 20,
        bind_addr=Address("localhost", 0),
    )
    log = log_config(config)
    assert (log.directory, log.cluster_name, log.segment_bytes) == (tmp_path, "blue", 1 << 20)
    assert (log.retention_bytes, log.retention_age) == (1 << 30, 60.0)
    assert server_config(config).transport.message_bytes == 1 << 20
    assert log.max_batch_bytes < 1 << 20


async def test_unknown_variable_is_warned_about(tmp_path: Path) -> None:
    async with node_process(tmp_path / "data", PROGLOG_RPC_PROT="1") as node:
        assert await node.stop() == ExitCode.DONE
    assert "PROGLOG_RPC_PROT" in node.logged()


async def test_readable_line(tmp_path: Path) -> None:
    command = [argument for argument in node_command(tmp_path / "data") if argument != "--json"]
    process = await trio.lowlevel.open_process(
        [*command, "--log-level", "error", "--node-name", "one"], stdout=-1, env=clean_environment()
    )
    try:
        assert process.stdout is not None
        with trio.fail_after(READY_SECONDS):
            line = await read_line(process.stdout)
            assert line.startswith(b"node one is ready: it takes RPCs at 127.0.0.1:")
            assert line.endswith(f"keeps its log in {tmp_path}/data (0 records)\n".encode())
            process.terminate()
            assert await process.wait() == ExitCode.DONE
    finally:
        if process.poll() is None:
            process.kill()
            await process.wait()
        assert process.stdout is not None
        await process.stdout.aclose()


async def test_failure_that_nobody_foresaw(tmp_path: Path) -> None:
    script = f"""
import proglog_trio.node.run
from proglog_trio.cli.app import main

async def run_node(config, *, counted, task_status):
    raise RuntimeError("unforeseen")

proglog_trio.node.run.run_node = run_node
main(["node", "--data-dir", {str(tmp_path / "data")!r}])
"""
    done = await trio.run_process(
        [sys.executable, "-c", script], capture_stderr=True, check=False, env=clean_environment()
    )
    assert done.returncode == ExitCode.FAILED
    event = json.loads(done.stderr)
    assert (event["event"], event["level"]) == ("the node stopped on an error", "error")
    assert "RuntimeError: unforeseen" in event["exception"]


# -- what it refuses ---------------------------------------------------------------------------------------------------


async def test_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = node_command(tmp_path / "data", "--log-level", "error", "--start-timeout", "0", rpc_port=port)
        code, output, errors = await run_command(*command[3:])
    assert (code, output) == (ExitCode.ADDRESS_UNAVAILABLE, b"")
    assert errors == f"proglog-trio: cannot listen on 127.0.0.1:{port}: the port is in use\n"


async def test_address_of_another_machine(tmp_path: Path) -> None:
    # 192.0.2.0/24 is for documentation (RFC 5737): no machine has it
    options = ("--bind-addr", "192.0.2.1:8401", "--insecure")
    errors = await fails_to_start(tmp_path / "data", *options, code=ExitCode.ADDRESS_UNAVAILABLE)
    assert "cannot gossip on 192.0.2.1:8401" in errors


async def test_directory_of_another_node(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "data", "a") as node:
        errors = await fails_to_start(tmp_path / "data", code=ExitCode.DIRECTORY_UNAVAILABLE)
        assert f"{tmp_path}/data is locked" in errors
        # the one that has it is not disturbed
        async with open_producer(node.address) as producer:
            await (await producer.send(b"x")).wait()


async def test_directory_of_another_cluster(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "data", "a", cluster_name="blue"):
        pass
    errors = await fails_to_start(tmp_path / "data", "--cluster-name", "green")
    assert "blue" in errors
    assert "green" in errors


async def test_directory_of_a_newer_format(tmp_path: Path) -> None:
    async with node_inside(tmp_path / "data", "a"):
        pass
    (store,) = (tmp_path / "data" / "log").glob("*.store")
    data = bytearray(store.read_bytes())
    length = int.from_bytes(data[8:12], "big")
    data[4:6] = (99).to_bytes(2, "big")
    data[length - 4 : length] = crc32c(bytes(data[: length - 4])).to_bytes(4, "big")
    store.write_bytes(data)
    await refuses(tmp_path / "data", "format version 99")


async def test_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"")
    await refuses(tmp_path / "data", f"{tmp_path}/data: it is not a directory")


async def test_directory_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    await refuses(tmp_path / "file" / "data", "not a directory")


def give_up_overriding_permissions() -> None:
    """Make root, once it has become another program, obey the permissions of files (capabilities(7))."""
    drop_from_bounding_set, override, read_search = 24, 1, 2
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (override, read_search):
        if libc.prctl(drop_from_bounding_set, capability, 0, 0, 0):
            os._exit(99)


async def test_directory_that_is_not_writable(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir(mode=0o555)
    preexec = give_up_overriding_permissions if os.geteuid() == 0 else None
    try:
        errors = await fails_to_start(directory, preexec=preexec)
    finally:
        directory.chmod(0o755)
    assert f"{directory}: it is not writable" in errors


# -- a disk that takes no more -----------------------------------------------------------------------------------------


async def test_failed_write_turns_the_log_read_only_and_loses_nothing(tmp_path: Path) -> None:
    stored = 0
    async with node_process(tmp_path / "data", preexec=allow_small_files_only) as node:
        async with open_producer(node.address) as producer:
            failure: DeliveryRefused | None = None
            while failure is None:
                try:
                    stored = (await (await producer.send(b"x" * 10_000)).wait()).offset + 1
                except DeliveryRefused as error:
                    failure = error
        assert "a write failed" in str(failure)
        async with open_consumer(node.address, follow=False) as consumer:
            assert [record.offset async for record in consumer] == list(range(stored))
        assert await node.stop() == ExitCode.DONE
        assert "read-only" in node.logged()
    assert 0 < stored < 27
    async with node_inside(tmp_path / "data", "a") as again:
        assert again.running.next_offset >= stored
