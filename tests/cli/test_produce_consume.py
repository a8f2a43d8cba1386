import base64
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from proglog_trio.address import Address
from proglog_trio.cli import produce
from proglog_trio.cli.consume import RecordWriter
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.formats.given_fields import Given
from proglog_trio.cli.formats.record_forms import JsonForm, RawForm
from proglog_trio.cli.records.tally import Tally
from proglog_trio.client import (
    BatchDelivery,
    ConsumedBatch,
    DeliveredBatch,
    Producer,
    open_consumer,
    open_producer,
)
from proglog_trio.log.batch import Batch
from proglog_trio.log.config import LogConfig
from proglog_trio.log.format.frame import FrameHeader
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import Record, pack_records
from proglog_trio.log.opening import open_log
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.run import RunningNode, run_node
from tests.node_process import (
    READY_SECONDS,
    STOP_SECONDS,
    allow_small_files_only,
    clean_environment,
    node_process,
    read_line,
    run_command,
)


@pytest.fixture
async def address(tmp_path: Path, nursery: trio.Nursery) -> str:
    """A node that runs in this process."""
    return await running_at(tmp_path / "data", nursery)


async def running_at(data_dir: Path, nursery: trio.Nursery) -> str:
    config = NodeConfig(data_dir=data_dir, rpc_port=0, bind_addr=Address("127.0.0.1", 0))
    node: RunningNode = await nursery.start(run_node, config)
    return str(node.rpc_address)


async def store(address: str, *values: bytes) -> None:
    """Have a node hold these records, without a process that produces them."""
    async with open_producer(address) as producer:
        for value in values:
            await (await producer.send(value)).wait()


