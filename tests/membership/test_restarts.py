"""Members that are started again without start addresses: they know their cluster from before."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from proglog_trio.errors import DirectoryCopied
from proglog_trio.membership.config import GossipConfig
from proglog_trio.membership.events.asked_query import AskedQuery
from proglog_trio.membership.exchanges import Exchanges
from proglog_trio.membership.lives import DIRECTORY_TAG, OPENING_TAG
from proglog_trio.membership.opening import bind_membership
from proglog_trio.membership.serf.member import MemberEvent, MemberEventKind, MemberStatus
from proglog_trio.membership.serf.user_events import UserEvent
from proglog_trio.membership.snapshot import keeper as keeper_module
from proglog_trio.membership.snapshot.file import SnapshotFile
from proglog_trio.membership.snapshot.lines import Lived, RememberedMember, decode_line, encode_line
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.serf import encode_serf
from tests.membership.running import EVENTUALLY_SECONDS, LOCAL, QUICK, Ours, eventually, start_ours_in
from tests.membership.serf.cores import query

# Nobody is tried again by the core itself meanwhile: what joins is what the test is about.
NO_RECONNECT = evolve(QUICK, reconnect_interval=10_000.0)


def status_of(ours: Ours, name: str) -> str | None:
    member = ours.membership.member(name)
    return None if member is None else member.status.value


async def two_that_met_and_crashed(start: Callable[..., Awaitable[Ours]], file: Path) -> tuple[Ours, Ours]:
    """Return a, which has its memory in the file, and b, of which that knows."""
    b = await start("b")
    a = await start("a", join=[b.address], snapshot_file=file, profile=NO_RECONNECT)
    await a.until_status("alive", "b")
    await a.crash()
    await b.crash()
    return a, b


async def test_a_member_finds_its_cluster_again_without_start_addresses(tmp_path: Path) -> None:
    file = tmp_path / "members"
    async with start_ours_in() as start:
        b, c = await start("b"), await start("c")
        a = await start("a", join=[b.address, c.address], snapshot_file=file, profile=NO_RECONNECT)
        await a.until_status("alive", "b", "c")
        await a.crash()
        again = await start("a", port=a.address.port, snapshot_file=file, profile=NO_RECONNECT)
        # Once it is started, and not some time later.
        assert {name: member.status.value for name, member in again.members().items()} == dict.fromkeys("abc", "alive")
        for other in (b, c):
            await other.until_status("alive", "a", "b", "c")


@pytest.mark.parametrize("rejoins", [True, False])
async def test_also_after_a_leave_unless_that_is_switched_off(tmp_path: Path, *, rejoins: bool) -> None:
    file = tmp_path / "members"
    async with start_ours_in() as start:
        b = await start("b")
        a = await start("a", join=[b.address], snapshot_file=file, rejoin_after_leave=rejoins, profile=NO_RECONNECT)
        await a.until_status("alive", "b")
        await a.leave()
        await b.until_status("left", "a")
        assert ("alive" in file.read_text()) is rejoins
        assert file.read_text().endswith("leave null\n")
        again = await start("a", port=a.address.port, snapshot_file=file, rejoin_after_leave=rejoins)
        assert status_of(again, "b") == ("alive" if rejoins else None)


async def test_a_leave_that_was_to_be_remembered_may_be_forgotten_by_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "members"
    async with start_ours_in() as start:
        b = await start("b")
        a = await start("a", join=[b.address], snapshot_file=file)
        await a.until_status("alive", "b")
        await a.leave()
        again = await start("a", snapshot_file=file, rejoin_after_leave=False)
        assert set(again.members()) == {"a"}


async def test_failed_members_are_known_and_tried_again(tmp_path: Path) -> None:
    """As hashicorp/serf#333 and #605 ask: who fails while a node is down is not forgotten by it."""
    file = tmp_path / "members"
    tags = {"rpc_addr": "b:8400", "zone": "2"}
    async with start_ours_in() as start:
        b, c = await start("b", tags=tags), await start("c")
        a = await start("a", join=[b.address, c.address], snapshot_file=file)
        await a.until_status("alive", "b", "c")
        await a.crash()
        await b.crash()
        await c.crash()
        quick = evolve(QUICK, reconnect_interval=0.2)
        again = await start("a", port=a.address.port, snapshot_file=file, profile=quick)
        assert (status_of(again, "b"), status_of(again, "c")) == ("failed", "failed")
        assert again.members()["b"].tags == tags
        assert again.members()["b"].port == b.address.port
        # The handler hears of those alone that are there.
        assert again.peers.told == []
        async with again.membership.events() as events:
            back = await start("b", port=b.address.port, tags=tags)
            await again.until_status("alive", "b")
            await back.until_status("alive", "a")
            async for event in events:
                assert isinstance(event, MemberEvent)
                assert (event.kind, [member.name for member in event.members]) == (MemberEventKind.JOIN, ["b"])
                break
        assert status_of(again, "c") == "failed"


