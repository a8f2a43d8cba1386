from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.snapshot import memory as memory_module
from proglog_trio.membership.snapshot.lines import (
    MAX_LINE_BYTES,
    Clocks,
    Forgotten,
    HasLeft,
    Header,
    Line,
    Lived,
    RememberedMember,
    encode_line,
)
from proglog_trio.membership.snapshot.memory import Memory, NotOurs, read_steps
from proglog_trio.steps import complete
from tests.membership.snapshot.strategies import LINES

OURS = Header("9f", "orders")


def member(name: str, status: MemberStatus = MemberStatus.ALIVE, time: int = 1) -> RememberedMember:
    return RememberedMember(name, bytes((10, 0, 0, 1)), 8401, {}, status, bytes(6), time)


def read(data: bytes, owner: Header = OURS) -> Memory:
    return complete(read_steps(data, owner))


def written(lines: Sequence[Line]) -> bytes:
    return b"".join(map(encode_line, [OURS, *lines]))


def remembered(lines: Sequence[Line]) -> tuple[object, ...]:
    memory = Memory()
    for line in lines:
        memory.take(line)
    return said(memory)


def said(memory: Memory) -> tuple[object, ...]:
    return (list(memory.members.values()), memory.clocks, memory.lived, memory.has_left)


@given(st.lists(LINES, max_size=6))
def test_a_file_cut_at_every_byte_loses_the_cut_line_alone(lines: list[Line]) -> None:
    data = written(lines)
    first = len(encode_line(OURS)) - 1
    ends = []
    place = len(encode_line(OURS))
    for line in lines:
        place += len(encode_line(line))
        ends.append(place - 1)  # without the line break it is whole, too
    for cut in range(len(data) + 1):
        if 0 < cut < first:
            with pytest.raises(NotOurs):
                read(data[:cut])
            continue
        whole = sum(end <= cut for end in ends)
        memory = read(data[:cut])
        assert said(memory) == remembered(lines[:whole])
        assert memory.damaged == (0 if cut in {0, first, first + 1, *ends, *(end + 1 for end in ends)} else 1)


@given(st.lists(LINES, min_size=1, max_size=8), st.data())
def test_a_damaged_line_loses_itself_alone(lines: list[Line], data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(lines) - 1))
    encoded = [encode_line(line) for line in [OURS, *lines]]
    # As a power loss leaves a file whose size was written and whose content was not.
    damaged = [bytes(40), encoded[number + 1][:-4], b"", b"\xff" * MAX_LINE_BYTES * 2]
    encoded[number + 1] = data.draw(st.sampled_from(damaged)) + b"\n"
    memory = read(b"".join(encoded))
    assert said(memory) == remembered([line for each, line in enumerate(lines) if each != number])
    assert (memory.lines, memory.damaged) == (len(lines) + 1, 1)


def test_zeros_between_lines_cost_the_line_behind_them() -> None:
    """As hashicorp/consul#3362 shows a snapshot after a machine crashed."""
    lines = [member("a"), member("b"), member("c")]
    data = written(lines[:1]) + bytes(512) + b"".join(map(encode_line, lines[1:]))
    memory = read(data)
    assert list(memory.members) == ["a", "c"]
    assert memory.damaged == 1


@given(st.binary(max_size=400))
def test_whatever_else_there_is_is_not_ours(data: bytes) -> None:
    if data:
        with pytest.raises(NotOurs):
            read(data)


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (evolve(OURS, cluster="payments"), "of the cluster 'payments', not of 'orders'"),
        (evolve(OURS, cluster=None), "of the cluster None, not of 'orders'"),
        (evolve(OURS, owner="aa"), "that of 'aa', not of '9f': a copy"),
        (evolve(OURS, format=2), "format 2, and this version reads 1"),
        (Clocks(7, 7, 7), "does not say whose it is"),
    ],
)
def test_a_snapshot_of_others_is_not_read(header: Line, why: str) -> None:
    with pytest.raises(NotOurs, match=why):
        read(encode_line(header) + encode_line(member("a")))


def test_no_file_and_an_empty_one_say_nothing() -> None:
    assert said(read(b"")) == remembered([])
    assert read(b"").lines == 0


def test_later_lines_count_and_clocks_never_go_back() -> None:
    memory = read(
        written(
            [
                member("a", time=1), Clocks(5, 9, 2), member("b"), member("a", MemberStatus.FAILED, 3), Clocks(6, 1, 1),
                Forgotten("b"), Forgotten("nobody"), Lived(60), Lived(30), HasLeft(),
            ]
        )
    )  # fmt: skip
    assert said(memory) == ([member("a", MemberStatus.FAILED, 3)], Clocks(6, 9, 2), 60, True)


def test_there_is_room_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "MAX_REMEMBERED", 2)
    memory = read(written([member("a"), member("b"), member("c"), member("a", time=2)]))
    assert {name: each.status_time for name, each in memory.members.items()} == {"b": 1, "a": 2}
    assert memory.left_out == 1


def test_the_alive_come_first_and_not_always_the_same() -> None:
    alive = [f"alive-{number}" for number in range(20)]
    gone = [member("left", MemberStatus.LEFT), member("failed", MemberStatus.FAILED)]
    memory = read(written([*gone, *map(member, alive)]))
    firsts = set()
    for place in (0.0, 0.3, 0.99, 1.0):
        names = [each.name for each in memory.most_promising_first(place)]
        assert names[20:] == ["failed", "left"]
        assert sorted(names[:20]) == sorted(alive)
        firsts.add(names[0])
    assert firsts == {"alive-0", "alive-6", "alive-19"}


def test_a_long_file_is_read_in_steps() -> None:
    data = written([member(f"node-{number}") for number in range(1000)])
    steps = read_steps(data, OURS)
    assert sum(1 for _ in steps) >= 1000 / memory_module.LINES_AT_ONCE - 1