async def stored(address: str) -> list[bytes]:
    """What a node holds, without a process that consumes it."""
    async with open_consumer(address, follow=False) as consumer:
        return [record.value async for record in consumer]


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address at which nobody listens, and nobody can begin to."""
    with closing(socket.socket()) as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "proglog_trio", *arguments]


def objects(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


async def test_lines_go_in_and_out(address: str) -> None:
    lines = b"hello, log\nsecond \xff line\nno end"
    assert await run_command("produce", "--addr", address, stdin=lines) == (
        ExitCode.DONE,
        b"",
        "3 records stored at offsets 0 to 2\n",
    )
    assert await run_command("consume", "--addr", address) == (ExitCode.DONE, lines + b"\n", "")
    code, output, _ = await run_command("consume", "--addr", address, "--from-offset", "1", "--count", "1")
    assert (code, output) == (ExitCode.DONE, b"second \xff line\n")
    # at the end there is nothing, and that is no error
    assert await run_command("consume", "--from-offset", "3", PROGLOG_ADDR=address) == (ExitCode.DONE, b"", "")


async def test_large_file(address: str, tmp_path: Path) -> None:
    lines = b"".join(b"%d %s\n" % (number, b"x" * (number % 300)) for number in range(50_000))
    file = tmp_path / "lines"
    file.write_bytes(lines)
    code, output, errors = await run_command("produce", str(file), "--addr", address, "--json")
    assert (code, errors) == (ExitCode.DONE, "50000 records stored at offsets 0 to 49999\n")
    batches = objects(output)
    assert [batch["base_offset"] for batch in batches] == [0] + [
        batch["base_offset"] + batch["count"] for batch in batches[:-1]
    ]
    assert sum(batch["count"] for batch in batches) == 50_000
    assert await run_command("consume", "--addr", address) == (ExitCode.DONE, lines, "")


async def test_keys_and_json(address: str) -> None:
    lines = b"k=v=w\nno key\n=only value\nonly key=\n" + b"\xff=\xfe\n"
    assert (await run_command("produce", "--addr", address, "--key-separator", "=", stdin=lines))[0] == ExitCode.DONE
    code, output, _ = await run_command("consume", "--addr", address, "--json")
    assert code == ExitCode.DONE
    found = objects(output)
    assert [(record["offset"], record["sequence"]) for record in found] == [(n, n) for n in range(5)]
    assert len({record["origin"] for record in found}) == 1
    keys_and_values = [
        {
            name: field
            for name, field in record.items()
            if name not in {"offset", "node", "sequence", "origin", "log_time"}
        }
        for record in found
    ]
    assert keys_and_values == [
        {"key": "k", "value": "v=w"},
        {"value": "no key"},
        {"key": "", "value": "only value"},
        {"key": "only key", "value": ""},
        {"key_base64": base64.b64encode(b"\xff").decode(), "value_base64": base64.b64encode(b"\xfe").decode()},
    ]


async def test_headers_and_timestamp_as_json(address: str) -> None:
    async with open_producer(address) as producer:
        headers = {"text": "ä".encode(), "bytes": b"\xff"}
        await (await producer.send(b"v", headers=headers, timestamp=1_700_000_000_000)).wait()
    (record,) = objects((await run_command("consume", "--addr", address, "--json"))[1])
    assert record["timestamp"] == 1_700_000_000_000
    assert record["headers"] == {"text": "ä"}
    assert record["headers_base64"] == {"bytes": "/w=="}


async def test_any_records_go_out_and_come_in_again(address: str) -> None:
    records = [
        Record(bytes(range(256))),
        Record(b"\n", b"\0", {"text": "ä".encode(), "bytes": b"\xff\n"}, -5),
        Record(b"", b""),
        Record(b"", None, {"": b""}),
        Record(b"v", None, None, 1_700_000_000_000),
    ]
    async with open_producer(address) as producer:
        await (await producer.send_many(records)).wait()
    for delimiter in (r"\n", r"\0"):
        form = ("--addr", address, "--format", "json", "--delimiter", delimiter)
        code, output, errors = await run_command("consume", *form, "--count", "5")
        assert (code, errors) == (ExitCode.DONE, "")
        code, _, errors = await run_command("produce", *form, stdin=output)
        assert (code, errors.split(" stored")[0]) == (ExitCode.DONE, "5 records")
    async with open_consumer(address, follow=False) as consumer:
        found = [Record(each.value, each.key, each.headers or None, each.timestamp) async for each in consumer]
    assert found == records * 3


async def test_any_values_go_in_and_out(address: str) -> None:
    everything = bytes(range(256)) * 4
    whole = ("--addr", address, "--delimiter", "")
    assert (await run_command("produce", *whole, stdin=everything))[0] == ExitCode.DONE
    assert await run_command("consume", *whole) == (ExitCode.DONE, everything, "")
    code, output, errors = await run_command("consume", "--addr", address)
    assert (code, output) == (ExitCode.DONE, everything + b"\n")
    assert errors.startswith("values have the delimiter in them, from offset 0 on")
    code, output, _ = await run_command("consume", "--addr", address, "--format", "base64")
    assert (code, output) == (ExitCode.DONE, base64.b64encode(everything) + b"\n")
    assert (await run_command("produce", "--addr", address, "--format", "base64", stdin=output))[0] == ExitCode.DONE
    assert await stored(address) == [everything] * 2


async def test_fields_that_are_given_to_each_record(address: str) -> None:
    options = ["--key", "k", "--header", "a=1=2", "--header", "b=", "--timestamp", "-7"]
    lines = b'{"value": "v"}\n{"value": "w", "keey": "x"}\n{"key": "own", "headers": {"b": "c"}, "timestamp": 0}\n'
    code, _, errors = await run_command("produce", "--addr", address, "--format", "json", *options, stdin=lines)
    assert code == ExitCode.FAILED
    assert errors.splitlines()[0].startswith("line 2: 'keey' is no field of a record")
    async with open_consumer(address, follow=False) as consumer:
        found = [each async for each in consumer]
    assert [(each.value, each.key, each.headers, each.timestamp) for each in found] == [
        (b"v", b"k", {"a": b"1=2", "b": b""}, -7),
        (b"", b"own", {"a": b"1=2", "b": b"c"}, 0),
    ]


async def test_lines_that_are_no_records_are_named_and_the_rest_is_stored(address: str) -> None:
    lines = b"one\n\n" + b"x" * (5 << 20) + b"\ntwo\n"
    code, _, errors = await run_command("produce", "--addr", address, stdin=lines)
    assert code == ExitCode.FAILED
    empty, long, summary = errors.splitlines()
    assert empty == "line 2: it is empty"
    assert long.startswith("line 3: its 5242880 bytes are more than the ")
    assert summary == "2 records stored at offsets 0 to 1, 2 lines left out"
    assert await stored(address) == [b"one", b"two"]


async def test_many_bad_lines_are_counted(address: str) -> None:
    code, _, errors = await run_command("produce", "--addr", address, stdin=b"\n" * 1000)
    assert code == ExitCode.FAILED
    assert errors.splitlines()[-1] == "no record stored, 1000 lines left out"
    assert len(errors.splitlines()) == 11


async def test_nothing_to_produce(address: str) -> None:
    assert await run_command("produce", "--addr", address) == (ExitCode.DONE, b"", "")


async def test_position_goes_on_where_another_ended(address: str) -> None:
    await store(address, b"a", b"b", b"c")
    code, output, errors = await run_command("consume", "--addr", address, "--count", "2", "--show-position")
    assert (code, output) == (ExitCode.DONE, b"a\nb\n")
    position = errors  # the whole line, as it was copied
    code, output, errors = await run_command("consume", "--addr", address, "--position", position, "--show-position")
    assert (code, output) == (ExitCode.DONE, b"c\n")
    end = errors.removeprefix("position: ").strip()
    assert (await run_command("consume", "--addr", address, "--position", end))[:2] == (ExitCode.DONE, b"")


async def test_position_that_is_none(address: str) -> None:
    code, output, errors = await run_command("consume", "--addr", address, "--position", "AAAA")
    assert (code, output) == (ExitCode.USAGE, b"")
    assert errors.startswith("proglog-trio: --position: ")


async def test_offset_past_the_end(address: str) -> None:
    await store(address, b"a")
    code, output, errors = await run_command("consume", "--addr", address, "--from-offset", "2")
    assert (code, output) == (ExitCode.FAILED, b"")
    assert "offset 2 is out of range: the log holds offsets 0 to 0" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("name", ["produce", "consume"])
async def test_nobody_there(name: str, nobody: str) -> None:
    code, output, errors = await run_command(name, "--addr", nobody, "--timeout", "0.5", stdin=b"a\n")
    assert (code, output) == (ExitCode.UNREACHABLE, b"")
    assert errors.startswith("proglog-trio: ")
    assert nobody in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("written", ["comma", "repeated", "environment"])
async def test_several_nodes(address: str, nobody: str, written: str) -> None:
    options = {
        "comma": ["--addr", f"{nobody},{address}"],
        "repeated": ["--addr", nobody, "--addr", address],
        "environment": [],
    }[written]
    run = run_command
    if written == "environment":
        run = partial(run_command, PROGLOG_ADDR=f"{nobody}, {address}")
    code, output, errors = await run("produce", "--json", *options, stdin=b"a\nb\n")
    assert (code, errors) == (ExitCode.DONE, "2 records stored at offsets 0 to 1\n")
    (batch,) = objects(output)
    assert (batch["node"], batch["achieved"], batch["reached"]) == (address, 1, True)
    if written == "repeated":
        return  # the commands share the option, and it is no other to consume than to produce
    code, output, _ = await run("consume", "--json", *options)
    assert code == ExitCode.DONE
    assert [(record["node"], record["offset"]) for record in objects(output)] == [(address, 0), (address, 1)]


async def test_an_offset_is_the_first_nodes(address: str, nobody: str) -> None:
    await store(address, b"a")
    arguments = ["consume", "--addr", f"{nobody},{address}", "--from-offset", "0", "--timeout", "0.5"]
    code, output, errors = await run_command(*arguments)
    assert (code, output) == (ExitCode.UNREACHABLE, b"")
    assert f"an offset is a place in the log of {nobody} alone" in errors


async def test_acknowledgement_by_more_nodes_than_there_are(address: str) -> None:
    options = ["--addr", address, "--acknowledgement", "2", "--acknowledgement-timeout", "0.1"]
    code, output, errors = await run_command("produce", "--json", *options, stdin=b"a\n")
    assert (code, errors) == (
        ExitCode.DONE,
        "1 record stored at offset 0, 1 of them on fewer nodes than asked for\n",
    )
    (batch,) = objects(output)
    assert (batch["achieved"], batch["reached"]) == (1, False)
    code, _, errors = await run_command("produce", "--addr", address, "--acknowledgement", "majority", stdin=b"a\n")
    assert code == ExitCode.FAILED
    assert "majority" in errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--acknowledgement", "all"], "it is local, majority, or a number of nodes"),
        (["--acknowledgement", "0"], "at least 1 node"),
        (["--acknowledgement", "2", "--acknowledgement-timeout", "1m"], "must be less than"),
        (["--acknowledgement-timeout", "soon"], "not a length of time"),
        (["--addr", " , "], "no address"),
        (["--wait", "ever"], "'ever' is not a length of time, such as 90 (seconds), 15m, 12h or 7d, and not 'forever'"),
        (["--wait", "0"], "Must be at least 0.1"),
        (["--header", "a"], "is no header: write NAME=TEXT"),
        (["--header", "a=1", "--header", "a=2"], "is given twice"),
        (["--timestamp", "soon"], "is no timestamp"),
        (["--timestamp", "9223372036854775808"], "is no timestamp"),
        (["--delimiter", r"\q"], "is no escape"),
        (["--format", "json", "--key-separator", "="], "is not for --format json"),
    ],
)
async def test_options_that_make_no_sense(options: list[str], message: str) -> None:
    code, output, errors = await run_command("produce", *options, stdin=b"a\n")
    assert (code, output) == (ExitCode.USAGE, b"")
    assert message in errors


def test_records_on_several_nodes_are_told_apart() -> None:
    tally = Tally(sent=13)
    for offset, count, node in [(0, 3, "a:1"), (3, 2, "a:1"), (7, 1, "b:1"), (20, 6, "c:1"), (30, 1, "c:1")]:
        tally.add(DeliveredBatch(offset, count, Origin(bytes(16)), 0, 0, 1, reached=count != 2, node=node))
    assert tally.summary() == (
        "13 records stored: 5 on a:1 at offsets 0 to 4, 1 on b:1 at offset 7, 7 on c:1 between offsets 20 to 30, "
        "2 of them on fewer nodes than asked for"
    )


async def test_produce_to_a_node_that_takes_no_more(tmp_path: Path) -> None:
    lines = b"".join(b"%d " % number + b"x" * 1000 + b"\n" for number in range(5000))
    async with node_process(tmp_path / "data", preexec=allow_small_files_only) as node:
        code, _, errors = await run_command("produce", "--addr", node.address, stdin=lines)
        assert code == ExitCode.FAILED
        summary, message = errors.splitlines()
        assert "records sent and not acknowledged" in summary
        assert "ABORTED: the log takes no more records since a write failed" in message
        acknowledged = 0 if summary.startswith("no record") else int(summary.split()[0])
        assert message.startswith(f"proglog-trio: lines {acknowledged + 1} to ")
        assert await stored(node.address) == lines.splitlines()[:acknowledged]


async def test_a_failure_while_a_batch_is_handed_over_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no room for deliveries, a batch is always being handed over when the one before it fails."""
    monkeypatch.setattr(produce, "_DELIVERIES", 0)
    # the tests' own process keeps its log output
    monkeypatch.setattr("proglog_trio.node.log_output.configure_log_output", lambda *_: None)
    lines = b"".join(b"%d " % number + b"x" * 1000 + b"\n" for number in range(5000))
    path = tmp_path / "lines"
    path.write_bytes(lines)
    async with node_process(tmp_path / "data", preexec=allow_small_files_only) as node:
        options = produce.Options(
            addresses=(node.address,),
            form=RawForm(),
            delimiter=b"\n",
            given=Given(),
            acknowledgement="local",
            acknowledgement_timeout=None,
            timeout=5.0,
            wait=5.0,
            json=False,
            tls=None,
        )
        descriptor = os.open(path, os.O_RDONLY)
        with pytest.raises(CommandError, match="ABORTED: the log takes no more records") as raised:
            await produce._produce(descriptor, len(lines), options)
        assert raised.value.code == ExitCode.FAILED
    (summary,) = capsys.readouterr().err.splitlines()
    assert "records sent and not acknowledged" in summary


