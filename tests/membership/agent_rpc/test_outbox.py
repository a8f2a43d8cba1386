from __future__ import annotations

import pytest
import trio
import trio.testing

from proglog_trio.membership.agent_rpc.outbox import (
    LOW_BYTES,
    MAX_UNREAD_BYTES,
    PIECE_SECONDS,
    SENT_AT_ONCE_BYTES,
    ClientTooSlow,
    Outbox,
)


async def test_what_pushes_waits_for_room_and_what_answers_does_not(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    outbox = Outbox()
    mine, theirs = trio.testing.memory_stream_one_way_pair()
    await outbox.push(bytes(MAX_UNREAD_BYTES - 1))
    outbox.answer(bytes(2 * MAX_UNREAD_BYTES))
    await outbox.push(b"x")
    with trio.move_on_after(1000) as scope:
        await outbox.push(b"y")
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.push, b"z")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(outbox.run, mine)
        await trio.testing.wait_all_tasks_blocked()
        outbox.close()
    received = bytes(await theirs.receive_some())
    assert len(received) == 3 * MAX_UNREAD_BYTES + 1
    assert received[-2:] == b"xz"


async def test_all_is_sent_in_order_and_there_is_room_again(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    outbox, sent = Outbox(), bytearray()

    class Slow(trio.abc.SendStream):
        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await trio.sleep(PIECE_SECONDS - 1)
            assert len(data) <= SENT_AT_ONCE_BYTES
            sent.extend(data)

        async def wait_send_all_might_not_block(self) -> None:
            pass

        async def aclose(self) -> None:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.run, Slow())
        outbox.answer(b"a" * (3 * SENT_AT_ONCE_BYTES))
        await outbox.push(b"b" * 10)
        with trio.move_on_after(2 * PIECE_SECONDS) as scope:
            await outbox.until_low()
        assert scope.cancelled_caught
        await outbox.until_low()
        assert len(sent) >= 3 * SENT_AT_ONCE_BYTES - LOW_BYTES
        await outbox.push(b"c")
        outbox.close()
    assert bytes(sent) == b"a" * (3 * SENT_AT_ONCE_BYTES) + b"b" * 10 + b"c"


async def test_who_takes_nothing_for_too_long_is_too_slow(autojump_clock: trio.testing.MockClock) -> None:
    del autojump_clock
    outbox = Outbox()
    mine, _theirs = trio.testing.lockstep_stream_pair()
    outbox.answer(b"x")
    began = trio.current_time()
    with pytest.raises(ClientTooSlow, match="1 bytes wait"):
        await outbox.run(mine)
    assert trio.current_time() - began == pytest.approx(PIECE_SECONDS)
