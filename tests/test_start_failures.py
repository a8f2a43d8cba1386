"""Each row of docs/reference/start-failures.md: a real node that does not start, its last line and its exit code."""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
from attrs import field, frozen

from proglog_trio.cli.exit_codes import ExitCode
from tests.members import node_inside, statuses, wait_for
from tests.node_process import READY_SECONDS, clean_environment, node_command, node_process

REPOSITORY = Path(__file__).parent.parent
PAGE = REPOSITORY / "docs/reference/start-failures.md"
UNIT = REPOSITORY / "packaging/proglog-trio.service"
LOCAL = ("--gossip-profile", "local")
TRIES_FOR_SECONDS = "2"
"""Long enough for a busy machine to fail once and try again."""


@frozen
class Row:
    """A line of the table."""

    what: str
    message: str
    code: int
    is_tried_again: bool
    unit_starts_again: bool


def rows() -> Iterator[Row]:
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 5 and cells[2].isdigit():
            yield Row(
                cells[0],
                cells[1].strip("`"),
                int(cells[2]),
                {"yes": True, "no": False}[cells[3]],
                {"starts it again": True, "leaves it": False}[cells[4]],
            )


@frozen
class Start:
    """How a node is started that does not start."""

    arguments: tuple[str, ...] = ()
    data_dir: str = "data"
    before: tuple[str, ...] = ()
    command: tuple[str, ...] | None = None
    is_stopped: bool = False
    variables: dict[str, str] = field(factory=dict)


Case = Callable[[Path], AbstractAsyncContextManager[Start]]
CASES: dict[str, Case] = {}
PLAIN: set[str] = set()


def case(what: str, *, plain: bool = False) -> Callable[[Callable[[Path], AsyncIterator[Start]]], None]:
    """Register what makes a start fail, for a row of the table."""

    def register(function: Callable[[Path], AsyncIterator[Start]]) -> None:
        CASES[what] = asynccontextmanager(function)
        if plain:
            PLAIN.add(what)

    return register


def simple(what: str, *arguments: str, plain: bool = False) -> None:
    """Register a start that fails by its options alone."""

    @case(what, plain=plain)
    async def start(_path: Path) -> AsyncIterator[Start]:
        yield Start(arguments)


simple("An option that there is not", "--no-such-option", plain=True)
simple("A bad value", "--bind-addr", "127.0.0.1:x")
simple("Options that do not go together", "--server-tls-cert-file", "certificate.pem")
simple("A wrong configuration file, or none where one is named", "--config-file", "/no/such/file.toml")
simple("An address beyond loopback without TLS or a gossip key", "--bind-addr", "192.0.2.1:0")
simple("An address for all of the machine's, and none to advertise", "--bind-addr", "0.0.0.0:0", "--insecure")
simple("An address to advertise that stands for all", "--advertise-addr", "0.0.0.0")  # noqa: S104 - not listened at
simple("A host to listen at that is no name", "--bind-addr", f"{'x' * 70}.com:0", "--insecure")
simple(
    "A certificate, key or policy that cannot be used",
    *("--server-tls-cert-file", "/no/such/file", "--server-tls-key-file", "/no/such/file"),
)
simple("A keyring file that is not there, and no key to make it with", "--keyring-file", "/no/such/file")
simple("The machine does not have the address (yet)", "--bind-addr", "192.0.2.1:0", "--insecure", plain=True)
simple("The host to listen at is not known (yet)", "--bind-addr", "nosuch.invalid:0", "--insecure")
simple("The host to advertise is not known (yet)", "--advertise-addr", "nosuch.invalid")
simple(
    "A cluster's name that cannot stand in a domain name, with `--dns-addr`",
    *("--dns-addr", "127.0.0.1:0", "--cluster-name", "a:b"),
)
simple("An address of this node that no member may have", "--gossip-allowed-cidrs", "192.0.2.0/24")
simple(
    "The host to advertise is to be learnt, and no member answers",
    *("--bind-addr", "0.0.0.0:0", "--insecure", "--advertise-addr", "auto", "--start-join-addrs", "127.0.0.1:1"),
)
simple("A tag that is the node's own", "--tag", "rpc_addr=elsewhere:1")
simple("Tags that do not fit", "--tag", f"note={'x' * 500}")


