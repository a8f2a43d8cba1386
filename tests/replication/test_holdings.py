from __future__ import annotations

from functools import partial

import pytest

from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.local_node import LocalNode
from proglog_trio.replication.messages import Hello, HolderNews, OriginRange, Positions
from proglog_trio.replication.peers import progress as progress_module
from proglog_trio.replication.peers.acknowledgements import AcknowledgementResult
from proglog_trio.replication.replica import Replica, ReplicationConfig
from tests.log.driving import OpenLog
from tests.log.simulated_disk import SimulatedDisk
from tests.replication.driving import QuietHost

ORIGINS = [Origin(number.to_bytes(16, "big")) for number in range(5)]
PEER = Hello("proglog", "peer", b"peer----", 1)


def test_what_a_peer_forgets_makes_room_for_what_it_has_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nothing that a peer has of new origins would count, once it has had so many."""
    monkeypatch.setattr(progress_module, "MAX_ORIGINS", 4)
    log = OpenLog.open(SimulatedDisk()).log
    node = LocalNode(log, Hello("proglog", "me", log.directory_id, 1), lambda: 0.0, lambda _event: None)
    holdings = Replica(node, ReplicationConfig(), QuietHost()).holdings
    holdings.learn(PEER, Positions({origin: OriginRange(0, 3) for origin in ORIGINS[:4]}))
    assert holdings.progress.entries == 4
    newest = {ORIGINS[4]: OriginRange(0, 1)}
    holdings.learn(PEER, Positions(newest, forgotten=tuple(ORIGINS[:4])))
    assert holdings.progress.count(ORIGINS[4], 0, 1, {PEER.directory_id}) == 1
    assert holdings.progress.entries == 1


def test_a_message_is_passed_on_once_whatever_it_says() -> None:
    """News of sixty disks, for a hundred streams, would take as many turns of each stream otherwise."""
    opened = OpenLog.open(SimulatedDisk())
    opened.append_values(b"x")
    log = opened.log
    assert log.own_origin is not None
    node = LocalNode(log, Hello("proglog", "me", log.directory_id, 1), lambda: 0.0, lambda _event: None)
    replica = Replica(node, ReplicationConfig(), QuietHost())
    told: list[str] = []
    sessions = {name: replica.open_source(partial(told.append, name)) for name in "abc"}
    disks = [b"%08d" % number for number in range(20)]
    achieved: list[AcknowledgementResult] = []
    replica.wait_acknowledged(log.own_origin, 0, 1, 3, 1.0, achieved.append)
    for name, disk in zip("xy", disks, strict=False):
        replica.holdings.alive(name, disk)
    told.clear()
    replica.holdings.learn_of_others(HolderNews(disk, 1, {log.own_origin: 1}) for disk in disks)
    assert sorted(told) == list("abc")
    assert achieved == [AcknowledgementResult(3, reached=True)]
    for session in sessions.values():
        assert {news.directory_id for news in replica.holdings.tell(session.advertiser).others} == set(disks)
    told.clear()
    replica.holdings.learn_of_others([HolderNews(disks[0], 2, {log.own_origin: 1})])
    assert sorted(told) == list("abc")
