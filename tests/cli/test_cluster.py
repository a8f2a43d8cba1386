"""`cluster`: real nodes, started and ended together."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from attrs import define, field

from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.client import open_producer
from proglog_trio.rpc.calls.cluster import get_status
from tests.node_process import READY_SECONDS, STOP_SECONDS, clean_environment, read_line, run_command
from tests.pki import Pki


@define
class RunningCluster:
    """The command, and the nodes that it says it has."""

    process: trio.Process
    ready: dict[str, Any] = field(factory=dict)

    def addresses(self) -> list[str]:
        return [node["rpc_addr"] for node in self.ready["nodes"]]

    def node_processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    async def next_event(self, wanted: str, test: Callable[[dict[str, Any]], bool] = lambda _event: True) -> Any:
        """Read on until an event of this name."""
        assert self.process.stdout is not None
        with trio.fail_after(READY_SECONDS):
            while True:
                line = await read_line(self.process.stdout)
                assert line, f"the command ended before {wanted}"
                event = json.loads(line)
                if event["event"] == wanted and test(event):
                    return event

    async def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        with trio.fail_after(STOP_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def running_cluster(directory: Path, *arguments: str, **variables: str) -> AsyncIterator[RunningCluster]:
    process = await trio.lowlevel.open_process(
        [
            *(sys.executable, "-m", "proglog_trio", "cluster", "--data-dir", str(directory), "--base-port", "0"),
            *("--json", "--refresh", "0.2", *arguments),
        ],
        stdin=None,
        stdout=-1,
        stderr=None,
        env=clean_environment(**variables),
    )
    cluster = RunningCluster(process)
    try:
        cluster.ready = await cluster.next_event("ready")
        yield cluster
    finally:
        left = cluster.node_processes() if process.poll() is None else []
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True), trio.fail_after(STOP_SECONDS):
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()
            await wait_gone(left)


async def wait_gone(processes: list[psutil.Process]) -> None:
    """Wait until processes that are not this one's children have ended."""
    for process in processes:
        await trio.to_thread.run_sync(process.wait, STOP_SECONDS)


@pytest.mark.system
async def test_a_cluster_is_shown_and_stopped_and_goes_on(tmp_path: Path) -> None:
    async with running_cluster(tmp_path / "cluster", "--nodes", "2") as cluster:
        first, second = cluster.addresses()
        async with open_producer(first) as producer:
            await producer.send_batch([b"one", b"two"])
        shown = await cluster.next_event(
            "status", lambda event: [node["next_offset"] for node in event["nodes"]] == [2, 2]
        )
        assert shown["members"] == {"node-1": "alive", "node-2": "alive"}
        assert [node["state"] for node in shown["nodes"]] == ["running", "running"]
        (origin,) = shown["origins"]
        assert origin["written_by"] == "node-1"
        assert origin["next"] == {"node-1": 2, "node-2": 2}
        rated = await cluster.next_event("status", lambda event: event["nodes"][0]["per_second"] is not None)
        assert set(rated["nodes"][0]["per_second"]) == {"produced", "pulled", "consumed", "bytes_to_peers"}

        told = await get_status(second, READY_SECONDS)
        assert (told.node_name, told.cluster_size, told.next_offset) == ("node-2", 2, 2)
        processes = cluster.node_processes()
        assert len(processes) == 2
        assert await cluster.stop(signal.SIGTERM) == ExitCode.DONE
        assert not any(process.is_running() for process in processes)
    async with running_cluster(tmp_path / "cluster", "--nodes", "2") as cluster:
        await cluster.next_event("status", lambda event: [node["next_offset"] for node in event["nodes"]] == [2, 2])
        assert await cluster.stop(signal.SIGINT) == ExitCode.DONE
        assert (tmp_path / "cluster" / "node-1.log").read_text("utf-8").count("node is ready") == 2