async def test_those_that_left_are_tried_last_and_known_as_left(tmp_path: Path) -> None:
    file = tmp_path / "members"
    async with start_ours_in() as start:
        b = await start("b")
        a = await start("a", join=[b.address], snapshot_file=file)
        await a.until_status("alive", "b")
        await b.leave()
        await a.until_status("left", "b")
        await a.leave()
        again = await start("a", port=a.address.port, snapshot_file=file)
        assert status_of(again, "b") == "left"
        await start("b", port=b.address.port)
        await again.until_status("alive", "b")


async def test_a_cluster_that_was_stopped_as_a_whole_comes_together(tmp_path: Path) -> None:
    names = "abcd"
    async with start_ours_in() as start:
        first = await start("a", snapshot_file=tmp_path / "a", profile=NO_RECONNECT)
        others = [
            await start(name, join=[first.address], snapshot_file=tmp_path / name, profile=NO_RECONNECT)
            for name in names[1:]
        ]
        for one in (first, *others):
            await one.until_status("alive", *names)
        for one in (first, *others):
            await one.leave()
        again = [
            await start(name, port=one.address.port, snapshot_file=tmp_path / name, profile=NO_RECONNECT)
            for name, one in zip(names, (first, *others), strict=True)
        ]
        for one in again:
            # A member may be thought to be leaving for a moment: of that no event tells.
            await eventually(partial(statuses, one), lambda seen: seen == dict.fromkeys(names, "alive"))


async def test_what_was_heard_is_not_delivered_twice_and_what_was_missed_is(tmp_path: Path) -> None:
    file = tmp_path / "members"
    async with start_ours_in() as start, trio.open_nursery() as nursery:
        b = await start("b")
        a = await start("a", join=[b.address], snapshot_file=file)
        await a.until_status("alive", "b")
        async with a.membership.events() as events:
            b.membership.send_event("before", b"1")
            b.membership.send_event("before", b"2")
            await user_events(events, 2)
        clock = b.membership.gossip.core.events.clock.time
        # Some milliseconds after it was heard, whatever becomes of this node then.
        await eventually(lambda: content(file), lambda text: f'"event":{clock}' in text)
        await a.crash()
        b.membership.send_event("meanwhile", b"3")
        config = GossipConfig(name="a", profile=LOCAL, bind_port=a.address.port, snapshot_file=file)
        again = await bind_membership(config, {})
        async with again.events() as events:
            await nursery.start(again.run)
            # b's state has all of them.
            assert await user_events(events, 1) == [("meanwhile", b"3")]
            b.membership.send_event("after", b"4")
            assert await user_events(events, 1) == [("after", b"4")]
        nursery.cancel_scope.cancel()


async def user_events(
    events: AsyncIterator[MemberEvent | UserEvent | AskedQuery], count: int
) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    with trio.fail_after(EVENTUALLY_SECONDS):
        async for event in events:
            if isinstance(event, UserEvent):
                found.append((event.name, event.payload))
            if len(found) == count:
                break
    return found