@case("A file of tags that is none")
async def _(path: Path) -> AsyncIterator[Start]:
    (path / "data").mkdir()
    (path / "data" / "tags").write_text("[]")
    yield Start()


@case("A name to listen at that stands for loopback on this machine alone")
async def _(path: Path) -> AsyncIterator[Start]:
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("/etc/hosts can only be another one for root, with unshare")
    hosts = path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.1.1 this-machine.example\n")
    script = f'mount --bind {shlex.quote(str(hosts))} /etc/hosts && exec "$@"'
    options = ("--bind-addr", "this-machine.example:0", "--insecure")
    yield Start(options, before=("unshare", "--mount", "sh", "-c", script, "sh"))


@case("A port that the node's user may not have")
async def _(_path: Path) -> AsyncIterator[Start]:
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("rights can only be given up by root, with setpriv")
    yield Start(("--rpc-port", "80"), before=("setpriv", "--bounding-set=-net_bind_service"))


@case("A data directory that is no directory")
async def _(path: Path) -> AsyncIterator[Start]:
    (path / "data").write_text("")
    yield Start()


@contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """Mount a file system of its own."""
    path.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@case("A data directory on a read-only file system")
async def _(path: Path) -> AsyncIterator[Start]:
    with mounted(path / "disk", "ro"):
        yield Start(data_dir="disk/data")


@contextmanager
def full_disk(path: Path) -> Iterator[Path]:
    with mounted(path, "size=64k") as disk:
        (disk / "data").mkdir()
        with (disk / "rest").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)) == 4096:
                    continue
            except OSError:
                pass  # it is full, which is what was wanted
        yield disk


@case("No room on the disk for a new log")
async def _(path: Path) -> AsyncIterator[Start]:
    with full_disk(path / "disk"):
        yield Start(data_dir="disk/data")


@case("No room on the disk for the keyring file")
async def _(path: Path) -> AsyncIterator[Start]:
    with full_disk(path / "disk") as disk:
        key = {"PROGLOG_ENCRYPT": "AAECAwQFBgcICQoLDA0ODw=="}
        yield Start(("--keyring-file", str(disk / "keyring")), variables=key)


@case("A data directory of another cluster")
async def _(path: Path) -> AsyncIterator[Start]:
    async with node_inside(path / "data", "a", cluster_name="another"):
        pass
    yield Start()


@case("A copy of the data directory, whose node answers")
async def _(path: Path) -> AsyncIterator[Start]:
    async with node_inside(path / "a", "a") as a, node_inside(path / "b", "b", join=a.gossip):
        await wait_for(a, statuses(a="alive", b="alive"))
        shutil.copytree(path / "b", path / "data")
        yield Start(("--node-name", "b", "--start-join-addrs", a.gossip, *LOCAL))


