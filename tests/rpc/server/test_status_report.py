from __future__ import annotations

import random

from proglog_trio._proto.log.v1 import GetStatusResponse, PeerStatus, Time
from proglog_trio.cli.formats.status import described_status, status_lines
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.replication.peer_task import PeerTask
from proglog_trio.rpc.server.log_service_state import LogServiceCounters
from proglog_trio.rpc.server.status_report import MAX_FAILED, FailedPeer, status_of
from tests.replication.driving import pull_nothing, replicator_around, streams_run_by
from tests.replication.simulation.cluster import Cluster

NEW_STREAM = streams_run_by(pull_nothing)


def test_clocks_that_are_off_are_named() -> None:
    cluster = Cluster(2)
    cluster.wall_offset["b"] = 3_600_000
    node, other = cluster.add("a"), cluster.add("b")
    cluster.produce(other)
    cluster.run(5)
    for asked, sign in ((node, 1), (other, -1)):
        replica = asked.running.replica
        replicator = replicator_around(replica)
        for name in replica.peers.views:
            replicator.peers[name] = PeerTask(name, name, replica, NEW_STREAM, random.Random(1), lambda: None)
        told = GetStatusResponse.parse(bytes(status_of(replicator, "127.0.0.1:1", 3, LogServiceCounters())))
        (peer,) = told.peers
        assert peer.clock is not None
        assert peer.clock.is_off
        assert abs(peer.clock.ahead - sign * 3_600_000) <= 2_000 + peer.clock.uncertainty
        assert told.time is not None
        assert 4_000 <= told.time.running <= 6_000
        assert told.time.log_time_ahead == 0
        lines = "\n".join(status_lines(told))
        assert f"the wall clock of {peer.name} is 1:00:0" in lines or "is 0:59:5" in lines
        assert ("ahead of this node's" in lines) is (sign == 1)
        described = described_status(told)
        assert described["peers"][0]["clock"]["is_off"] is True
        assert described["time"]["running"] == told.time.running / 1000


def test_what_a_node_of_before_does_not_say_is_none() -> None:
    told = GetStatusResponse(node_name="old", peers=[PeerStatus(name="b")])
    described = described_status(told)
    assert (described["time"], described["peers"][0]["clock"]) == (None, None)
    assert not any(line.startswith("clock") for line in status_lines(told))


def test_what_is_wrong_with_time_is_said() -> None:
    told = GetStatusResponse(time=Time(log_time_ahead=90_061_000, retention_overdue=5_000))
    assert [line for line in status_lines(told) if line.startswith("clock")] == [
        "clock     log time is 1 day, 1:01:01 ahead of this node's wall clock, which is wrong, or was",
        "clock     retention by age is 5.0 s late by the wall clock; it goes by running time",
    ]


def test_names_that_are_no_text_do_not_keep_a_node_from_telling_its_status() -> None:
    """A member of another program may call itself what it likes."""
    cluster = Cluster(1)
    node = cluster.add("a")
    cluster.produce(node)
    cluster.run(1)
    replica = node.running.replica
    replicator = replicator_around(replica)
    gossiped = b"\xff\xfe".decode("utf-8", "surrogateescape")
    replica.joined(gossiped)
    replicator.peers[gossiped] = PeerTask(
        gossiped, gossiped, replica, NEW_STREAM, random.Random(1), lambda: None, problem=gossiped
    )
    counters = LogServiceCounters(records_produced=3)
    told = GetStatusResponse.parse(bytes(status_of(replicator, "127.0.0.1:1", 3, counters)))
    (shown,) = told.peers
    assert (shown.name, shown.rpc_addr, shown.problem) == ("\ufffd\ufffd",) * 3
    assert (told.node_name, told.cluster_size, told.next_offset) == ("a", 3, 1)
    assert told.counters["records_produced"] == 3
    assert told.counters["acknowledgements_waiting"] == 0


def test_failed_peers_are_told_of() -> None:
    cluster = Cluster(2)
    node, other = cluster.add("a"), cluster.add("b")
    cluster.produce(other)
    cluster.run(5)
    replica = node.running.replica
    replicator = replicator_around(replica)
    replicator.peers["b"] = PeerTask("b", "b:1", replica, NEW_STREAM, random.Random(1), lambda: None)
    statuses = {"b": MemberStatus.ALIVE, "c": MemberStatus.FAILED}
    many = [FailedPeer(f"c{number:03}", f"c{number}:1", bytes(16)) for number in range(MAX_FAILED + 5)]
    failed = [FailedPeer("b", "b:0", None), *many]
    told = GetStatusResponse.parse(bytes(status_of(replicator, "a:1", 3, LogServiceCounters(), failed, statuses)))
    shown = [(peer["name"], peer["member_status"], peer["problem"]) for peer in described_status(told)["peers"]]
    assert shown[:2] == [("b", "alive", None), ("c000", "failed", "the member has failed")]
    assert len(shown) == MAX_FAILED
    (line,) = [line for line in status_lines(told) if line.startswith("c000")]
    assert line.split() == ["c000", "c0:1", "-", "-", *["not", "connected:", "the", "member", "has", "failed"]]


def test_copies_of_the_data_directory_are_named() -> None:
    replica = Cluster(3).add("a").running.replica
    replicator = replicator_around(replica)
    replicator.copies.update({"there": True, "gone": False})
    told = GetStatusResponse.parse(bytes(status_of(replicator, "127.0.0.1:1", 3, LogServiceCounters())))
    assert described_status(told)["copies"] == [
        {"name": "gone", "is_alive": False},
        {"name": "there", "is_alive": True},
    ]
    lines = [line for line in status_lines(told) if line.startswith("copy")]
    assert lines[0].startswith("copy      gone used a copy of this node's data directory")
    assert lines[1].startswith("copy      there uses a copy of this node's data directory")
