"""How long hostile input holds a node's loop: `python -m fuzz.holds [--most MS] [NAME ...]`, or `nox -s holds`.

A node runs in a process of its own; what is measured there is the processor time of each step of each task on its loop,
so that other load on the machine does not count, and the time that a task which sleeps for 5 ms sleeps too long, which
it does. Each case has a fresh node, and is tried again if it is above the bound: what is too long is so each time.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import trio
from attrs import define, field, frozen

from fuzz.hostile import CASES, KEYS, Attack, Case, agent_request
from proglog_trio.address import Address
from proglog_trio.membership.wire.keyring import Keyring
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.garbage import keep_what_is_there
from proglog_trio.node.log_output import configure_log_output
from proglog_trio.node.run import RunningNode, run_node

MAX_MILLISECONDS = 10.0
TRIES = 3
BEAT_SECONDS = 0.005
ANSWER_SECONDS = 30.0
QUIET_SECONDS = 0.4
QUIET_SHARE = 0.2
"""A node is quiet again when it uses less than this share of a processor for so long."""
BUSY_SECONDS = 120.0
PIECE_SECONDS = 0.2
UNANSWERED_SECONDS = 3.0


@define(eq=False)
class LoopWatch(trio.abc.Instrument):
    """Measures the loop of the thread that it is used in.

    Attributes:
        step: the processor time of the longest step, in seconds, and whose it was.
        round: the same of all steps between two looks at the network.
        collection: of the longest collection of garbage, which is part of neither: it is as long as there are objects,
            and comes when Python thinks that it is time.
    """

    step: float = 0.0
    whose: str = ""
    round: float = 0.0
    collection: float = 0.0
    _step_began: float = 0.0
    _round_began: float | None = None
    _collection_began: float = 0.0

    def collecting(self, phase: str, _information: object) -> None:
        """A collection begins or ends; for gc.callbacks."""
        if phase == "start":
            self._collection_began = time.thread_time()
            return
        took = time.thread_time() - self._collection_began
        self.collection = max(self.collection, took)
        # As if it had not been.
        self._step_began += took
        if self._round_began is not None:
            self._round_began += took

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step begins; trio's name for it."""
        del task
        self._step_began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step is over."""
        took = time.thread_time() - self._step_began
        if took > self.step:
            self.step, self.whose = took, task.name

    def after_io_wait(self, timeout: float) -> None:
        """A round begins."""
        del timeout
        self._round_began = time.thread_time()

    def before_io_wait(self, timeout: float) -> None:
        """A round is over."""
        del timeout
        if self._round_began is not None:
            self.round = max(self.round, time.thread_time() - self._round_began)

    def reset(self) -> None:
        """Forget what was longest."""
        self.step, self.whose, self.round, self.collection = 0.0, "", 0.0, 0.0


# -- the node ----------------------------------------------------------------------------------------------------------


@define(eq=False)
class _Beat:
    late: float = 0.0

    async def run(self) -> None:
        while True:
            before = trio.current_time()
            await trio.sleep(BEAT_SECONDS)
            self.late = max(self.late, trio.current_time() - before - BEAT_SECONDS)


async def _node(watch: LoopWatch, directory: Path, many_keys: bool) -> None:
    keyring_file = None
    if many_keys:
        keyring_file = directory / "keyring.json"
        keyring_file.write_text(json.dumps(Keyring(KEYS).to_base64()))
        keyring_file.chmod(0o600)
    config = NodeConfig(
        data_dir=directory / "data",
        node_name="node",
        bind_addr=Address("127.0.0.1", 0),
        rpc_port=0,
        metrics_addr=Address("127.0.0.1", 0),
        dns_addr=Address("127.0.0.1", 0),
        serf_rpc_addr=Address("127.0.0.1", 0),
        gossip_profile="local",
        # So that what is slow is not cut off before it is seen to be.
        gossip_settings=(("stream_timeout", 60.0),),
        keyring_file=keyring_file,
    )
    beat = _Beat()
    async with trio.open_nursery() as nursery:
        node: RunningNode = await nursery.start(run_node, config)
        keep_what_is_there()
        nursery.start_soon(beat.run)
        await trio.sleep(0.5)
        metrics, dns, agent = node.metrics_address, node.dns_address, node.agent_rpc_address
        assert metrics is not None
        assert dns is not None
        assert isinstance(agent, Address)
        ports = {"gossip": node.gossip_address, "rpc": node.rpc_address, "metrics": metrics, "dns": dns, "agent": agent}
        _say({name: address.port for name, address in ports.items()})
        async for _ in trio.lowlevel.FdStream(os.dup(0)):
            # Whatever is said: tell what was longest, and begin anew.
            _say(
                {
                    "step": watch.step * 1000, "whose": watch.whose, "round": watch.round * 1000,
                    "collection": watch.collection * 1000,
                    "late": beat.late * 1000, "cpu": time.process_time(),
                }
            )  # fmt: skip
            watch.reset()
            beat.late = 0.0
        nursery.cancel_scope.cancel()


def _say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


# -- the attacker ------------------------------------------------------------------------------------------------------


@frozen
class Held:
    """How long a node's loop was held, all in milliseconds.

    Attributes:
        step, whose: the longest step's processor time, and the task's name.
        round: the longest round's.
        collection: the longest collection of garbage.
        late: by how much a short sleep was too long at the worst.
        cpu: all that the case cost.
    """

    step: float
    whose: str
    round: float
    collection: float
    late: float
    cpu: float


@define(eq=False)
class _NodeProcess:
    process: subprocess.Popen[str]
    ports: dict[str, int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.ports = self._read()

    def _read(self) -> dict[str, int]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"the node ended with {self.process.wait()}")
        found: dict[str, int] = json.loads(line)
        return found

    def ask(self) -> dict[str, float | str]:
        assert self.process.stdin is not None
        self.process.stdin.write("tell\n")
        self.process.stdin.flush()
        return {**self._read()}

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_until_quiet(self) -> None:
        ends = time.monotonic() + BUSY_SECONDS
        while time.monotonic() < ends:
            before = self.cpu_seconds()
            time.sleep(QUIET_SECONDS)
            if self.cpu_seconds() - before < QUIET_SHARE * QUIET_SECONDS:
                return

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


async def _converse(port: int, pieces: Sequence[bytes]) -> None:
    """Send all pieces, read what comes back, and let it be if nothing does."""
    with trio.move_on_after(ANSWER_SECONDS):
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            return
        async with stream, trio.open_nursery() as nursery:

            async def read() -> None:
                with contextlib.suppress(trio.BrokenResourceError):
                    while await stream.receive_some(65_536):
                        pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(read)
            with contextlib.suppress(trio.BrokenResourceError):
                for piece in pieces:
                    await stream.send_all(piece)
                    await trio.sleep(PIECE_SECONDS)
            await trio.sleep(UNANSWERED_SECONDS)
            nursery.cancel_scope.cancel()


async def _attack(attack: Attack, ports: dict[str, int]) -> None:
    async with trio.open_nursery() as nursery:
        for pieces in attack.watchers:
            await nursery.start(_watch, ports["rpc"], pieces)
        await _attack_watched(attack, ports)
        nursery.cancel_scope.cancel()


async def _watch(
    port: int, pieces: Sequence[bytes], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Open a connection, send pieces, and read until cancelled; started with the first answer to the last."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for piece in pieces:
            await stream.send_all(piece)
            await trio.sleep(PIECE_SECONDS)
            await stream.receive_some()
        task_status.started()
        while await stream.receive_some():
            pass


async def _attack_watched(attack: Attack, ports: dict[str, int]) -> None:
    limiter = trio.CapacityLimiter(attack.at_once)

    async def stream(pieces: Sequence[bytes]) -> None:
        async with limiter:
            await _converse(ports["gossip"], pieces)

    async with trio.open_nursery() as nursery:
        for pieces in attack.streams:
            if attack.at_once == 1:
                await stream(pieces)
            else:
                nursery.start_soon(stream, pieces)
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        for packet in attack.packets:
            udp.sendto(packet, ("127.0.0.1", ports["gossip"]))
        for question in attack.questions:
            udp.sendto(question, ("127.0.0.1", ports["dns"]))
    async with trio.open_nursery() as nursery:
        for pieces in attack.connections:
            nursery.start_soon(_converse, ports["rpc"], pieces)
        for pieces in attack.dns_streams:
            nursery.start_soon(_converse, ports["dns"], pieces)
        for pieces in attack.agent_requests:
            nursery.start_soon(_converse, ports["agent"], [agent_request("handshake", {"Version": 1}), *pieces])
        for path in attack.requests:
            head = f"GET {path} HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n".encode()
            nursery.start_soon(_converse, ports["metrics"], [head])
    await trio.sleep(attack.wait_seconds)


def measure(attack: Attack) -> Held:
    """Return how long a fresh node's loop is held by what is sent."""
    with tempfile.TemporaryDirectory(prefix="proglog-holds-") as directory:
        command = [sys.executable, "-m", "fuzz.holds", "--node", directory, *(["--many-keys"] * attack.many_keys)]
        with (Path(directory) / "stderr").open("w") as errors:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            node = _NodeProcess(process)
            node.wait_until_quiet()
            before = node.ask()
            trio.run(_attack, attack, node.ports)
            node.wait_until_quiet()
            told = node.ask()
        finally:
            process.kill()
            process.wait()
    spent = (float(told["cpu"]) - float(before["cpu"])) * 1000
    return Held(
        float(told["step"]),
        str(told["whose"]),
        float(told["round"]),
        float(told["collection"]),
        float(told["late"]),
        spent,
    )