async def test_queries_that_were_answered_are_not_answered_again(tmp_path: Path) -> None:
    file = tmp_path / "members"
    asked: list[tuple[int, int]] = []
    answered = trio.Event()

    async def answer(query: AskedQuery) -> bytes:
        asked.append((query.ltime, query.id))
        answered.set()
        return b"here"

    def ask(ours: Ours, ltime: int, number: int) -> None:
        # As gossip of others brings it again and again.
        message = encode_serf(query(ltime=ltime, id=number, name="who", addr=bytes((127, 0, 0, 1)), port=1))
        ours.membership.gossip.act(lambda: ours.membership.gossip.core.receive(message))

    async with start_ours_in() as start:
        a = await start("a", snapshot_file=file, query_handlers={"who": answer})
        ask(a, 7, 1)
        await answered.wait()
        await eventually(lambda: content(file), lambda text: '"query":8' in text)
        await a.crash()
        answered = trio.Event()
        again = await start("a", snapshot_file=file, query_handlers={"who": answer})
        ask(again, 7, 1)
        ask(again, 8, 2)
        await answered.wait()
        assert asked == [(7, 1), (8, 2)]


async def test_clocks_go_on_from_where_they_were(tmp_path: Path) -> None:
    file = tmp_path / "members"
    async with start_ours_in() as start:
        a = await start("a", snapshot_file=file)
        core = a.membership.gossip.core
        core.clock.witness(40)
        core.query_clock.witness(50)
        await a.crash()
        again = await start("a", snapshot_file=file)
        core = again.membership.gossip.core
        assert (core.clock.time, core.events.clock.time, core.query_clock.time) == (41, 1, 51)
        assert not core.querying.recent.add(50, 1, core.query_clock.time)
        assert core.querying.recent.add(51, 1, core.query_clock.time)


async def test_clocks_are_above_the_times_of_the_members_that_are_known(tmp_path: Path) -> None:
    """Also where the line of the clocks is damaged."""
    file = tmp_path / "members"
    async with start_ours_in() as start:
        b = await start("b")
        a = await start("a", join=[b.address], snapshot_file=file)
        await a.until_status("alive", "b")
        await a.crash()
        await b.crash()
        lines = [decode_line(line) for line in file.read_bytes().splitlines()]
        changed = [evolve(line, status_time=40) for line in lines if isinstance(line, RememberedMember)]
        file.write_bytes(b"".join(map(encode_line, [lines[0], *changed])))
        again = await start("a", snapshot_file=file)
        assert again.membership.gossip.core.clock.time == 41


async def test_a_day_of_being_gone_goes_on_over_restarts(tmp_path: Path) -> None:
    file = tmp_path / "members"
    async with start_ours_in() as start:
        b = await start("b")
        a = await start("a", join=[b.address], snapshot_file=file)
        await a.until_status("alive", "b")
        await a.crash()
        await b.crash()
        lines = [decode_line(line) for line in file.read_bytes().splitlines()]
        (known,) = [line for line in lines if isinstance(line, RememberedMember)]
        gone = [
            evolve(known, name="long gone", status=MemberStatus.FAILED, gone_at=100),
            evolve(known, name="gone", status=MemberStatus.FAILED, gone_at=50_000),
        ]
        file.write_bytes(b"".join(map(encode_line, [lines[0], *gone, Lived(90_000)])))
        again = await start("a", snapshot_file=file, profile=evolve(NO_RECONNECT, reap_interval=0.1))
        await again.until(lambda seen: set(seen) == {"a", "gone"})
        await again.crash()
        # What is written goes on counting from there.
        assert "lived 90000" in await content(file)
        assert '"gone_at":50000' in await content(file)