@contextmanager
def taken(kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[int]:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            holder.listen()
        yield holder.getsockname()[1]


@case("Another process has the gossip port")
async def _(_path: Path) -> AsyncIterator[Start]:
    with taken() as port:
        yield Start(("--bind-addr", f"127.0.0.1:{port}"))


@case("Another process has the gossip port, for UDP")
async def _(_path: Path) -> AsyncIterator[Start]:
    with taken(socket.SOCK_DGRAM) as port:
        yield Start(("--bind-addr", f"127.0.0.1:{port}"))


@case("Another process has the port for RPC", plain=True)
async def _(_path: Path) -> AsyncIterator[Start]:
    with taken() as port:
        yield Start(("--rpc-port", str(port)))


@case("Another process has the port for metrics")
async def _(_path: Path) -> AsyncIterator[Start]:
    with taken() as port:
        yield Start(("--metrics-addr", f"127.0.0.1:{port}"))


@case("Another process has the port for DNS")
async def _(_path: Path) -> AsyncIterator[Start]:
    with taken() as port:
        yield Start(("--dns-addr", f"127.0.0.1:{port}"))


@case("Another process has the port for the agent's RPC")
async def _(_path: Path) -> AsyncIterator[Start]:
    with taken() as port:
        yield Start(("--serf-rpc-addr", f"127.0.0.1:{port}"))


@case("Another node has the data directory", plain=True)
async def _(path: Path) -> AsyncIterator[Start]:
    async with node_inside(path / "data", "a"):
        yield Start()


@case("A member of the cluster has the name", plain=True)
async def _(path: Path) -> AsyncIterator[Start]:
    async with node_inside(path / "a", "a") as a:
        yield Start(("--node-name", "a", "--start-join-addrs", a.gossip, *LOCAL))


@case("A member that failed had the name, and is not forgotten yet")
async def _(path: Path) -> AsyncIterator[Start]:
    async with node_inside(path / "a", "a") as a:
        options = ("--node-name", "b", "--start-join-addrs", a.gossip, *LOCAL)
        async with node_process(path / "b", *options) as b:
            await wait_for(a, statuses(a="alive", b="alive"))
            b.kill()
            await wait_for(a, statuses(a="alive", b="failed"))
        yield Start(options)


@case("Something that nobody foresaw, with its traceback")
async def _(_path: Path) -> AsyncIterator[Start]:
    program = (
        "import sys, proglog_trio.node.run as node, proglog_trio.cli.app as app\n"
        "async def fail(*arguments, **options): raise RuntimeError('unforeseen')\n"
        "node.run_node = fail\n"
        "app.main(sys.argv[1:])"
    )
    yield Start(command=(sys.executable, "-c", program, "node"))


@case("It was told to stop before it had started")
async def _(_path: Path) -> AsyncIterator[Start]:
    with taken() as port:
        yield Start(("--rpc-port", str(port)), is_stopped=True)


def restarting(unit: Path) -> set[int]:
    """With which exit codes a unit is started again."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(unit)
    assert parser["Service"]["Restart"] == "on-failure"
    assert parser["Unit"]["StartLimitIntervalSec"] == "0", "or it would give up after some starts"
    return set(range(1, 256)) - {int(code) for code in parser["Service"]["RestartPreventExitStatus"].split()}


def test_the_table_is_complete() -> None:
    table = list(rows())
    assert {row.what for row in table} == CASES.keys()
    assert len(table) == len(CASES)
    again = restarting(UNIT)
    for row in table:
        assert row.unit_starts_again == (row.code in again), row
        assert row.is_tried_again or row.code in (ExitCode.FAILED, ExitCode.USAGE), row
    codes_of_starts = set(ExitCode) - {ExitCode.UNREACHABLE, ExitCode.INTERRUPTED}
    assert {row.code for row in table} == codes_of_starts


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    # As it is shipped, but for what is only there where it is installed.
    unit = tmp_path / UNIT.name
    text = UNIT.read_text("utf-8").replace("/opt/proglog/bin/python", sys.executable)
    unit.write_text(text.replace("User=proglog", "User=root"), "utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if UNIT.name in line]
    assert (done.returncode, said) == (0, []), done.stderr


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=row.what, marks=() if row.what in PLAIN else pytest.mark.system) for row in rows()],
)
async def test_a_start_that_fails(row: Row, tmp_path: Path) -> None:
    async with CASES[row.what](tmp_path) as start:
        command = node_command(tmp_path / start.data_dir, "--start-timeout", TRIES_FOR_SECONDS, *start.arguments)
        if "--rpc-port" in start.arguments:
            place = command.index("--rpc-port")
            del command[place : place + 2]
        if start.command is not None:
            command = [*start.command, *command[command.index("node") + 1 :]]
        if start.is_stopped:
            command[command.index("--start-timeout") + 1] = "60"
        code, errors = await run([*start.before, *command], start)
    assert code == row.code, errors
    pattern = ".*".join(re.escape(part) for part in row.message.split("…"))
    if row.code in (ExitCode.FAILED, ExitCode.DONE):
        assert re.search(pattern, errors), errors
    else:
        assert re.fullmatch(f"proglog-trio: {pattern}", errors.splitlines()[-1]), errors
        assert "Traceback" not in errors
    assert row.is_tried_again == ("trying again" in errors or "waiting" in errors), errors


async def run(command: list[str], start: Start) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it wrote to standard error."""
    process = await trio.lowlevel.open_process(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=-1,
        env=clean_environment(**start.variables),
    )
    assert process.stderr is not None
    errors, is_to_be_stopped = b"", start.is_stopped
    try:
        with trio.fail_after(READY_SECONDS):
            async for data in process.stderr:
                errors += data
                if is_to_be_stopped and b"trying again" in errors:
                    process.send_signal(signal.SIGTERM)
                    is_to_be_stopped = False
            return await process.wait(), errors.decode()
    finally:
        if process.poll() is None:
            process.kill()
        await process.stderr.aclose()