async def test_what_is_certainly_not_stored_is_handed_in_again_while_a_cluster_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """For longer than a producer may try, in order, and once."""
    # well over what a node needs to answer, since one that answers too late has stored what is not certain
    monkeypatch.setattr(produce, "LONGEST_TIMEOUT", 2.0)
    monkeypatch.setattr("proglog_trio.node.log_output.configure_log_output", lambda *_: None)
    handed_in: list[tuple[Producer, list[bytes]]] = []
    send_batch = Producer.send_batch

    async def noted(self: Producer, values: list[bytes]) -> BatchDelivery:
        handed_in.append((self, values))
        return await send_batch(self, values)

    monkeypatch.setattr(Producer, "send_batch", noted)
    reading, writing = os.pipe()
    codes: list[int] = []

    async def run(options: produce.Options) -> None:
        codes.append(await produce._produce(reading, None, options))

    async def until(condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - what it looks at has no event
            await trio.sleep(0.01)

    with trio.fail_after(READY_SECONDS):
        async with trio.open_nursery() as nursery:
            async with node_process(tmp_path / "data") as node:
                port = int(node.address.rpartition(":")[2])
                os.write(writing, b"one\n")
                options = produce.Options(
                    addresses=(node.address,),
                    form=RawForm(),
                    delimiter=b"\n",
                    given=Given(),
                    acknowledgement="local",
                    acknowledgement_timeout=None,
                    timeout=5.0,
                    wait=3600.0,
                    json=True,
                    tls=None,
                )
                nursery.start_soon(run, options)
                await until(lambda: b"base_offset" in capfd.readouterr().out.encode())
                node.kill()
                await node.process.wait()
                producer = handed_in[0][0]
                await until(lambda: producer.obstacle is not None)
            os.write(writing, b"two\n")
            await until(lambda: len(handed_in) >= 3)
            os.write(writing, b"three\n")
            os.close(writing)
            async with node_process(tmp_path / "data", rpc_port=port) as node:
                await until(lambda: bool(codes))
                assert await stored(node.address) == [b"one", b"two", b"three"]
    os.close(reading)
    assert codes == [ExitCode.DONE]
    assert [values for _, values in handed_in[1:-1]] == [[b"two"]] * (len(handed_in) - 2)
    assert capfd.readouterr().err == "3 records stored at offsets 0 to 2\n"


async def test_produce_when_the_node_is_gone(tmp_path: Path) -> None:
    async with node_process(tmp_path / "data") as node:
        process = await trio.lowlevel.open_process(
            command("produce", "--addr", node.address, "--json", "--timeout", "3"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        async with process.stdin, process.stdout, process.stderr:
            with trio.fail_after(READY_SECONDS):
                await process.stdin.send_all(b"one\n")
                await read_line(process.stdout)
                node.kill()
                await node.process.wait()
                await process.stdin.send_all(b"two\n")
                assert await process.wait() == ExitCode.UNREACHABLE
                summary = await read_line(process.stderr)
                assert summary == b"1 record stored at offset 0, 1 records sent and not acknowledged\n"
                assert (await read_line(process.stderr)).startswith(b"proglog-trio: lines 2 to 2: ")


@pytest.mark.parametrize("wait", ["forever", "5m"])
async def test_waiting_for_a_cluster_that_comes_later(tmp_path: Path, wait: str) -> None:
    """Longer than the timeout, and on a terminal they say so."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    ours, theirs = pty.openpty()
    options = ["--addr", f"127.0.0.1:{port}", "--timeout", "0.2", "--wait", wait]
    try:
        consume = await trio.lowlevel.open_process(
            command("consume", *options, "--follow", "--count", "2"),
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=clean_environment(),
        )
        produce_ = await trio.lowlevel.open_process(
            command("produce", *options), stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()
        )
        assert consume.stdout is not None
        assert produce_.stdin is not None
        assert produce_.stderr is not None
        async with consume.stdout, produce_.stdin, produce_.stderr:
            with trio.fail_after(READY_SECONDS):
                said = b""
                while b"waiting for a node: none has answered at " not in said:
                    said += await trio.to_thread.run_sync(os.read, ours, 1000)
                assert (produce_.poll(), consume.poll()) == (None, None)
                async with node_process(tmp_path / "data", rpc_port=port) as node:
                    await produce_.stdin.send_all(b"one\n")
                    assert await read_line(consume.stdout) == b"one\n"
                    node.kill()
                    await node.process.wait()
                    await produce_.stdin.send_all(b"two\n")
                    await produce_.stdin.aclose()
                async with node_process(tmp_path / "data", rpc_port=port):
                    assert await read_line(consume.stdout) == b"two\n"
                    assert await consume.wait() == ExitCode.DONE
                    assert await produce_.wait() == ExitCode.DONE
                    assert (await read_line(produce_.stderr)).startswith(b"2 records stored at offsets 0 to 1")
    finally:
        os.close(ours)
        os.close(theirs)


async def test_follow_when_the_node_is_gone(tmp_path: Path) -> None:
    async with node_process(tmp_path / "data") as node:
        await store(node.address, b"one")
        process = await trio.lowlevel.open_process(
            command("consume", "--addr", node.address, "--follow", "--timeout", "3"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
        )
        assert process.stdout is not None
        assert process.stderr is not None
        async with process.stdout, process.stderr:
            with trio.fail_after(READY_SECONDS):
                assert await read_line(process.stdout) == b"one\n"
                node.kill()
                assert await process.wait() == ExitCode.UNREACHABLE
                assert await process.stdout.receive_some() == b""
                assert (await read_line(process.stderr)).startswith(b"proglog-trio: ")
                assert await process.stderr.receive_some() == b""


async def test_damage_ends_reading_unless_it_is_skipped(tmp_path: Path, nursery: trio.Nursery) -> None:
    data_dir = tmp_path / "data"
    async with open_log(LogConfig(data_dir)) as log:
        for value in (b"first", b"second", b"third"):
            await log.append(Batch.of([Record(value)]))
    (store,) = (data_dir / "log").glob("*.store")
    store.write_bytes(store.read_bytes().replace(b"second", b"sEcond"))
    address = await running_at(data_dir, nursery)
    code, output, errors = await run_command("consume", "--addr", address)
    assert (code, output) == (ExitCode.FAILED, b"first\n")
    assert "DATA_LOSS" in errors
    assert len(errors.splitlines()) == 1
    code, output, errors = await run_command("consume", "--addr", address, "--on-missing", "skip")
    assert (code, output) == (ExitCode.DONE, b"first\nthird\n")
    assert errors.startswith("offsets 1 to 1 are missing: ")


async def test_follow_waits_until_it_is_told_to_stop(address: str) -> None:
    process = await trio.lowlevel.open_process(
        command("consume", "--addr", address, "--follow", "--show-position"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr:
        with trio.fail_after(READY_SECONDS):
            async with open_producer(address) as producer:
                for value in (b"one", b"two"):
                    await producer.send(value)
                    assert await read_line(process.stdout) == value + b"\n"
            process.send_signal(signal.SIGINT)
            assert await process.wait() == ExitCode.DONE
            assert (await read_line(process.stderr)).startswith(b"position: ")
            assert await process.stderr.receive_some() == b""


async def test_produce_acknowledges_each_line_and_can_be_interrupted(address: str) -> None:
    process = await trio.lowlevel.open_process(
        command("produce", "--addr", address, "--json"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdin, process.stdout, process.stderr:
        with trio.fail_after(READY_SECONDS):
            for number in range(3):
                await process.stdin.send_all(b"line %d\n" % number)
                assert json.loads(await read_line(process.stdout))["base_offset"] == number
            process.send_signal(signal.SIGINT)
            assert await process.wait() == ExitCode.INTERRUPTED
            assert await read_line(process.stderr) == b"3 records stored at offsets 0 to 2\n"
            assert await process.stderr.receive_some() == b""


async def test_reader_that_has_had_enough(address: str) -> None:
    async with open_producer(address) as producer:
        await (await producer.send_batch([b"x" * 1000] * 2000)).wait()
    process = await trio.lowlevel.open_process(
        command("consume", "--addr", address),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stderr:
        async with process.stdout:
            assert len(await read_line(process.stdout)) == 1001
        with trio.fail_after(STOP_SECONDS):
            assert await process.wait() == ExitCode.DONE
            assert await process.stderr.receive_some() == b""


async def test_progress_on_a_terminal(address: str, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"a\nb\n")
    ours, theirs = pty.openpty()
    try:
        process = await trio.lowlevel.open_process(
            command("produce", str(file), "--addr", address),
            stderr=theirs,
            env=clean_environment(TERM="xterm", COLUMNS="100"),
        )
        with trio.fail_after(READY_SECONDS):
            assert await process.wait() == ExitCode.DONE
        shown = os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "producing" in shown
    assert "2 records stored at offsets 0 to 1" in shown


# -- records that are none ---------------------------------------------------------------------------------------------


def consumed(payload: bytes, count: int) -> ConsumedBatch:
    header = FrameHeader(Origin(bytes(16)), 0, count, 1, len(payload), 0)
    return ConsumedBatch(header, payload, 10, 0, count, Position.empty())


def test_malformed_records_are_named_and_the_rest_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    # an array of 3: a record, the number 5, a record
    payload = b"\x93" + pack_records([Record(b"a")])[1:] + b"\x05" + pack_records([Record(b"b")])[1:]
    for form, expected in ((RawForm(), [b"a", b"b"]), (JsonForm(), [10, 12])):
        writer = RecordWriter(form, b"\n")
        lines = writer.text(consumed(payload, 3)).splitlines()
        read = [json.loads(line)["offset"] if form == JsonForm() else line for line in lines]
        assert read == expected
        assert writer.malformed == 1
        assert "offset 11" in capfd.readouterr().err


def test_batch_that_cannot_be_read_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    writer = RecordWriter(RawForm(), b"\n")
    assert writer.text(consumed(b"\xc1", 3)) == b""
    assert writer.malformed == 3
    assert len(capfd.readouterr().err.splitlines()) == 1
