from __future__ import annotations

import trio
import trio.testing

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.rpc.http2.asyncio_loop import asyncio_loop
from proglog_trio.rpc.http2.bridge import TrioEventLoop, open_loop
from proglog_trio.rpc.http2.keepalive import LATE_SECONDS, READING_SECONDS, PeerPatience, PeerWatch

PATIENCE = PeerPatience(handshake=5, silence=10, answer=3)


class Peer:
    def __init__(self, loop: TrioEventLoop) -> None:
        self.asked: list[float] = []
        self.given_up: list[tuple[float, str]] = []
        self.watch = PeerWatch(loop, PATIENCE, self._ask, self._give_up)
        self.watch.begin()

    def _ask(self) -> None:
        self.asked.append(trio.current_time())

    def _give_up(self, reason: str) -> None:
        self.given_up.append((trio.current_time(), reason))


async def test_one_that_never_greets(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        peer.watch.received()  # bytes that are no greeting
        await trio.sleep(100)
        assert peer.given_up == [(5, "no HTTP/2 handshake within 5 s")]


async def test_one_that_falls_silent(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        await trio.sleep(1)
        peer.watch.greeted()
        await trio.sleep(6)
        peer.watch.received()
        await trio.sleep(100)
        assert peer.asked == [17]
        assert peer.given_up == [(20, "the peer did not answer a PING within 3 s")]


async def test_one_that_answers(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        peer.watch.received()
        peer.watch.greeted()
        for _ in range(10):
            asked = len(peer.asked)
            await trio.sleep(11)
            assert len(peer.asked) == asked + 1
            peer.watch.received()
            peer.watch.answered()
        assert not peer.given_up


async def test_one_that_sends_something_else_instead_of_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        peer.watch.greeted()
        for _ in range(20):
            await trio.sleep(2.5)
            peer.watch.received()
        assert not peer.given_up


async def test_one_that_is_thought_to_have_gone_is_asked_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        peer.watch.greeted()
        await trio.sleep(1)
        peer.watch.ask_now(2, "it is said to have failed")
        assert peer.asked == [1]
        await trio.sleep(100)
        assert peer.given_up == [(3, "it is said to have failed, and it did not answer a PING within 2 s")]


async def test_whatever_comes_from_one_that_is_thought_to_have_gone_will_do(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_loop() as loop:
        for is_answer in (True, False):
            peer = Peer(loop)
            peer.watch.greeted()
            begun = trio.current_time()
            peer.watch.ask_now(2, "")
            await trio.sleep(1.5)
            peer.watch.received()
            if is_answer:
                peer.watch.answered()
            await trio.sleep(9)
            assert not peer.given_up
            # Watched as before from then on.
            await trio.sleep(100)
            assert peer.given_up == [(begun + 1.5 + 10 + 3, "the peer did not answer a PING within 3 s")]


async def test_one_that_is_asked_again_and_again_is_not_given_more_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        peer.watch.greeted()
        for _ in range(10):
            peer.watch.ask_now(2, "")
            await trio.sleep(0.5)
        assert [at for at, _ in peer.given_up] == [2]
        assert peer.asked == [0]


async def test_one_that_is_being_asked_patiently_is_given_less_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        peer.watch.greeted()
        await trio.sleep(10.5)
        assert peer.asked == [10]
        peer.watch.ask_now(1, "")
        await trio.sleep(100)
        assert [at for at, _ in peer.given_up] == [11.5]


async def test_one_that_has_answered_is_asked_anew(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        peer.watch.greeted()
        for _ in range(5):
            peer.watch.ask_now(2, "")
            await trio.sleep(1)
            peer.watch.received()
        assert peer.asked == [0, 1, 2, 3, 4]
        peer.watch.ask_now(2, "")
        await trio.sleep(10)
        assert [at for at, _ in peer.given_up] == [7]


async def test_one_that_has_not_greeted_has_its_own_deadline(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        peer.watch.ask_now(1, "")
        await trio.sleep(100)
        assert peer.given_up == [(5, "no HTTP/2 handshake within 5 s")]
        peer.watch.ask_now(1, "")
        await trio.sleep(100)
        assert (len(peer.given_up), peer.asked) == (1, [])


async def test_nothing_after_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        peer.watch.greeted()
        peer.watch.stop()
        peer.watch.answered()
        await trio.sleep(100)
        assert (peer.asked, peer.given_up) == ([], [])


async def test_what_arrived_while_this_process_was_stopped_is_read_first(mock_clock: trio.testing.MockClock) -> None:
    """For each of its timers: the clock jumps over it, and what the peer sent meanwhile is read a moment later."""
    async with open_loop() as loop:
        for jumps_before_answer in (True, False):
            peer = Peer(loop)
            peer.watch.greeted()
            await trio.testing.wait_all_tasks_blocked()
            if not jumps_before_answer:
                mock_clock.jump(10)
                await trio.testing.wait_all_tasks_blocked()
                assert len(peer.asked) == 1
            mock_clock.jump(1e6)
            await trio.testing.wait_all_tasks_blocked()
            assert not peer.given_up
            peer.watch.received()
            mock_clock.jump(READING_SECONDS)
            await trio.testing.wait_all_tasks_blocked()
            assert not peer.given_up
            peer.watch.stop()


async def test_one_that_went_while_this_process_was_stopped(mock_clock: trio.testing.MockClock) -> None:
    async with open_loop() as loop:
        peer = Peer(loop)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1e6)
        await trio.testing.wait_all_tasks_blocked()
        assert not peer.given_up
        mock_clock.jump(READING_SECONDS + LATE_SECONDS + 1)
        await trio.testing.wait_all_tasks_blocked()
        assert [reason for _, reason in peer.given_up] == ["no HTTP/2 handshake within 5 s"]


async def test_a_watch_that_fails_gives_its_peer_up(
    autojump_clock: trio.testing.MockClock, internal_errors: list[tuple[Where, Exception]]
) -> None:
    """Otherwise nobody would notice any more when the peer has gone; the other peers' watches go on."""
    async with asyncio_loop(InternalErrors()) as loop:
        peer, other = Peer(loop), Peer(loop)

        def fail() -> None:
            raise RuntimeError("unforeseen")

        peer.watch.ask = fail
        for each in (peer, other):
            each.watch.greeted()
        await trio.sleep(100)
        assert [reason for _, reason in peer.given_up] == ["watching over the peer failed: RuntimeError"]
        assert [reason for _, reason in other.given_up] == ["the peer did not answer a PING within 3 s"]
    assert [where for where, _ in internal_errors] == [Where.ASYNCIO]
