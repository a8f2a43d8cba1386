"""A process that writes a snapshot as fast as it can, killed at any moment."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from proglog_trio.membership.snapshot.memory import read_steps
from proglog_trio.steps import complete
from tests.membership.snapshot.test_journal import OURS

ROUNDS = 5
LONGEST_SECONDS = 0.2

WRITER = """
import sys
from pathlib import Path

from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.snapshot import journal
from proglog_trio.membership.snapshot.file import SnapshotFile
from proglog_trio.steps import complete
from tests.membership.snapshot.test_journal import Written

journal.MIN_REWRITE_BYTES = 4096  # it is often written anew
written, file = Written(), SnapshotFile(Path(sys.argv[1]))
file.read()
number = 0
while True:
    number += 1
    written.clocks[1].witness(number)
    written.change(f"node-{number % 20}", MemberStatus.ALIVE, number)
    if written.journal.is_rewrite_due:
        file.replace(complete(written.journal.rewrite_steps()))
    file.append(complete(written.journal.append_steps()))
    print(number, flush=True)
"""


def test_nothing_that_was_written_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "members"
    rng = random.Random(5)
    for _ in range(ROUNDS):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(rng.random() * LONGEST_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
            *_, last = process.stdout.read().splitlines()
        memory = complete(read_steps(path.read_bytes(), OURS))
        number = int(last)
        assert memory.clocks.event >= number + 1
        assert memory.members[f"node-{number % 20}"].status_time >= number
        assert len(memory.members) == min(number, 20)
        assert memory.damaged <= 1
