"""What mutual TLS costs: batch produce and consume, and unary calls, on nodes with everything on and with nothing.

Both nodes run on the same disk, in turns; the medians are compared. The secured node verifies its client, asks its
policy for each call and encrypts gossip; the client verifies the node.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import trio

from benchmarks.common import (
    Rate,
    accepts,
    free_port,
    goal,
    median,
    median_rate,
    print_machine,
    running,
    scratch_directory,
    spread,
)
from proglog_trio.client import ClientTls, ConnectionConfig, ConsumerConfig, open_consumer, open_producer
from proglog_trio.rpc.calls.cluster import get_members
from proglog_trio.security.certificates import development_files, write_files

BATCH_BYTES = 1 << 20
GOAL = 0.7
CALLS = 100
POLICY = "p, root, *, produce\np, root, *, consume\n"


@contextmanager
def node(directory: Path, options: Sequence[str]) -> Iterator[str]:
    """Run a node; yields its address."""
    port = free_port()
    bound = ["--data-dir", str(directory), "--bind-addr", "127.0.0.1:0", "--rpc-port", str(port)]
    with running([sys.executable, "-m", "proglog_trio", "node", *bound, *options], lambda: accepts(port)):
        yield f"127.0.0.1:{port}"


def secured(pki: Path) -> tuple[list[str], ConnectionConfig]:
    """Write certificates and a policy; return a node's options and a client's connection."""
    write_files(pki, {**development_files(), "policy.csv": POLICY.encode()})
    files = {
        "server-tls-cert-file": "server.pem",
        "server-tls-key-file": "server-key.pem",
        "server-tls-ca-file": "ca.pem",
        "acl-policy-file": "policy.csv",
    }
    options = [f"--{option}={pki / name}" for option, name in files.items()]
    tls = ClientTls(authorities=pki / "ca.pem", certificate=pki / "root-client.pem", key=pki / "root-client-key.pem")
    return [*options, "--encrypt", "AAECAwQFBgcICQoLDA0ODw=="], ConnectionConfig(tls=tls)


async def _in(address: str, connection: ConnectionConfig, value: bytes, seconds: float) -> Rate:
    values = [value] * max(1, BATCH_BYTES // (len(value) + 5))
    count = 0
    async with open_producer(address, connection=connection) as producer:
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            await producer.send_batch(values)
            count += len(values)
        await producer.flush()
        return Rate(count, time.perf_counter() - began, len(value))


async def _out(address: str, connection: ConnectionConfig, value: bytes) -> Rate:
    count = 0
    began = time.perf_counter()
    async with open_consumer(address, ConsumerConfig(follow=False), connection=connection) as consumer:
        async for batch in consumer.batches():
            count += len(batch.values())
    return Rate(count, time.perf_counter() - began, len(value))


async def _connect(address: str, tls: ClientTls | None) -> float:
    """Return how long a call on a connection of its own takes, handshake included."""
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await get_members(address, 30.0, tls=tls)
        taken.append(time.perf_counter() - began)
    return median(taken)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--size", type=int, default=1024, help="of the records")
    parser.add_argument("--directory", type=Path, default=None, help="where to write; default: the temporary directory")
    arguments = parser.parse_args()
    print_machine()
    value = os.urandom(arguments.size)
    with scratch_directory(arguments.directory) as directory:
        secure = secured(directory / "pki")
        kinds: dict[str, tuple[list[str], ConnectionConfig]] = {"plain": ([], ConnectionConfig()), "mutual TLS": secure}
        into: dict[str, list[Rate]] = {name: [] for name in kinds}
        out: dict[str, list[Rate]] = {name: [] for name in kinds}
        calls: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(arguments.rounds):
            # The first of a pair has the colder disk: they take turns at that, too.
            for name in sorted(kinds, reverse=bool(number % 2)):
                options, connection = kinds[name]
                with node(directory / f"{name.replace(' ', '-')}-{number}", options) as address:
                    trio.run(_in, address, connection, value, min(1.0, arguments.seconds))
                    into[name].append(trio.run(_in, address, connection, value, arguments.seconds))
                    out[name].append(trio.run(_out, address, connection, value))
                    calls[name].append(trio.run(_connect, address, connection.tls))
    print(
        f"records of {arguments.size} bytes, {arguments.rounds} rounds of {arguments.seconds:g} s (lowest to highest)"
    )
    for what, rates in (("produce", into), ("consume", out)):
        for name in kinds:
            middle = median_rate(rates[name])
            figures = f"{middle.per_second:>12,.0f}/s  {middle.megabytes_per_second:>8,.1f} MB/s"
            print(f"  {what} {name:<12}{figures}  ({spread(rates[name])})")
    for name in kinds:
        print(f"  connect and call, {name:<12}{median(calls[name]) * 1e3:>8.1f} ms")
    produced = median_rate(into["mutual TLS"]).per_second / median_rate(into["plain"]).per_second
    consumed = median_rate(out["mutual TLS"]).per_second / median_rate(out["plain"]).per_second
    print(f"mutual TLS against plain: consume {consumed:.2f}")
    print(f"mutual TLS against plain: produce {produced:.2f}, goal {GOAL}: {goal(produced >= GOAL)}")


if __name__ == "__main__":
    main()
