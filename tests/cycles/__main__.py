"""Clients that come and go thousands of times, in a process of their own: what is left of them, here and at the node?

    python -m tests.cycles --backend asyncio --cycles 10000 --seed 1 --directory DIR

Each cycle is drawn from the seed and its number, so that ``--first N --cycles 1`` has one of them alone. In the second
half the node is not killed any more: it lives long enough to show what it keeps. Ends with 1, and says why, at the
first cycle that leaves something.
"""

import argparse
import faulthandler
import gc
import sys
import time
from collections import Counter
from pathlib import Path

import anyio
import anyio.lowlevel
import sniffio
from attrs import define, field

from proglog_trio.client import open_consumer, open_producer
from proglog_trio.log.producer_table import MAX_PRODUCERS
from tests.cycles.accounts import Holdings, complaints, objects, resident_mebibytes, settle
from tests.cycles.cycle import BATCH, MAX_BATCHES, Fault, Plan, run_cycle
from tests.cycles.node import CycledNode

SETTLED_SECONDS = 2.0
"""How long a process may take to close what belonged to clients that have left."""
HANGING_SECONDS = 180.0
"""A cycle that takes so long ends the run, with what it is at."""
LOOK_EVERY = 100
"""After so many cycles the node is asked, and objects are counted, which takes longer than a cycle."""
MAX_RESIDENT_MEBIBYTES = 192.0
"""Here, and at the node, whose caches are full sooner or later."""
MAX_GROWTH_MEBIBYTES = 16.0
"""Of resident memory, here and at the node, over the last quarter of LONG_RUN cycles or more: caches are full then.

What the node's table of producers takes is left out; tests/log/test_producer_table.py has its bound."""
PRODUCER_KIBIBYTES = 4.0
"""What a producer takes of a node's memory while its table is not full: each cycle has a new one."""
LONG_RUN = 4000
TELL_EVERY = 1000
"""After so many cycles a long run says how far it is."""


@define
class Course:
    """What became of the cycles so far.

    Attributes:
        leaving: how many seconds clients took to leave, of each cycle.
        kinds: how many there were of what.
        starts: of the node.
        memory: resident here and at the node after three quarters and at the end, in MiB.
    """

    leaving: list[float] = field(factory=list)
    kinds: Counter[str] = field(factory=Counter)
    starts: int = 0
    memory: list[tuple[float, float]] = field(factory=list)

    def report(self, seconds: float) -> str:
        """Return it in words."""
        leaving = sorted(self.leaving)
        half, most, last = (leaving[int((len(leaving) - 1) * share)] * 1000 for share in (0.5, 0.99, 1))
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.kinds.items()))
        here, node = (f"{before:.1f} to {after:.1f}" for before, after in zip(*self.memory, strict=True))
        return (
            f"{len(leaving)} cycles in {seconds:.0f} s, node started {self.starts} times\n"
            f"clients left within {half:.1f} ms (p50), {most:.1f} ms (p99), {last:.1f} ms (most)\n"
            f"resident over the last quarter: {here} MiB here, {node} MiB at the node\n{kinds}"
        )


async def _fill(node: CycledNode) -> None:
    """Write what there is to read; whatever is made once, at first use, is made now."""
    async with open_producer(node.address) as producer, open_consumer(node.address) as consumer:
        for _ in range(MAX_BATCHES):
            await producer.send_batch(BATCH)
        await producer.flush()
        await consumer.next_batch()


async def _look_around(node: CycledNode, descriptors: int) -> None:
    """Fail if the node, or this process's memory, still has something of clients."""
    left = await node.left_over(descriptors, SETTLED_SECONDS * 5)
    assert not left, f"the node still has {left}"
    # Frames of tasks that ended in this tick go with the next.
    await anyio.lowlevel.checkpoint()
    found = objects()
    assert not found, f"there are still {found}"


async def run(directory: Path, seed: int, first: int, cycles: int) -> Course:
    """Run the cycles.

    Raises:
        AssertionError: one of them left something.
    """
    course = Course()
    with CycledNode.running(directory) as node, complaints() as said:
        await node.start()
        descriptors = node.descriptors()
        await _fill(node)
        await node.left_over(descriptors, SETTLED_SECONDS)
        gc.collect()
        before = Holdings.now()
        for number in range(first, first + cycles):
            if number == first + cycles * 3 // 4:
                await _look_around(node, descriptors)
                course.memory.append((resident_mebibytes(), node.resident_mebibytes()))
            faulthandler.dump_traceback_later(HANGING_SECONDS, exit=True)
            plan = Plan.draw(seed, number, kills=number < first + cycles // 2)
            try:
                if plan.fault in (Fault.KILLED, Fault.BACK):
                    await _look_around(node, descriptors)
                clients, leaving = await run_cycle(node, plan)
                left = await settle(before, SETTLED_SECONDS)
                assert left is None, f"{left} are left, there were {before}"
                unsettled = sum(not delivery.settled for delivery in clients.deliveries)
                assert not unsettled, f"{unsettled} deliveries are not settled"
                node.check_runs()
                del clients
                if number % LOOK_EVERY == LOOK_EVERY - 1:
                    await _look_around(node, descriptors)
                assert not said, "\n".join(said)
            except BaseException as error:
                error.add_note(f"in cycle {number} of seed {seed}: {plan}")
                raise
            course.leaving.append(leaving)
            course.kinds.update((plan.fault.value, plan.ending.value, plan.moment.value))
            if len(course.leaving) % TELL_EVERY == 0:
                sys.stdout.write(f"{len(course.leaving)} of {cycles} cycles\n")
                sys.stdout.flush()
        faulthandler.cancel_dump_traceback_later()
        await _look_around(node, descriptors)
        course.memory.append((resident_mebibytes(), node.resident_mebibytes()))
        course.starts = node.starts
    return course


async def _run_on(backend: str, directory: Path, seed: int, first: int, cycles: int) -> Course:
    assert sniffio.current_async_library() == backend
    course = await run(directory, seed, first, cycles)
    assert backend == "trio" or "trio_asyncio" not in sys.modules
    return course


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["asyncio", "trio"], required=True)
    parser.add_argument("--cycles", type=int, required=True)
    parser.add_argument("--first", type=int, default=0, help="the number of the first one")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--directory", type=Path, required=True, help="of the node; exists, and is empty")
    arguments = parser.parse_args()
    began = time.perf_counter()
    course = anyio.run(
        _run_on,
        arguments.backend,
        arguments.directory,
        arguments.seed,
        arguments.first,
        arguments.cycles,
        backend=arguments.backend,
    )
    sys.stdout.write(f"{arguments.backend}, seed {arguments.seed}: {course.report(time.perf_counter() - began)}\n")
    (here, node), (here_after, node_after) = course.memory
    if max(here_after, node_after) > MAX_RESIDENT_MEBIBYTES:
        sys.exit(f"more than {MAX_RESIDENT_MEBIBYTES:g} MiB are resident")
    held = [min(cycles, MAX_PRODUCERS) for cycles in (arguments.cycles * 3 // 4, arguments.cycles)]
    growth = max(here_after - here, node_after - node - (held[1] - held[0]) * PRODUCER_KIBIBYTES / 1024)
    if growth > MAX_GROWTH_MEBIBYTES and arguments.cycles >= LONG_RUN:
        sys.exit(f"resident memory grew by {growth:.1f} MiB over the last quarter")


if __name__ == "__main__":
    main()
