"""Foreign clients find a cluster's nodes by DNS: dig, grpcio's own resolver and nginx, as the guide has them."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import trio
from attrs import define, field

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.address import Address
from tests.node_process import NodeProcess, node_process

pytestmark = pytest.mark.system

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "find-nodes-by-dns.md"
ZONE = "blue.proglog"
TTL_SECONDS = 1
SECONDS = 60
CALL_SECONDS = 5.0
PAUSE_SECONDS = 0.02
NOTICED_SECONDS = 10.0
"""After so long a killed node is known to have failed, with the local profile."""
MORE_SECONDS = 1.0
"""nginx counts whole seconds."""


def program(name: str, package: str) -> str:
    """Return where a program is; skip where it is not, with PROGLOG_REQUIRE_DNS_CLIENTS=1 that is an error."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed; on Debian: apt-get install {package}"
        if os.environ.get("PROGLOG_REQUIRE_DNS_CLIENTS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def free_port(family: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port that is free at all of this machine's addresses: grpcio takes it from its target, for all nodes."""
    with socket.socket(type=family) as probe:
        probe.bind(("0.0.0.0", 0))  # noqa: S104 - and nothing is listened for
        port: int = probe.getsockname()[1]
        return port


@define(eq=False)
class Cluster:
    """Nodes on 127.0.0.1, .2 and so on, all with one port for RPC; the first answers questions of DNS."""

    directory: Path
    rpc_port: int
    nodes: dict[str, NodeProcess] = field(factory=dict)
    _stack: AsyncExitStack = field(factory=AsyncExitStack)

    async def start(self, number: int) -> None:
        name = f"n{number}"
        first = self.nodes.get("n1")
        join = () if first is None else ("--start-join-addrs", first.gossip)
        options = ("--cluster-name", "blue", "--gossip-profile", "local", "--bind-addr", f"127.0.0.{number}:0", *join)
        dns = ("--dns-addr", "127.0.0.1:0", "--dns-ttl", f"{TTL_SECONDS}s")
        started = node_process(self.directory / name, *options, *dns, "--node-name", name, rpc_port=self.rpc_port)
        self.nodes[name] = await self._stack.enter_async_context(started)

    @property
    def dns(self) -> Address:
        return Address.parse(self.nodes["n1"].ready["dns_addr"])

    async def dig(self, *arguments: str) -> str:
        command = [program("dig", "bind9-dnsutils"), "@127.0.0.1", "-p", str(self.dns.port), "+tries=1", *arguments]
        with trio.fail_after(SECONDS):
            done = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
        return done.stdout.decode()

    def block_of_guide(self, language: str) -> str:
        """A block of the guide, with the ports that there are."""
        found = re.search(rf"^```{language}\n(.*?)^```$", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
        assert found is not None
        text = found[1].replace("127.0.0.1:8402", str(self.dns)).replace(f"{ZONE}:8400", f"{ZONE}:{self.rpc_port}")
        assert text.count(str(self.dns)) == text.count(f"{ZONE}:{self.rpc_port}") == 1
        return text

    async def until(self, count: int) -> None:
        """Wait until so many nodes are told of."""
        with trio.fail_after(SECONDS):
            while len((await self.dig("+short", ZONE)).split()) != count:  # noqa: ASYNC110 - asked of a node
                await trio.sleep(0.05)


@asynccontextmanager
async def cluster(directory: Path, count: int) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        running = Cluster(directory, free_port(), stack=stack)
        for number in range(1, count + 1):
            await running.start(number)
        await running.until(count)
        yield running


# -- dig ---------------------------------------------------------------------------------------------------------------


async def test_dig_finds_what_there_is(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as running:
        port = running.rpc_port
        assert sorted((await running.dig("+short", ZONE)).split()) == ["127.0.0.1", "127.0.0.2"]
        assert await running.dig("+short", "N2.node.Blue.proglog") == "127.0.0.2\n"
        servers = (await running.dig("+short", "SRV", f"_grpc._tcp.{ZONE}")).splitlines()
        assert sorted(servers) == [f"0 0 {port} n{number}.node.{ZONE}." for number in (1, 2)]
        assert await running.dig("+short", "+tcp", "+noedns", f"n1.node.{ZONE}") == "127.0.0.1\n"
        assert "status: NXDOMAIN" in (none := await running.dig("nobody.node.blue.proglog"))
        assert f"IN\tSOA\tns.{ZONE}." in none
        assert "status: NOERROR" in await running.dig("AAAA", ZONE)
        assert "status: REFUSED" in await running.dig("example.com")
        assert "status: REFUSED" in await running.dig("-x", "127.0.0.1")
        assert "status: NOTIMP" in await running.dig("+opcode=update", ZONE)
        assert "status: REFUSED" in await running.dig("+class=CH", "TXT", "version.bind", "CH")
        assert "Transfer failed" in await running.dig("AXFR", ZONE)
        # dig says so where something is odd about an answer
        for kind in ("A", "SRV", "NS", "SOA", "ANY", "TXT"):
            answer = await running.dig("+qr", kind, ZONE)
            assert "warning" not in answer.lower().replace(";; warning: recursion requested but not available", "")
            assert "malformed" not in answer.lower()


# -- clients that go on calling ----------------------------------------------------------------------------------------


@define(eq=False)
class Caller:
    """Calls again and again, in a thread, and notes when which node answered, or what came instead."""

    open: Callable[[], grpc.Channel]
    outcomes: list[tuple[float, str]] = field(factory=list)
    _stop: threading.Event = field(factory=threading.Event)

    def run(self) -> None:
        with self.open() as channel:
            call = channel.unary_unary(
                "/log.v1.Cluster/GetStatus",
                request_serializer=bytes,
                response_deserializer=log_v1.GetStatusResponse.parse,
            )
            while not self._stop.wait(PAUSE_SECONDS):
                try:
                    name = call(log_v1.GetStatusRequest(), timeout=CALL_SECONDS).node_name
                except grpc.RpcError as error:
                    name = f"{error.code().name}: {error.details()}"
                self.outcomes.append((time.monotonic(), name))

    def stop(self) -> None:
        self._stop.set()

    def since(self, moment: float) -> Counter[str]:
        """Which nodes answered, or what came instead, how often since a moment."""
        return self.between(moment, math.inf)

    def between(self, begin: float, end: float) -> Counter[str]:
        """The same of the calls that ended between two moments."""
        return Counter(name for when, name in self.outcomes if begin <= when < end)

    async def reaches(self, *names: str) -> None:
        """Wait until exactly these nodes have answered for a while."""
        with trio.fail_after(SECONDS):
            while True:
                begun = time.monotonic()
                await trio.sleep(1)
                if self.since(begun).keys() == set(names):
                    return


@asynccontextmanager
async def calling(open_channel: Callable[[], grpc.Channel]) -> AsyncIterator[Caller]:
    caller = Caller(open_channel)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, caller.run)
        try:
            yield caller
        finally:
            caller.stop()


async def come_and_go(running: Cluster, caller: Caller, *, finds_new_ones_at_once: bool) -> Counter[str]:
    """Start, stop and kill nodes, and see that each client finds those that there are.

    Return how often what came instead of an answer while a node stopped, or was killed and not known to have failed,
    and for the time to live after it. At any other time each call must be answered.
    """
    await caller.reaches("n1", "n2")
    await running.start(3)
    await running.until(3)
    if finds_new_ones_at_once:
        await caller.reaches("n1", "n2", "n3")
    stops = time.monotonic()
    assert await running.nodes["n2"].stop() == 0
    await trio.sleep(TTL_SECONDS + MORE_SECONDS)
    stopped = time.monotonic()
    await caller.reaches("n1", "n3")
    is_killed = time.monotonic()
    running.nodes["n3"].kill()
    await trio.sleep(NOTICED_SECONDS + TTL_SECONDS + MORE_SECONDS)
    settled = time.monotonic()
    await running.until(1)
    await running.start(2)
    await running.until(2)
    await trio.sleep(TTL_SECONDS + MORE_SECONDS)
    quiet = caller.between(0, stops) + caller.between(stopped, is_killed) + caller.since(settled)
    assert quiet.keys() == {"n1", "n2", "n3"}, f"calls failed: {quiet}"
    assert caller.since(settled)["n1"] > 50
    disturbed = caller.between(stops, stopped) + caller.between(is_killed, settled)
    return Counter({name: count for name, count in disturbed.items() if name not in running.nodes})


async def test_grpcios_own_resolver(tmp_path: Path) -> None:
    async with cluster(tmp_path, 2) as running:
        names: dict[str, Any] = {"grpc": grpc}
        exec(running.block_of_guide("python"), names)  # noqa: S102 - what the guide tells users to do
        async with calling(lambda: names["channel"]) as caller:
            # It asks again when a connection has ended, and not before.
            failed = await come_and_go(running, caller, finds_new_ones_at_once=False)
        # What fails it tries again, as the guide has it: but for a call that a killed node had begun to answer.
        assert all("Socket closed" in each for each in failed), failed
        assert failed.total() < 3, failed


NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {server}
}}
"""


@asynccontextmanager
async def nginx(directory: Path, running: Cluster) -> AsyncIterator[int]:
    """Run nginx in front of the cluster, and give its port."""
    path, port = program("nginx", "nginx-light"), free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(
        NGINX.format(
            directory=directory,
            server=running.block_of_guide("nginx").replace("127.0.0.1:8500", f"127.0.0.1:{port}"),
        )
    )
    command = [path, "-p", str(directory), "-c", str(configuration), "-e", "stderr"]
    with (directory / "nginx.stderr").open("wb") as errors:
        process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, stderr=errors)
    try:
        with trio.fail_after(SECONDS):
            while True:
                assert process.poll() is None, (directory / "nginx.stderr").read_text()
                try:
                    await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
                    break
                except OSError:
                    await trio.sleep(0.05)
        yield port
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with trio.CancelScope(shield=True), trio.fail_after(SECONDS):
            await process.wait()


async def test_nginx_before_the_cluster(tmp_path: Path) -> None:
    async with (
        cluster(tmp_path, 2) as running,
        nginx(tmp_path, running) as port,
        calling(lambda: grpc.insecure_channel(f"127.0.0.1:{port}")) as caller,
    ):
        failed = await come_and_go(running, caller, finds_new_ones_at_once=True)
        # What a node had taken when it ended; all else goes to the next.
        assert failed.total() < 10, failed
