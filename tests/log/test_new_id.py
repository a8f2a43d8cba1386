"""A copy of a directory becomes one of its own, and keeps what it holds."""

from __future__ import annotations

import random

import pytest

from proglog_trio.errors import DataDirectoryError
from proglog_trio.log.inspect.verify import Verifier
from proglog_trio.log.new_id import give_new_id
from tests.log.driving import DIRECTORY, OpenLog, read_all
from tests.log.simulated_disk import SimulatedDisk


@pytest.mark.parametrize("records", [0, 1, 30])
@pytest.mark.parametrize("times", [1, 3])
def test_a_new_id_changes_nothing_else(records: int, times: int) -> None:
    disk = SimulatedDisk()
    opened = OpenLog.open(disk)
    for number in range(records):
        opened.append_values(b"%d" % number)
    before = [frame.data for frame in read_all(opened.log)]
    directory_id = opened.log.directory_id
    opened.close()
    for number in range(times):
        changed = give_new_id(DIRECTORY, disk=disk, rng=random.Random(number))
        assert changed.before == directory_id
        directory_id = changed.after
    opened = OpenLog.open(disk, 5)
    assert opened.log.report.is_clean
    assert opened.log.directory_id == directory_id
    assert [frame.data for frame in read_all(opened.log)] == before
    appended = opened.append_values(b"more")
    assert appended.origin.directory_id == directory_id
    assert list(Verifier(DIRECTORY, disk).run()) == []


def test_a_directory_in_use_or_without_a_log_is_refused() -> None:
    disk = SimulatedDisk()
    with pytest.raises(DataDirectoryError, match="no log"):
        give_new_id(DIRECTORY, disk=disk)
    opened = OpenLog.open(disk)
    with pytest.raises(DataDirectoryError, match="locked"):
        give_new_id(DIRECTORY, disk=disk)
    opened.close()
