from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.cli.formats.status import aligned, described_status, status_lines

ORIGIN = bytes(range(16))


def test_what_a_status_says_in_words() -> None:
    status = log_v1.GetStatusResponse(
        node_name="a",
        cluster_name="c",
        rpc_addr="h:1",
        lowest_offset=7,
        next_offset=7,
        read_only_reason="disk full",
        origins=[log_v1.OriginStatus(origin=ORIGIN, low=3, next=7, pulled_from="b", behind=2, missing=1)],
        peers=[
            log_v1.PeerStatus(name="b", rpc_addr="h:2", problem="cannot connect", node_behind=2),
            log_v1.PeerStatus(name="c", rpc_addr="h:3"),
        ],
    )
    lines = list(status_lines(status))
    assert lines[1] == "cluster   c; no cluster size is set"
    assert lines[2] == "log       no records, the next offset is 7; READ-ONLY: disk full"
    assert lines[5].split() == [ORIGIN.hex(), "3", "7", "2", "1", "nobody", "b"]
    assert lines[-2].endswith("not connected: cannot connect")
    assert lines[-1].endswith("connecting")
    assert described_status(status)["peers"][1]["problem"] is None
    assert list(status_lines(log_v1.GetStatusResponse()))[-1] == "no peers"


def test_columns() -> None:
    assert list(aligned([("a", "1", "x"), ("long", "100", "")], right=(1,))) == ["a       1  x", "long  100"]