async def test_the_nodes_are_plain_whatever_the_environment_says(tmp_path: Path) -> None:
    pki = Pki.make(tmp_path / "pki")
    options = [option.removeprefix("--").partition("=") for option in pki.node_arguments()]
    variables = {f"PROGLOG_{name.upper().replace('-', '_')}": value for name, _, value in options}
    others = {
        "PROGLOG_ENCRYPT": "AAECAwQFBgcICQoLDA0ODw==",
        "PROGLOG_METRICS_ADDR": "127.0.0.1:1",
        "PROGLOG_ADVERTISE_ADDR": "192.0.2.1",
        "PROGLOG_BIND_ADDR": "0.0.0.0:0",
    }
    async with running_cluster(tmp_path / "cluster", "--nodes", "2", **variables, **others) as cluster:
        shown = await cluster.next_event(
            "status", lambda event: all(len(node["peers"]) == 1 for node in event["nodes"])
        )
        assert set(shown["members"].values()) == {"alive"}
        assert [node["problem"] for node in shown["nodes"]] == [None] * 2
        assert {address.partition(":")[0] for address in cluster.addresses()} == {"127.0.0.1"}
        async with open_producer(cluster.addresses()[0]) as producer:
            await (await producer.send(b"one")).wait()
        assert await cluster.stop(signal.SIGTERM) == ExitCode.DONE


@pytest.mark.system
async def test_a_node_that_dies_and_is_started_again(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, "--nodes", "2") as cluster:
        victim = next(p for p in cluster.node_processes() if str(tmp_path / "node-2.toml") in p.cmdline())
        victim.kill()
        ended = await cluster.next_event("node_ended")
        assert (ended["node"], ended["exit_code"], ended["signal"]) == ("node-2", None, "SIGKILL")
        await cluster.next_event(
            "status", lambda event: [node["state"] for node in event["nodes"]] == ["running", "killed by SIGKILL"]
        )
        async with trio.open_nursery() as nursery:
            command = [sys.executable, "-m", "proglog_trio", "node", "--config-file", ended["config_file"]]
            again = await nursery.start(partial(trio.run_process, command, env=clean_environment()))
            await cluster.next_event(
                "status",
                lambda event: (
                    [node["state"] for node in event["nodes"]] == ["running", "started again"]
                    and event["members"] == {"node-1": "alive", "node-2": "alive"}
                ),
            )
            again.terminate()


async def test_when_no_node_is_left_it_ends(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, "--nodes", "1") as cluster:
        (node,) = cluster.node_processes()
        node.kill()
        await cluster.next_event("node_ended")
        with trio.fail_after(READY_SECONDS):
            assert await cluster.process.wait() == ExitCode.FAILED


@pytest.mark.system
async def test_no_node_outlives_the_command_however_it_ends(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, "--nodes", "2") as cluster:
        processes = cluster.node_processes()
        assert await cluster.stop(signal.SIGKILL) == -signal.SIGKILL
        await wait_gone(processes)
        for name in ("node-1", "node-2"):
            assert "the end of standard input" in (tmp_path / f"{name}.log").read_text("utf-8")


async def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output, errors = await run_command(
            "cluster", "--nodes", "1", "--data-dir", str(tmp_path), "--base-port", str(port)
        )
    assert (code, output) == (ExitCode.USAGE, b"")
    assert len(errors.splitlines()) == 1
    assert errors.startswith(f"proglog-trio: node-1 cannot have port {port} for RPC: Address already in use")
    assert "--base-port" in errors


@pytest.mark.parametrize(
    ("arguments", "segment_bytes", "message"),
    [
        (("--nodes", "0"), "1MiB", "1 to 16 nodes"),
        (("--base-port", "65530", "--nodes", "4"), "1MiB", "65530 leaves fewer"),
        (("--base-port", "-1"), "1MiB", "Must be from 0 to 65535"),
        (("--refresh", "0"), "1MiB", "Must be from 0.1"),
        (("--data-dir", "/dev/null"), "1MiB", "/dev/null: "),
        (("--nodes", "2", "--base-port", "0"), "1", "did not start: "),
    ],
)
async def test_asked_for_wrongly(arguments: tuple[str, ...], segment_bytes: str, message: str, tmp_path: Path) -> None:
    directory = () if "--data-dir" in arguments else ("--data-dir", str(tmp_path))
    code, output, errors = await run_command("cluster", *arguments, *directory, PROGLOG_SEGMENT_BYTES=segment_bytes)
    assert (code, output) == (ExitCode.USAGE, b"")
    assert message in errors
    assert len(errors.splitlines()) == 1