def check(case: Case, most: float) -> bool:
    """Measure a case and print what came of it; tell whether it is within the bound."""
    attack = case.make()
    best: Held | None = None
    for _ in range(TRIES):
        held = measure(attack)
        if best is None or held.step < best.step:
            best = held
        if best.step <= most:
            break
    assert best is not None
    verdict = "" if best.step <= most else "  TOO LONG"
    print(
        f"{case.name:<52} step {best.step:7.1f} ms  round {best.round:7.1f} ms  gc {best.collection:6.1f} ms  "
        f"late {best.late:7.1f} ms  cpu {best.cpu / 1000:6.2f} s  {best.whose.rpartition('.')[2]}{verdict}",
        flush=True,
    )
    return best.step <= most


def main() -> None:
    """Measure the cases whose names contain what is given, or all; exit with 1 if one holds the loop for too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of the names of cases; default: all")
    parser.add_argument("--most", type=float, default=MAX_MILLISECONDS, help="the bound of a step (default: 10)")
    parser.add_argument("--node", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--many-keys", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.node is not None:
        configure_log_output("json", "info")
        watch = LoopWatch()
        gc.callbacks.append(watch.collecting)
        trio.run(_node, watch, arguments.node, arguments.many_keys, instruments=[watch])
        return
    chosen = [case for case in CASES if not arguments.names or any(name in case.name for name in arguments.names)]
    if not chosen:
        parser.error("no case has such a name: " + "; ".join(case.name for case in CASES))
    bad = [case.name for case in chosen if not check(case, arguments.most)]
    if bad:
        sys.exit(f"{len(bad)} of {len(chosen)} hold the loop for more than {arguments.most:g} ms: {'; '.join(bad)}")
    print(f"{len(chosen)} cases, none holds the loop for more than {arguments.most:g} ms", flush=True)


if __name__ == "__main__":
    main()
