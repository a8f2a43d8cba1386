import io
import json
from pathlib import Path

from attrs import evolve
from rich.console import Console

from proglog_trio._proto.log.v1 import GetStatusResponse, Member, MemberStatus, OriginStatus, PeerStatus
from proglog_trio.address import Address
from proglog_trio.local_cluster.events import NodeEnded, Ready, ending
from proglog_trio.local_cluster.plan import ClusterPlan
from proglog_trio.local_cluster.snapshot import ClusterSnapshot, NodeSnapshot, Rates
from proglog_trio.local_cluster.view import ORIGINS_SHOWN, summary, view

ORIGINS = [bytes([number]) * 16 for number in range(20)]


def status(name: str, nexts: list[int], writes: int | None = None, **counters: int) -> GetStatusResponse:
    return GetStatusResponse(
        node_name=name,
        next_offset=sum(nexts),
        origins=[
            OriginStatus(origin=origin, next=following, written_by=name if number == writes else "")
            for number, (origin, following) in enumerate(zip(ORIGINS, nexts, strict=False))
            if following
        ],
        peers=[PeerStatus(name="a" if name == "b" else "b", connected=name == "b", peer_behind=7)],
        counters=counters,
    )


def snapshot(*statuses: GetStatusResponse | None) -> ClusterSnapshot:
    nodes = [
        NodeSnapshot(
            name,
            Address("127.0.0.1", 8400 + number),
            -9 if each is None else None,
            each,
            None if each else "gone",
            10.0,
        )
        for number, (name, each) in enumerate(zip("abc", statuses, strict=False))
    ]
    members = [Member(name="a", status=MemberStatus.ALIVE), Member(name="agent", status=MemberStatus.FAILED)]
    return ClusterSnapshot("proglog", nodes, members)


def drawn(shown: ClusterSnapshot, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(view(shown))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_rates_come_from_counters() -> None:
    earlier = status("a", [1], records_produced=100, records_applied=5)
    later = status("a", [1], records_produced=300, records_applied=5, records_consumed=1000, bytes_sent=4)
    assert Rates.between(earlier, later, 2.0) == Rates(produced=100, pulled=0, consumed=500, bytes_to_peers=2)
    assert Rates.between(later, earlier, 2.0) is None  # it was restarted
    assert Rates.between(earlier, later, 0.0) is None


def test_a_node_that_did_not_answer_has_no_rates() -> None:
    node = snapshot(status("a", [1])).nodes[0]
    silent = evolve(node, status=None)
    assert node.after(silent) is None
    assert silent.after(node) is None
    assert node.after(None) is None
    assert evolve(node, asked_at=11.0).after(node) == Rates(0, 0, 0, 0)


def test_origins_are_put_side_by_side() -> None:
    shown = snapshot(status("a", [4, 0, 9], writes=2), None, status("c", [4, 3, 5]))
    found = shown.origins()
    assert [(each.written_by, dict(each.nexts), each.is_even) for each in found] == [
        ("a", {"a": 9, "c": 5}, False),
        ("", {"a": 0, "c": 3}, False),
        ("", {"a": 4, "c": 4}, True),
    ]


def test_states() -> None:
    running, ended = snapshot(status("a", [1]), None).nodes
    assert running.state == "running"
    assert ended.state == "killed by SIGKILL"
    assert evolve(ended, exit_code=None).state == "no answer"
    assert evolve(running, exit_code=1).state == "started again"
    assert ending(3) == "exit code 3"
    assert ending(-999) == "killed by signal 999"


def test_the_view_fits_eighty_columns() -> None:
    big = 123_456_789
    rates = Rates(1e6, 1e6, 1e6, 1e6)
    whole = snapshot(status("a", [big, big, 3], writes=2), status("b", [big, 5, 3]), None)
    whole = evolve(whole, nodes=[evolve(node, rates=rates) for node in whole.nodes])
    lines = drawn(whole)
    text = "\n".join(lines)
    assert "…" not in text
    assert "other members: agent (failed)" in text
    assert "killed by" in text
    row = next(line for line in lines if line.startswith("a "))
    assert row.split() == ["a", "8400", "246,913,581", "0", "1,000,000", "1,000,000", "1,000,000", "alive"]
    assert any(line.split() == ["a", "-", "away,", "7", "-"] for line in lines)
    assert any(line.split() == [ORIGINS[2].hex(), "a", "3", "3"] for line in lines)
    assert any(line.split() == [ORIGINS[1].hex(), "nobody", "now", "123,456,789", "5"] for line in lines)


def test_many_origins_are_left_out() -> None:
    lines = drawn(snapshot(status("a", [1] * 20), status("b", [1] * 20)))
    assert sum(line[:32] in {origin.hex() for origin in ORIGINS} for line in lines) == ORIGINS_SHOWN
    assert lines[-1].strip() == "and 12 more, the same everywhere"


def test_one_line() -> None:
    rates = Rates(1000, 0, 2.4, 0)
    shown = snapshot(status("a", [3]), None)
    assert summary(shown) == "a alive, next offset 3; b killed by SIGKILL, unknown"
    shown = evolve(shown, nodes=[evolve(shown.nodes[0], rates=rates)])
    assert summary(shown) == "a alive, next offset 3, 1,000/s produced, 0/s pulled, 2/s read"


def test_everything_is_json() -> None:
    fields = json.loads(json.dumps(snapshot(status("a", [3]), None).fields()))
    assert fields["members"] == {"a": "alive", "agent": "failed"}
    assert [node["state"] for node in fields["nodes"]] == ["running", "killed by SIGKILL"]
    assert fields["origins"] == [{"origin": ORIGINS[0].hex(), "written_by": None, "next": {"a": 3}}]


def test_events_say_what_can_be_done(tmp_path: Path) -> None:
    node = ClusterPlan(directory=tmp_path / "some where").nodes()[0]
    said = NodeEnded(node, -9).text()
    assert "node-1 has ended: killed by SIGKILL" in said
    assert said.endswith(f"node --config-file '{tmp_path}/some where/node-1.toml'")
    assert NodeEnded(node, 1).fields()["exit_code"] == 1
    ready = Ready(tmp_path, {"node-1": Address("127.0.0.1", 8400)}).text()
    assert ready.startswith("1 node is ready")
    assert "consume --addr 127.0.0.1:8400 --follow" in ready
