"""Standard streams that are closed, full, or with nobody at the other end: what commands and nodes make of them."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from proglog_trio.address import Address
from proglog_trio.cli.exit_codes import ExitCode
from proglog_trio.cli.standard_streams import write_all
from proglog_trio.client import ConsumerConfig, ProducerConfig, open_consumer, open_producer
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.run import RunningNode, run_node
from tests.node_process import READY_SECONDS, STOP_SECONDS, clean_environment, node_command

CLOSED = {0: "<&-", 1: ">&-", 2: "2>&-"}
READER_GONE = "reader gone"
NO_SPACE = "standard output cannot be written: No space left on device"
NOT_OPEN = "standard output cannot be written: Bad file descriptor"

OPENS_A_SOCKET = """
import os, socket, sys
from proglog_trio.cli.standard_streams import prepare_standard_streams
prepare_standard_streams()
opened = socket.socket()
with open(sys.argv[1], "w") as found:
    print(opened.fileno(), *(os.readlink(f"/proc/self/fd/{number}") for number in range(3)), file=found)
"""


def redirected(redirections: str, command: list[str]) -> list[str]:
    """A command line that runs a command with its streams as a shell sets them."""
    return ["sh", "-c", f'exec "$@" {redirections}', "sh", *command]


def command_line(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proglog_trio", *arguments]


def write_end_without_reader() -> int:
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize(
    "closed", [each for count in (1, 2, 3) for each in itertools.combinations((0, 1, 2), count)], ids=str
)
def test_no_descriptor_of_a_closed_stream_is_used_again(closed: tuple[int, ...], tmp_path: Path) -> None:
    redirections = " ".join(CLOSED[number] for number in closed)
    subprocess.run(
        redirected(redirections, [sys.executable, "-c", OPENS_A_SOCKET, str(tmp_path / "found")]),
        stdin=subprocess.PIPE,
        capture_output=True,
        check=True,
    )
    opened, *targets = (tmp_path / "found").read_text("utf-8").split()
    assert int(opened) > 2
    for number, target in enumerate(targets):
        assert target == "/dev/null" if number in closed else target.startswith("pipe:")


@pytest.mark.parametrize(
    ("redirections", "arguments", "code", "problem"),
    [
        (">&-", ["keygen"], ExitCode.FAILED, NOT_OPEN),
        (">/dev/full", ["keygen"], ExitCode.FAILED, NO_SPACE),
        (READER_GONE, ["keygen"], ExitCode.DONE, None),
        ("2>&-", ["keygen"], ExitCode.DONE, None),
        (">/dev/full 2>/dev/full", ["keygen"], ExitCode.FAILED, None),
        ("2>/dev/full", ["nod"], ExitCode.USAGE, None),
        ("<&-", ["keys", "install"], ExitCode.USAGE, "standard input: Bad file descriptor"),
    ],
    ids=str,
)
def test_commands_end_with_an_exit_code(
    redirections: str, arguments: list[str], code: ExitCode, problem: str | None
) -> None:
    without_reader = write_end_without_reader()
    gone = redirections == READER_GONE
    done = subprocess.run(
        redirected("" if gone else redirections, command_line(*arguments)),
        stdout=without_reader if gone else subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=clean_environment(),
    )
    os.close(without_reader)
    assert done.returncode == code
    assert done.stderr == ("" if problem is None else f"proglog-trio: {problem}\n")


async def test_commands_that_talk_to_a_node(tmp_path: Path) -> None:
    cases = [
        (">/dev/full", ["consume"], ExitCode.FAILED, NO_SPACE),
        (READER_GONE, ["consume", "--follow"], ExitCode.DONE, ""),
        ("2>/dev/full", ["consume", "--show-position"], ExitCode.FAILED, ""),
        (">&-", ["produce", "--json"], ExitCode.FAILED, NOT_OPEN),
        ("2>&-", ["produce"], ExitCode.DONE, ""),
        ("<&-", ["produce"], ExitCode.FAILED, "reading failed: Bad file descriptor"),
        (">/dev/full", ["status"], ExitCode.FAILED, NO_SPACE),
    ]
    without_reader = write_end_without_reader()
    outcomes: dict[int, tuple[int, str]] = {}

    async def run(number: int, redirections: str, arguments: list[str], address: str) -> None:
        gone = redirections == READER_GONE
        done = await trio.run_process(
            redirected("" if gone else redirections, command_line(*arguments, "--addr", address)),
            stdin=b"record\n",
            stdout=without_reader if gone else subprocess.DEVNULL,
            capture_stderr=True,
            check=False,
            env=clean_environment(),
        )
        outcomes[number] = (done.returncode, done.stderr.decode())

    async with trio.open_nursery() as nursery:
        config = NodeConfig(data_dir=tmp_path / "data", rpc_port=0, bind_addr=Address("127.0.0.1", 0))
        node: RunningNode = await nursery.start(run_node, config)
        async with open_producer(str(node.rpc_address)) as producer:
            await (await producer.send(b"there")).wait()
        with trio.fail_after(READY_SECONDS * len(cases)):
            async with trio.open_nursery() as running:
                for number, (redirections, arguments, _, _) in enumerate(cases):
                    running.start_soon(run, number, redirections, arguments, str(node.rpc_address))
        nursery.cancel_scope.cancel()
    os.close(without_reader)
    for number, (redirections, arguments, code, problem) in enumerate(cases):
        found, errors = outcomes[number]
        assert found == code, (redirections, arguments, errors)
        assert "Traceback" not in errors
        assert problem in errors


class Figures(NamedTuple):
    """Where a node that says nothing is found."""

    rpc_port: int
    metrics_port: int


def two_free_ports() -> Figures:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return Figures(first.getsockname()[1], second.getsockname()[1])


async def dropped_lines(port: int) -> float:
    """Return the node's own count of the lines that it could not write."""
    answer = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        async for data in stream:
            answer += data
    (line,) = [line for line in answer.splitlines() if line.startswith(b"proglog_log_output_dropped_lines_total ")]
    return float(line.split()[1])


