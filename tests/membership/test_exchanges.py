from functools import partial

import pytest
import trio
from attrs import evolve

from proglog_trio.membership.exchanges import MAX_EXCHANGES, MAX_SENDING, MAX_WAITING_MESSAGES, Exchanges
from proglog_trio.membership.stream_io import ExchangeFailed, StreamCodec
from proglog_trio.membership.swim.effects import ExchangeState, PingByStream, SendByStream
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.swim.prober import Prober
from proglog_trio.membership.wire.memberlist import (
    Ack,
    Ping,
    PushPull,
)
from proglog_trio.membership.wire.serf import UserEvent, encode_serf
from tests.membership.gossiping import gossiping
from tests.membership.running import LOCAL, eventually


async def test_no_more_exchanges_than_allowed_are_under_way() -> None:
    async with gossiping() as gossip:
        # Its own listener is as good as any: nothing was accepted yet when the last is asked for.
        for number in range(MAX_EXCHANGES + 5):
            gossip._do(ExchangeState(Endpoint(bytes((127, 0, 1, number + 1)), 9), "x"))
        gossip._do(ExchangeState(Endpoint(bytes((127, 0, 1, 1)), 9), "x"))
        assert gossip.counters.exchanges_failed == 6

        async def failed() -> int:
            return gossip.counters.exchanges_failed

        await eventually(failed, lambda count: count == MAX_EXCHANGES + 6)


async def test_only_who_asks_to_ignores_events_of_before() -> None:
    async with gossiping(name="there") as there:
        there.act(lambda: there.core.receive(encode_serf(UserEvent(5, "deploy", b"", False))))
        async with gossiping() as gossip:
            await gossip.exchanges.exchange(there.endpoint, join=True)
            assert list(gossip.core.events.recent.items()) == [(5, [("deploy", b"")])]
        async with gossiping() as gossip:
            await gossip.exchanges.exchange(there.endpoint, join=True, ignore_events=True)
            assert list(gossip.core.events.recent.items()) == []
            # Nor does an older one arrive later.
            gossip.act(lambda: gossip.core.receive(encode_serf(UserEvent(4, "old", b"", False))))
            gossip.act(lambda: gossip.core.receive(encode_serf(UserEvent(9, "new", b"", False))))
            assert [time for time, _ in gossip.core.events.recent.items()] == [9]


@pytest.mark.parametrize("ignores", [True, False])
async def test_an_event_of_before_that_overtakes_the_answer_is_of_before(
    monkeypatch: pytest.MonkeyPatch, *, ignores: bool
) -> None:
    """Who is joined gossips to the one who joins as soon as it has its state."""
    async with gossiping(name="there") as there, gossiping() as gossip:
        before, after = (encode_serf(UserEvent(time, "deploy", b"", False)) for time in (5, 6))
        there.act(lambda: there.core.receive(before))
        ask = Exchanges._ask

        async def overtaken(self: Exchanges, target: Endpoint, state: PushPull) -> PushPull:
            answer = await ask(self, target, state)
            if self is gossip.exchanges:
                # The later one was fired after the answer, and comes again by others.
                for event in (before, after):
                    gossip.act(partial(gossip.core.receive, event))
            return answer

        monkeypatch.setattr(Exchanges, "_ask", overtaken)
        await gossip.exchanges.exchange(there.endpoint, join=True, ignore_events=ignores)
        for event in (before, after):
            gossip.act(partial(gossip.core.receive, event))
        assert [time for time, _ in gossip.core.events.recent.items()] == ([6] if ignores else [5, 6])


async def test_events_are_taken_again_after_an_exchange_that_failed() -> None:
    async with gossiping() as gossip:
        with pytest.raises(ExchangeFailed):
            await gossip.exchanges.exchange(Endpoint(bytes((127, 0, 1, 9)), 9), join=True, ignore_events=True)
        gossip.act(lambda: gossip.core.receive(encode_serf(UserEvent(5, "deploy", b"", False))))
        assert [time for time, _ in gossip.core.events.recent.items()] == [5]


async def test_a_look_changes_nothing() -> None:
    async with gossiping() as gossip, gossiping(name="other") as other:
        state = await other.exchanges.look(gossip.endpoint)
        assert [node.name for node in state.nodes] == ["me"]
        assert list(gossip.core.members.by_name) == ["me"]
        assert list(other.core.members.by_name) == ["other"]


async def test_a_stream_that_answers_with_something_else_is_no_ack(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gossiping() as gossip:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                ping = await StreamCodec().receive(stream, from_dialler=True)
                assert isinstance(ping, Ping)
                answer = Ack(seq_no=ping.seq_no + 1, payload=b"") if ping.seq_no == 1 else PushPull()
                await StreamCodec().send(stream, answer, from_dialler=False)

        ended: list[bool] = []

        def note(_prober: Prober, _number: int, *, answered: bool) -> None:
            ended.append(answered)

        monkeypatch.setattr(Prober, "stream_ping_ended", note)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
            endpoint = Endpoint.of("127.0.0.1", listener.socket.getsockname()[1])
            for number in (1, 2):
                await gossip.exchanges._ping(PingByStream(endpoint, "other", number, 30))
            nursery.cancel_scope.cancel()
        assert ended == [False, False]


async def test_messages_by_stream_are_bounded_and_counted() -> None:
    large = encode_serf(UserEvent(5, "large", bytes(5000), False))
    patient = evolve(LOCAL, stream_timeout=60.0)  # a busy machine is no failure
    async with gossiping(name="there", profile=patient) as there, gossiping(profile=patient) as gossip:
        gossip._do(SendByStream(there.endpoint, large))
        gossip._do(SendByStream(Endpoint.of("127.0.0.1", 9), large))

        async def counted() -> tuple[int, int]:
            return gossip.counters.messages_by_stream, gossip.counters.messages_by_stream_failed

        await eventually(counted, lambda counts: counts == (1, 1))
        assert list(there.core.events.recent.items()) == [(5, [("large", bytes(5000))])]
        for _ in range(MAX_WAITING_MESSAGES + 3):
            gossip._do(SendByStream(there.endpoint, large))
        assert gossip.counters.messages_by_stream_failed == 4
        await eventually(counted, lambda counts: counts == (1 + MAX_WAITING_MESSAGES, 4))
        gossip._do(SendByStream(there.endpoint, large))
        await eventually(counted, lambda counts: counts == (2 + MAX_WAITING_MESSAGES, 4))


async def test_one_that_takes_nothing_holds_up_no_other() -> None:
    async with gossiping(name="there") as there, gossiping(profile=evolve(LOCAL, stream_timeout=0.5)) as gossip:
        with trio.socket.socket() as silent:
            await silent.bind(("127.0.0.1", 0))
            silent.listen(100)
            endpoint = Endpoint.of("127.0.0.1", silent.getsockname()[1])
            for _ in range(MAX_SENDING + 1):
                gossip._do(SendByStream(endpoint, b"x"))
            gossip._do(SendByStream(there.endpoint, encode_serf(UserEvent(5, "e", b"", False))))

            async def sent() -> int:
                return gossip.counters.messages_by_stream

            await eventually(sent, lambda count: count == 1)

            async def failed() -> int:
                return gossip.counters.messages_by_stream_failed

            await eventually(failed, lambda count: count == MAX_SENDING + 1)
