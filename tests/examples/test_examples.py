"""What stands in examples/ runs as it stands there, but for the address, beside a real node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from proglog_trio.client import open_consumer, open_producer
from tests.client.harness import running_node
from tests.node_process import STOP_SECONDS

EXAMPLES = Path(__file__).parents[2] / "examples"
START_SECONDS = 60
SERVICES = {
    "fastapi_service.py": "-m uvicorn --loop uvloop --app-dir {examples} fastapi_service:app --port {port}",
    "flask_service.py": "-m flask --app {examples}/flask_service.py run --port {port}",
}


def test_each_is_short_and_says_how_to_run_it() -> None:
    found = sorted(EXAMPLES.glob("*.py"))
    assert [path.name for path in found] == ["fastapi_service.py", "flask_service.py", "script.py", "trio_program.py"]
    for path in found:
        text = path.read_text()
        assert len(text.splitlines()) < 40
        assert "Run it with: " in text.split('"""')[1]


def ask(port: int, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return the status and body of an answer; a connection that is refused counts as status 0."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=body, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except urllib.error.URLError:
        return 0, b""


@asynccontextmanager
async def running(arguments: Sequence[str], directory: Path) -> AsyncIterator[trio.Process]:
    """Run a program of Python's for the length of a block; it is told to end, and must do so in order."""
    with (directory / "output").open("wb") as output:
        process = await trio.lowlevel.open_process(
            [sys.executable, *arguments],
            cwd=directory,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        yield process
        assert process.poll() is None, (directory / "output").read_text()
        process.send_signal(signal.SIGINT)
        with trio.fail_after(STOP_SECONDS):
            await process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


@pytest.mark.parametrize("name", SERVICES)
async def test_web_services(name: str, tmp_path: Path, unused_port: int) -> None:
    command = SERVICES[name].format(examples=tmp_path, port=unused_port).split()
    async with running_node(tmp_path / "data") as node, AsyncExitStack() as stack:
        text = await trio.Path(EXAMPLES / name).read_text()
        await trio.Path(tmp_path / name).write_text(text.replace("127.0.0.1:8400", node.address))
        process = await stack.enter_async_context(running(command, tmp_path))
        with trio.fail_after(START_SECONDS):
            while (await trio.to_thread.run_sync(ask, unused_port, "/events/0"))[0] == 0:
                assert process.poll() is None, (tmp_path / "output").read_text()
                await trio.sleep(0.05)
        for offset in range(3):
            stored = await trio.to_thread.run_sync(ask, unused_port, "/events", b"\x00event %d" % offset)
            assert (stored[0], json.loads(stored[1])) == (200, {"offset": offset})
        assert await trio.to_thread.run_sync(ask, unused_port, "/events/1") == (200, b"\x00event 1")
        for path in ("/events/3", "/events/77"):
            status, body = await trio.to_thread.run_sync(ask, unused_port, path)
            assert status == 404
            assert b"no record at offset" in body
        status, body = await trio.to_thread.run_sync(ask, unused_port, "/events", b"")
        assert status == 400
        assert b"the record is empty" in body
    assert "Traceback" not in (tmp_path / "output").read_text()


async def test_the_trio_program(tmp_path: Path) -> None:
    command = [str(EXAMPLES / "trio_program.py")]
    async with running_node(tmp_path / "data") as node, open_producer(node.address) as producer:
        answers: list[bytes] = []
        async with open_consumer(node.address) as consumer:
            for question in (b"how", b"why"):
                # Started anew it goes on where it was.
                async with running([*command, node.address], tmp_path) as process:
                    await (await producer.send(question, key=b"question")).wait()
                    with trio.fail_after(START_SECONDS):
                        async for record in consumer:
                            if record.key == b"answer":
                                answers.append(record.value)
                                break
                    while not await trio.Path(tmp_path / "position").exists():  # noqa: ASYNC110 - another process does
                        await trio.sleep(0.01)
                assert process.returncode == 0, (tmp_path / "output").read_text()
        assert answers == [b"HOW", b"WHY"]


async def test_the_script(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        async with open_producer(node.address) as producer:
            await producer.send(b"before")
        for lines, printed in ((b"one\n\ntwo\nthree", "1 one\n2 two\n3 three\n"), (b"", "")):
            with trio.fail_after(START_SECONDS):
                done = await trio.run_process(
                    [sys.executable, EXAMPLES / "script.py", node.address],
                    stdin=lines,
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
            assert (done.returncode, done.stdout.decode(), done.stderr) == (0, printed, b"")