@pytest.mark.parametrize("redirections", ["<&- >&- 2>&-", ">/dev/full 2>/dev/full", READER_GONE])
async def test_a_node_works(redirections: str, tmp_path: Path) -> None:
    ports = two_free_ports()
    without_reader = write_end_without_reader()
    gone = redirections == READER_GONE
    process = await trio.lowlevel.open_process(
        redirected(
            "" if gone else redirections,
            node_command(
                tmp_path / "data", "--metrics-addr", f"127.0.0.1:{ports.metrics_port}", rpc_port=ports.rpc_port
            ),
        ),
        stdin=subprocess.DEVNULL,
        stdout=without_reader if gone else None,
        stderr=without_reader if gone else None,
        env=clean_environment(),
    )
    os.close(without_reader)
    address = f"127.0.0.1:{ports.rpc_port}"
    try:
        async with open_producer(address, ProducerConfig(connect_timeout=READY_SECONDS)) as producer:
            assert (await (await producer.send(b"record")).wait()).offset == 0
        async with open_consumer(address, ConsumerConfig(follow=False)) as consumer:
            assert [record.value async for record in consumer] == [b"record"]
        assert await dropped_lines(ports.metrics_port) > 0
        for number in range(3):
            target = await trio.Path(f"/proc/{process.pid}/fd/{number}").readlink()
            assert target.name.startswith(("null", "full", "pipe:"))
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(STOP_SECONDS):
            assert await process.wait() == ExitCode.DONE
    finally:
        if process.poll() is None:
            process.kill()
            await process.wait()


async def test_a_cluster_ends_with_its_nodes(tmp_path: Path) -> None:
    arguments = ["cluster", "--nodes", "1", "--base-port", "0", "--data-dir", str(tmp_path / "cluster")]
    with trio.fail_after(READY_SECONDS):
        done = await trio.run_process(
            redirected(">/dev/full", command_line(*arguments)),
            capture_stderr=True,
            check=False,
            env=clean_environment(),
        )
    assert (done.returncode, done.stderr.decode()) == (ExitCode.FAILED, f"proglog-trio: {NO_SPACE}\n")
    assert "closing the log" in (tmp_path / "cluster" / "node-1.log").read_text("utf-8")


@pytest.mark.parametrize("options", [[], ["-u"]], ids=["buffered", "unbuffered"])
def test_standard_output_fails_once(options: list[str]) -> None:
    """The interpreter's own last flush says nothing more, and does not change the exit code."""
    script = """
from proglog_trio.cli.standard_streams import OutputError, prepare_standard_streams
import sys
import threading
prepare_standard_streams()
try:
    print("lost", flush=True)
except OutputError as error:
    print(error, file=sys.stderr)
print("dropped")
raise SystemExit(7)
"""
    done = subprocess.run(
        redirected(">/dev/full", [sys.executable, *options, "-c", script]), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (7, f"{NO_SPACE}\n")


def test_a_slow_reader_gets_everything_from_a_descriptor_that_does_not_wait() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    data = os.urandom(1024 * 1024)
    writer = threading.Thread(target=write_all, args=(writing, data))
    writer.start()
    with os.fdopen(reading, "rb") as reader:
        assert reader.read(len(data)) == data
    writer.join()
    os.close(writing)