async def test_a_member_that_was_where_this_one_is_now_is_not_asked(tmp_path: Path) -> None:
    file = tmp_path / "members"
    tags = {DIRECTORY_TAG: "aa"}
    async with start_ours_in() as start:
        b = await start("b")
        a = await start("a", join=[b.address], tags=tags, snapshot_file=file)
        await a.until_status("alive", "b")
        await a.crash()
        await b.crash()
        renamed = await start("c", tags=tags, port=b.address.port, snapshot_file=file)
        assert statuses_of(renamed) == {"b": "failed", "c": "alive"}
        assert renamed.membership._keeper.members_before == {}


async def test_an_address_that_is_anothers_now_is_not_joined_through(tmp_path: Path) -> None:
    """Where nothing tells clusters apart, who is there must know a member of before where that was."""
    file = tmp_path / "members"
    async with start_ours_in() as start:
        a, b = await two_that_met_and_crashed(start, file)
        strange = await start("strange", port=b.address.port)
        again = await start("a", port=a.address.port, snapshot_file=file, profile=NO_RECONNECT)
        assert status_of(again, "b") == "failed"
        assert set(strange.members()) == {"strange"}


async def test_nor_is_it_when_failed_members_are_tried_again(tmp_path: Path) -> None:
    file, quick = tmp_path / "members", evolve(QUICK, reconnect_interval=0.05)
    async with start_ours_in() as start:
        a, b = await two_that_met_and_crashed(start, file)
        strange = await start("strange", port=b.address.port)
        again = await start("a", port=a.address.port, snapshot_file=file, profile=quick)

        async def tries() -> int:
            return again.membership.gossip.counters.exchanges_failed

        await eventually(tries, lambda count: count >= 3)
        assert statuses_of(again) == {"a": "alive", "b": "failed"}
        assert set(strange.members()) == {"strange"}


async def test_a_member_of_before_that_comes_back_is_found_in_company_too(tmp_path: Path) -> None:
    file, quick = tmp_path / "members", evolve(QUICK, reconnect_interval=0.2)
    async with start_ours_in() as start:
        a, b = await two_that_met_and_crashed(start, file)
        again = await start("a", port=a.address.port, snapshot_file=file, profile=quick)
        company = await start("c", join=[again.address], profile=NO_RECONNECT)
        await again.until_status("alive", "c")
        await start("b", port=b.address.port, profile=NO_RECONNECT)
        for each in (again, company):
            await each.until_status("alive", "a", "b", "c")


async def test_a_snapshot_of_another_cluster_is_put_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "members"
    async with start_ours_in() as start:
        b = await start("b", tags={"cluster": "orders"}, cluster_tag="cluster")
        a = await start("a", join=[b.address], tags={"cluster": "orders"}, cluster_tag="cluster", snapshot_file=file)
        await a.until_status("alive", "b")
        await a.crash()
        before = file.read_bytes()
        again = await start("a", tags={"cluster": "payments"}, cluster_tag="cluster", snapshot_file=file)
        assert set(again.members()) == {"a"}
        assert (tmp_path / "members.aside").read_bytes() == before
        assert again.membership.counters["snapshot"].put_aside == 1
    assert "it is of the cluster 'orders', not of 'payments'" in caplog.text


async def test_a_copied_directory_is_not_taken_for_this_one(tmp_path: Path) -> None:
    file, copy = tmp_path / "members", tmp_path / "copy"
    mine = {DIRECTORY_TAG: "aa", OPENING_TAG: "1"}
    async with start_ours_in() as start:
        b = await start("b")
        a = await start("a", join=[b.address], tags=mine, snapshot_file=file)
        await a.until_status("alive", "b")
        await eventually(lambda: content(file), lambda text: '"name":"b"' in text)
        shutil.copy(file, copy)
        shutil.copy(file, tmp_path / "as it is")
        # It was made a directory of its own since: it is alone, as an empty one would be.
        own = await start("own", tags={**mine, DIRECTORY_TAG: "bb"}, snapshot_file=copy)
        assert set(own.members()) == {"own"}
        # As it is, it finds the one that it was copied from.
        config = GossipConfig(name="a", profile=LOCAL, snapshot_file=tmp_path / "as it is")
        membership = await bind_membership(config, mine)
        with trio.fail_after(EVENTUALLY_SECONDS), pytest.raises(DirectoryCopied):
            await membership.run()


