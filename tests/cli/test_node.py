"""What the `node` command does besides running a node."""

import socket
import subprocess
from pathlib import Path

import trio

from proglog_trio.cli.exit_codes import ExitCode
from tests.node_process import READY_SECONDS, clean_environment, node_command, read_line


async def test_a_node_ends_with_its_standard_input(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("wb") as errors:
        process = await trio.lowlevel.open_process(
            node_command(tmp_path / "data", "--end-with-stdin"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=clean_environment(),
        )
    assert process.stdin is not None
    assert process.stdout is not None
    async with process.stdin, process.stdout:
        with trio.fail_after(READY_SECONDS):
            assert await read_line(process.stdout)
            await process.stdin.send_all(b"what is written there means nothing")
            assert process.poll() is None
            await process.stdin.aclose()
            assert await process.wait() == ExitCode.DONE
    assert '"by": "the end of standard input"' in (tmp_path / "stderr").read_text("utf-8")


async def test_a_node_starts_once_its_port_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        command = node_command(tmp_path / "data", rpc_port=holder.getsockname()[1])
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()
        )
        assert process.stdout is not None
        assert process.stderr is not None
        async with process.stdout, process.stderr:
            with trio.fail_after(READY_SECONDS):
                while b"trying again" not in (line := await read_line(process.stderr)):
                    assert line, "it has ended"
                holder.close()
                assert await read_line(process.stdout)
                process.terminate()
                assert await process.wait() == ExitCode.DONE
