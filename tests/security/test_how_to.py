"""The five commands of docs/how-to/run-securely.md run as they stand there, and only who should gets in."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import trio

from proglog_trio.rpc.calls.cluster import list_keys
from tests.node_process import NodeProcess, clean_environment, node_process, run_command
from tests.pki import Pki

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "run-securely.md"
ADDRESS = "10.0.0.5"


async def shell(line: str, directory: Path, **variables: str) -> str:
    """Run one line of the guide in a directory, with this Python as its python; return what it prints."""
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    python = programs / "python"
    if not python.exists():
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        python.chmod(0o755)
    environment = clean_environment(**variables)
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(GUIDE.parents[2])
    with trio.fail_after(60):
        done = await trio.run_process(
            ["sh", "-ec", line], cwd=directory, env=environment, capture_stdout=True, capture_stderr=True
        )
    return done.stdout.decode()


async def test_the_five_commands(tmp_path: Path) -> None:
    block = re.search(r"^```sh\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    certs, policy, key, node, produce = block[1].splitlines()
    await shell(certs, tmp_path)
    await shell(policy, tmp_path)
    made = (await shell(f"{key}; echo $PROGLOG_ENCRYPT", tmp_path)).strip()
    # The guide's address is not this machine's; everything else is as it says.
    words = shlex.split(node.replace(f"{ADDRESS}:8401", "127.0.0.1:0"))
    assert words[:4] == ["python", "-m", "proglog_trio", "node"]
    options = [word if word.startswith("--") or "pki/" not in word else str(tmp_path / word) for word in words[4:]]
    async with node_process(tmp_path / "data", *options, PROGLOG_ENCRYPT=made) as running:
        await shell(produce.replace(f"{ADDRESS}:8400", running.address), tmp_path)
        assert await consumed(running, tmp_path, "root") == (0, b"hello, log\n")
        assert (await consumed(running, tmp_path, "nobody"))[0] == 1
        keys = await list_keys(running.address, 60, tls=Pki(tmp_path / "pki").client_tls("root"))
        assert [each.key for each in keys.keys] == [made]
        assert await running.stop() == 0


def tls(directory: Path, client: str) -> list[str]:
    pki = directory / "pki"
    return [
        f"--tls-ca-file={pki / 'ca.pem'}",
        f"--tls-cert-file={pki / f'{client}-client.pem'}",
        f"--tls-key-file={pki / f'{client}-client-key.pem'}",
    ]


async def consumed(node: NodeProcess, directory: Path, client: str) -> tuple[int, bytes]:
    return (await run_command("consume", "--addr", node.address, *tls(directory, client)))[:2]