async def test_a_damaged_line_costs_one_member(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "members"
    async with start_ours_in() as start:
        b, c = await start("b"), await start("c")
        a = await start("a", join=[b.address, c.address], snapshot_file=file)
        await a.until_status("alive", "b", "c")
        await a.crash()
        await b.crash()
        await c.crash()
        file.write_bytes(file.read_bytes().replace(b'"name":"b"', b'"name":"B"'))
        again = await start("a", snapshot_file=file)
        assert set(again.members()) == {"a", "c"}
        assert again.membership.counters["snapshot"].lines_damaged >= 1
        # What is written next has no damage.
        await eventually(lambda: content(file), lambda text: '"B"' not in text)
    assert "some of the members of before are not known any more" in caplog.text


async def test_a_file_that_cannot_be_read_for_a_moment_is_read_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper_module, "READ_AGAIN_SECONDS", 0.01)
    file = tmp_path / "members"
    read, attempts = SnapshotFile.read, 0

    def read_at_the_third_attempt(self: SnapshotFile) -> bytes:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return read(self)

    async with start_ours_in() as start:
        await two_that_met_and_crashed(start, file)
        monkeypatch.setattr(SnapshotFile, "read", read_at_the_third_attempt)
        again = await start("a", snapshot_file=file, profile=NO_RECONNECT)
        assert status_of(again, "b") == "failed"
        counters = again.membership.counters["snapshot"]
        assert (counters.failures, counters.put_aside) == (2, 0)
    assert "cannot be read yet; it is tried again" in caplog.text


@pytest.mark.parametrize("obstacle", ["directory", "cannot be read"])
async def test_a_file_that_cannot_be_read_is_put_aside(
    obstacle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "members"
    if obstacle == "directory":
        file.mkdir()
    else:
        file.write_bytes(b"what nobody may read")
        monkeypatch.setattr(SnapshotFile, "read", _refuse)
    async with start_ours_in() as start:
        a = await start("a", snapshot_file=file)
        await eventually(lambda: content(file), lambda text: "snapshot" in text)
        counters = a.membership.counters["snapshot"]
        assert (counters.failures, counters.put_aside) == (1, 1)
    assert (tmp_path / "members.aside").exists()
    assert "the members of before are not known: their file was put aside" in caplog.text


async def test_a_file_that_cannot_be_written_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper_module, "RETRY_SECONDS", 0.1)
    file = tmp_path / "nowhere" / "members"
    async with start_ours_in() as start:
        a = await start("a", snapshot_file=file)
        counters = a.membership.counters["snapshot"]

        async def look() -> int:
            return int(counters.failures)

        await eventually(look, lambda failures: failures >= 3)
        warned = [each for each in caplog.records if "cannot be written down" in each.getMessage()]
        assert len(warned) == 1
        # What was in the way is gone.
        file.parent.mkdir()
        await eventually(lambda: content(file), lambda text: "snapshot" in text)


def _refuse(*_arguments: Any, **_more: Any) -> Any:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


async def test_a_full_disk_is_a_warning_and_what_was_missed_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper_module, "RETRY_SECONDS", 0.1)
    file = tmp_path / "members"
    async with start_ours_in() as start:
        b = await start("b")
        a = await start("a", snapshot_file=file)
        await eventually(lambda: content(file), lambda text: "snapshot" in text)
        is_full = True
        original = os.write

        def write(descriptor: int, data: bytes) -> int:
            if is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(descriptor, data)

        monkeypatch.setattr("proglog_trio.membership.snapshot.file.os.write", write)
        await a.membership.join([b.address])
        await a.until_status("alive", "b")

        async def failures() -> int:
            return int(a.membership.counters["snapshot"].failures)

        await eventually(failures, lambda count: count > 0)
        assert '"b"' not in await content(file)
        monkeypatch.setattr(keeper_module, "RETRY_SECONDS", 1000.0)
        count = await failures()
        await eventually(failures, lambda now: now > count)
        # It is long until it is tried again: at the end it is all the same.
        is_full = False
        await a.crash()
        assert '"name":"b"' in await content(file)
    assert "No space left on device" in caplog.text