async def test_lines_for_people(tmp_path: Path) -> None:
    process = await trio.lowlevel.open_process(
        [
            *(sys.executable, "-m", "proglog_trio", "cluster", "--data-dir", str(tmp_path)),
            *("--base-port", "0", "--nodes", "1"),
        ],
        stdin=None,
        stdout=-1,
        env=clean_environment(),
    )
    assert process.stdout is not None
    lines: list[str] = []
    with trio.fail_after(READY_SECONDS):
        while not lines or "next offset 0" not in lines[-1]:
            lines.append((await read_line(process.stdout)).decode())
        assert lines[0].startswith("1 node is ready")
        os.kill(process.pid, signal.SIGTERM)
        rest = [(await read_line(process.stdout)).decode() for _ in range(2)]
        assert rest[0] == "stopping node-1 …\n"
        assert rest[1].startswith("stopped; the same command goes on")
        assert await process.wait() == ExitCode.DONE
    await process.stdout.aclose()


@pytest.mark.system
async def test_a_view_on_a_terminal_until_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C at the terminal reaches the command alone, which stops the nodes in order."""
    terminal, inside = pty.openpty()
    termios.tcsetwinsize(inside, (40, 100))
    process = await trio.lowlevel.open_process(
        [
            *(sys.executable, "-m", "proglog_trio", "cluster", "--data-dir", str(tmp_path)),
            *("--base-port", "0", "--nodes", "2", "--refresh", "0.2"),
        ],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        preexec_fn=partial(fcntl.ioctl, inside, termios.TIOCSCTTY, 0),
        env=clean_environment(TERM="xterm"),
    )
    os.close(inside)
    async with trio.lowlevel.FdStream(terminal) as stream:
        shown = ""
        with trio.fail_after(READY_SECONDS):
            while "pulled/s" not in shown or shown.count("alive") < 2:
                shown += (await stream.receive_some()).decode("utf-8", "replace")
            assert "2 nodes are ready" in shown
            await stream.send_all(b"\x03")
            with contextlib.suppress(trio.BrokenResourceError):  # how a terminal says that nobody is left at it
                while data := await stream.receive_some():
                    shown += data.decode("utf-8", "replace")
            assert await process.wait() == ExitCode.DONE
    assert "stopping node-1, node-2" in shown
    assert "stopped; the same command goes on" in shown
    for name in ("node-1", "node-2"):
        logged = (tmp_path / f"{name}.log").read_text("utf-8")
        assert "SIGINT" not in logged
        assert "closing the log" in logged


async def test_a_reader_that_does_not_read_does_not_keep_it_from_stopping(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, "--nodes", "1") as cluster:
        processes = cluster.node_processes()
        assert cluster.process.stdout is not None
        fcntl.fcntl(descriptor_of(cluster.process), fcntl.F_SETPIPE_SZ, 4096)
        with trio.fail_after(READY_SECONDS):
            while fionread(descriptor_of(cluster.process)) < 4096 - 1024:
                await trio.lowlevel.checkpoint()
        assert await cluster.stop(signal.SIGTERM) == ExitCode.DONE
        assert not any(process.is_running() for process in processes)


def descriptor_of(process: trio.Process) -> int:
    assert isinstance(process.stdout, trio.lowlevel.FdStream)
    return process.stdout.fileno()


def fionread(descriptor: int) -> int:
    """How many bytes wait in a pipe."""
    answer = fcntl.ioctl(descriptor, termios.FIONREAD, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])
