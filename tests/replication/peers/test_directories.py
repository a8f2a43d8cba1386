"""Which directories are known: those that are waited for are never dropped, the others make room, oldest first."""

from __future__ import annotations

import pytest

from proglog_trio.replication.messages import KnownDirectory
from proglog_trio.replication.peers import directories
from proglog_trio.replication.peers.directories import Directories, decode_directories


def entry(number: int, *, change: int = 0, is_gone: bool = False) -> KnownDirectory:
    return KnownDirectory(number.to_bytes(8, "big"), f"n{number}", change, is_gone)


def known(table: Directories) -> list[int]:
    return [int.from_bytes(each.directory_id, "big") for each in table]


def test_what_is_not_waited_for_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "MAX_DIRECTORIES", 3)
    table = Directories(b"me------")
    table.heard([entry(1, is_gone=True), entry(2), entry(3, is_gone=True)])
    # the first is waited for again, so the third is the only one that may go
    table.heard([entry(1, change=1)])
    table.heard([entry(4), entry(5)])
    assert known(table) == [1, 2, 4]
    # nothing may go any more, until one of them is given up
    table.heard([entry(6)])
    assert known(table) == [1, 2, 4]
    table.gone("n2")
    table.heard([entry(7)])
    assert known(table) == [1, 4, 7]


def test_what_is_kept_on_disk_makes_room_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "MAX_DIRECTORIES", 2)
    before = Directories(b"me------")
    before.heard([entry(1), entry(2, is_gone=True)])
    kept = decode_directories(before.encode())
    after = Directories(b"me------", known={each.directory_id: each for each in kept})
    after.heard([entry(3)])
    assert known(after) == [1, 3]
