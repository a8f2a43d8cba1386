"""What a process loads before it can do its work, which is most of the time that it takes to start.

The lists are of what is not needed. Whoever adds an import that brings some of it back finds out here, and not by
everything being slower.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

from proglog_trio.cli.exit_codes import ExitCode
from tests.pki import Pki

RICH = {"rich", "pygments", "markdown_it"}
"""For help and for people at a terminal."""
SECURITY = {"casbin", "cryptography", "proglog_trio.security.pem_files", "proglog_trio.membership.wire.cipher"}
"""For access policies, certificates and gossip keys."""
METRICS = {"prometheus_client", "h11", "proglog_trio.node.metrics", "proglog_trio.node.metrics_endpoint"}
DNS = {"dnslib", "proglog_trio.dns.server"}
THEIRS = {"wcmatch", "bracex", "simpleeval", "http.server"}
"""What those import in turn."""
OTHER_COMMANDS = {"proglog_trio.security.certificates", "proglog_trio.log.inspect.verify", "proglog_trio.local_cluster"}
CONFIGURATION_FILES = {"tomllib"}
ASIDE = {*RICH, *SECURITY, *METRICS, *DNS, *THEIRS, *OTHER_COMMANDS, *CONFIGURATION_FILES}
OF_A_NODE = {"proglog_trio.node.run", "proglog_trio.log.log", "proglog_trio.membership", "proglog_trio.replication"}
OF_COMMANDS = {"cyclopts", "proglog_trio.cli", "proglog_trio.node.config"}
OF_ANYTHING = {"trio", "asyncio", "ssl", "structlog", "grpclib", "google.protobuf"}

SAY_WHAT_IS_LOADED = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
"""
RUN = (
    SAY_WHAT_IS_LOADED
    + """
from proglog_trio.__main__ import main
main()
"""
)
RUN_NODE = """
import sys
from proglog_trio.cli import node

async def say(line):
    print(*sys.modules, flush=True)

node._say = say
from proglog_trio.__main__ import main
main()
"""


def unmeasured() -> dict[str, str]:
    """Return the environment of a process whose coverage is not measured: what measures it loads much itself."""
    return {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}


def loaded_by(script: str, *arguments: str, code: int = 0) -> set[str]:
    """Return the modules that a process has loaded when it is done."""
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=unmeasured()
    )
    assert done.returncode == code, done.stderr
    return set(done.stderr.splitlines()[-1].split())


def loaded_by_node(directory: Path, *arguments: str) -> set[str]:
    """Return the modules that a node has loaded when it is ready."""
    options = ["--data-dir", str(directory), "--rpc-port", "0", "--bind-addr", "127.0.0.1:0", "--end-with-stdin"]
    command = [sys.executable, "-c", RUN_NODE, "node", *options, *arguments]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=unmeasured(),
    ) as node:
        assert node.stdout is not None
        ready = set(node.stdout.readline().split())
        _, errors = node.communicate()
    assert node.returncode == 0, errors
    return ready


def test_client_library() -> None:
    loaded = loaded_by(f"{SAY_WHAT_IS_LOADED}\nimport proglog_trio.client")
    # a program of somebody else has structlog do whatever it can
    assert not loaded & ((ASIDE - RICH) | OF_A_NODE | OF_COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "code", "unwanted"),
    [
        (["--version"], ExitCode.DONE, {*ASIDE, *OF_A_NODE, *OF_ANYTHING}),
        (["status", "--addr", "127.0.0.1:1", "--timeout", "0.1"], ExitCode.UNREACHABLE, {*ASIDE, *OF_A_NODE}),
        (["produce", "--addr", "127.0.0.1:1", "--timeout", "0.1"], ExitCode.UNREACHABLE, {*ASIDE, *OF_A_NODE}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_commands(arguments: list[str], code: ExitCode, unwanted: set[str]) -> None:
    assert not loaded_by(RUN, *arguments, code=code) & unwanted


def test_plain_node(tmp_path: Path) -> None:
    loaded = loaded_by_node(tmp_path)
    assert "proglog_trio.node.run" in loaded
    assert not loaded & {*ASIDE, "proglog_trio.client", "proglog_trio.client.producer"}


def test_a_node_has_all_that_it_was_told_to_use_when_it_is_ready(tmp_path: Path) -> None:
    pki = Pki.make(tmp_path / "pki")
    key = base64.b64encode(bytes(16)).decode()
    loaded = loaded_by_node(tmp_path / "data", *pki.node_arguments(), "--encrypt", key, "--metrics-addr", "127.0.0.1:0")
    assert {*SECURITY, *METRICS} <= loaded
    assert not loaded & RICH
