"""Real nodes on small disks that fill up, and on directories that are taken away."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from grpclib.health.v1 import health_pb2

from proglog_trio.cli.exit_codes import ExitCode
from tests.node_process import READY_SECONDS, NodeProcess, node_process, run_command

SERVING, NOT_SERVING = 1, 2
MEBIBYTE = 1 << 20
WRITES, READS = "log.v1.Log.Produce", "log.v1.Log.Consume"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)], check=True, capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no small file system can be mounted here: {error.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill_up(path: Path, leave: int = 0) -> None:
    """Fill the disk that a file is on."""
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(64 * 1024)) == 64 * 1024:
                continue
        except OSError:
            pass  # it is full, which is what was wanted
        file.truncate(max(file.tell() - leave, 0))


def free(disk: Path) -> int:
    return shutil.disk_usage(disk).free


def lines(count: int) -> bytes:
    return b"".join(b"%07d " % number + b"y" * 1000 + b"\n" for number in range(count))


async def health(node: NodeProcess, name: str) -> int:
    def ask() -> int:
        with grpc.insecure_channel(node.address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            return int(check(health_pb2.HealthCheckRequest(service=name), timeout=10).status)

    return await trio.to_thread.run_sync(ask)


async def status(node: NodeProcess) -> dict[str, Any]:
    code, output, errors = await run_command("status", "--json", "--addr", node.address)
    assert code == ExitCode.DONE, errors
    found: dict[str, Any] = json.loads(output)
    return found


async def consumed(node: NodeProcess) -> list[bytes]:
    code, output, errors = await run_command("consume", "--addr", node.address)
    assert code == ExitCode.DONE, errors
    return output.splitlines()


async def takes_records(node: NodeProcess) -> None:
    """Wait until it does."""
    with trio.fail_after(READY_SECONDS):
        while (await status(node))["read_only_reason"] is not None:
            node.check_runs()


async def produce_until_full(node: NodeProcess, blob: bytes) -> int:
    """Return how many records were acknowledged."""
    code, output, errors = await run_command("produce", "--json", "--addr", node.address, stdin=blob)
    assert code == ExitCode.FAILED
    assert "Traceback" not in errors
    summary, message = errors.splitlines()
    assert "records sent and not acknowledged" in summary
    assert "ABORTED: the log takes no more records since" in message
    return sum(json.loads(line)["count"] for line in output.splitlines())


@pytest.mark.system
@pytest.mark.parametrize("reserve", ["0", "3MiB"])
async def test_a_disk_that_fills_up_and_gets_room_again(reserve: str, small_disk: Path) -> None:
    data, other = small_disk / "data", small_disk / "other"
    other.write_bytes(bytes(6 * MEBIBYTE))
    options = ("--segment-bytes", "1MiB", "--disk-reserve", reserve)
    async with node_process(data, *options) as node:
        blob = lines(20_000)
        stored = await produce_until_full(node, blob)
        assert 0 < stored < 16_000
        if reserve != "0":
            assert 2 * MEBIBYTE < free(small_disk) < 5 * MEBIBYTE
        held = await consumed(node)
        assert held == blob.splitlines()[:stored]
        assert "it goes on when there is room" in (await status(node))["read_only_reason"]
        names = ("", "log.v1.Log", WRITES, READS)
        assert [await health(node, name) for name in names] == [SERVING, NOT_SERVING, NOT_SERVING, SERVING]
        other.unlink()
        await takes_records(node)
        assert [await health(node, name) for name in names] == [SERVING] * 4
        code, _, errors = await run_command("produce", "--addr", node.address, stdin=b"one more\n")
        assert (code, errors) == (ExitCode.DONE, f"1 record stored at offset {stored}\n")
        assert await node.stop() == ExitCode.DONE
    code, output, _ = await run_command("log", "verify", str(data))
    assert code == ExitCode.DONE, output
    assert not (data / "damaged").exists()


@pytest.mark.system
@pytest.mark.parametrize("torn", [False, True])
async def test_a_node_is_started_on_a_disk_without_a_byte_left(torn: bool, small_disk: Path) -> None:
    data, rest = small_disk / "data", small_disk / "rest"
    options = ("--segment-bytes", "1MiB", "--disk-reserve", "0")
    blob = lines(4_000)
    async with node_process(data, *options) as node:
        code, _, errors = await run_command("produce", "--addr", node.address, stdin=blob)
        assert code == ExitCode.DONE, errors
        node.kill()
        await node.process.wait()
    if torn:
        with max((data / "log").glob("*.store")).open("ab") as store:
            store.write(b"torn" * 2000)
    fill_up(rest)
    assert free(small_disk) == 0
    async with node_process(data, *options) as node:
        assert await consumed(node) == blob.splitlines()
        code, _, errors = await run_command("produce", "--timeout", "3", "--addr", node.address, stdin=b"no\n")
        assert code == ExitCode.FAILED
        assert "ABORTED: the log takes no records since it was opened on a disk without room" in errors
        assert await health(node, WRITES) == NOT_SERVING
        assert await node.stop() == ExitCode.DONE
    # Retention makes the room by itself.
    async with node_process(data, *options, "--retention-bytes", "2MiB") as node:
        await takes_records(node)
        code, _, errors = await run_command("produce", "--addr", node.address, stdin=b"there is room\n")
        assert code == ExitCode.DONE, errors
        assert (await consumed(node))[-1] == b"there is room"
        assert await node.stop() == ExitCode.DONE
    assert len(list((data / "damaged").glob("*"))) == int(torn) if torn else not (data / "damaged").exists()
    code, output, _ = await run_command("log", "verify", str(data))
    assert code == ExitCode.DONE, output


@pytest.mark.system
async def test_a_new_node_on_a_full_disk_may_be_started_again(small_disk: Path) -> None:
    fill_up(small_disk / "rest")
    (small_disk / "data").mkdir()
    code, _, errors = await run_command(
        *(
            "node",
            "--data-dir",
            str(small_disk / "data"),
            "--rpc-port",
            "0",
            "--bind-addr",
            "127.0.0.1:0",
            "--start-timeout",
            "0",
        )
    )
    assert code == ExitCode.NO_ROOM, "2 would tell a supervisor not to try again"
    assert "no room" in errors or "no space left" in errors
    assert "Traceback" not in errors


@pytest.mark.system
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_node_ends_when_its_directory_is_taken_away(replaced: bool, tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with node_process(data) as node:
        code, _, _ = await run_command("produce", "--addr", node.address, stdin=b"one\n")
        assert code == ExitCode.DONE
        if replaced:
            data.rename(tmp_path / "elsewhere")
            data.mkdir()
        else:
            shutil.rmtree(data)
        code, _, errors = await run_command("produce", "--timeout", "1", "--addr", node.address, stdin=b"two\n")
        assert code != ExitCode.DONE, "nothing more is acknowledged"
        assert "stored at" not in errors
        with trio.fail_after(READY_SECONDS):
            assert await node.process.wait() == ExitCode.FAILED
        last = node.logged().splitlines()[-1]
        # Which file it misses first is a matter of the moment: a directory is not removed at once.
        assert re.search(rf"{re.escape(str(data))}/(lock|log/\d+\.store) was (removed|replaced)", last), last
        assert "Traceback" not in node.logged()
    if not replaced:
        assert not data.exists(), "it makes no directory in the place of one that somebody removed"