async def test_a_file_that_somebody_removes_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "RETRY_SECONDS", 0.1)
    file = tmp_path / "members"
    async with start_ours_in() as start:
        b = await start("b")
        a = await start("a", snapshot_file=file)
        await eventually(lambda: content(file), lambda text: "snapshot" in text)
        file.unlink()
        await a.membership.join([b.address])
        await eventually(lambda: content(file), lambda text: "snapshot" in text and '"name":"b"' in text)


async def test_many_dead_members_of_before_are_gone_through_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "members"
    looks: list[Endpoint] = []
    at_once = most = 0
    original = Exchanges.look

    async def look(self: Exchanges, target: Endpoint) -> Any:
        nonlocal at_once, most
        looks.append(target)
        at_once += 1
        most = max(most, at_once)
        try:
            return await original(self, target)
        finally:
            at_once -= 1

    monkeypatch.setattr(Exchanges, "look", look)
    monkeypatch.setattr("proglog_trio.membership.joining.FIRST_RETRY_SECONDS", 0.01)
    async with start_ours_in() as start:
        b = await start("b")
        a = await start("a", join=[b.address], snapshot_file=file)
        await a.until_status("alive", "b")
        await a.crash()
        await b.crash()
        b = await start("b", port=b.address.port)  # which knows nobody
        lines = [decode_line(line) for line in file.read_bytes().splitlines()]
        (known,) = [line for line in lines if isinstance(line, RememberedMember)]
        # Nobody listens there; b is among those who failed, so that it is tried after all of them.
        dead = [evolve(known, name=f"dead-{n}", address=bytes((127, 1, n, 1)), port=1) for n in range(30)]
        members = [*dead, evolve(known, status=MemberStatus.FAILED)]
        others = [line for line in lines if not isinstance(line, RememberedMember)]
        file.write_bytes(b"".join(map(encode_line, [*others, *members])))
        looks.clear()
        again = await start("a", port=a.address.port, snapshot_file=file, profile=NO_RECONNECT)
        await again.until_status("alive", "b")
        assert len(set(looks)) == 31
        assert most <= 8
        # None of them is joined through any more.
        count = len(looks)
        await again.until_measured("b")
        assert len(looks) == count


def statuses_of(ours: Ours) -> dict[str, str]:
    return {name: member.status.value for name, member in ours.members().items()}


async def statuses(ours: Ours) -> dict[str, str]:
    return statuses_of(ours)


async def test_some_of_many_live_members_of_before_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "members"
    joined: list[Endpoint] = []
    original = Exchanges.exchange

    async def exchange(self: Exchanges, target: Endpoint, **more: Any) -> None:
        if more.get("join") and self.gossip.config.name == "a":
            joined.append(target)
        await original(self, target, **more)

    async with start_ours_in() as start:
        first = await start("m0")
        names = [f"m{number}" for number in range(6)]
        for name in names[1:]:
            await start(name, join=[first.address])
        a = await start("a", join=[first.address], snapshot_file=file)
        await a.until_status("alive", *names)
        await a.crash()
        monkeypatch.setattr(Exchanges, "exchange", exchange)
        again = await start("a", port=a.address.port, snapshot_file=file, profile=NO_RECONNECT)
        assert statuses_of(again) == dict.fromkeys(["a", *names], "alive")
        assert 1 <= len(set(joined)) <= 3


async def content(file: Path) -> str:
    try:
        return await trio.Path(file).read_text()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""
