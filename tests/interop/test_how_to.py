"""The example that shares a cluster with an agent runs as it stands in the guide."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.interop.agents import agent
from tests.interop.conftest import NO_NAMESPACES
from tests.interop.namespaces import network
from tests.membership.running import EVENTUALLY_SECONDS, eventually
from tests.membership.test_how_to import EXAMPLES, SAID

pytestmark = pytest.mark.system


@pytest.mark.skipif(NO_NAMESPACES is not None, reason=str(NO_NAMESPACES))
async def test_an_agent_beside_us(tmp_path: Path) -> None:
    (example,) = (example for example, said in zip(EXAMPLES, SAID, strict=True) if said is None)
    async with network() as running:
        _, enter = await running.machine()
        async with agent(tmp_path, "x", host="127.0.0.1", within=enter) as x:
            command = [*enter, sys.executable, "-u", "-W", "error", "-c", example]
            with (tmp_path / "output").open("wb") as output:
                process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stdout=output)

            async def printed() -> str:
                assert process.poll() is None
                return (tmp_path / "output").read_text()

            try:
                await x.until_heard("user", "deploy", "version 7")
                await eventually(printed, lambda lines: "x answers answer of x\n" in lines)
                await x.until_status("alive", "ours")
                with trio.fail_after(EVENTUALLY_SECONDS):
                    answer = ""
                    while "Response from 'ours': 0.5" not in answer:
                        answer = await x.command("query", "-timeout=2s", "load")
                await x.command("event", "deploy", "version 8")
                await eventually(printed, lambda lines: "heard deploy version 8\n" in lines)
                assert "heard deploy version 7\n" in await printed()
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
