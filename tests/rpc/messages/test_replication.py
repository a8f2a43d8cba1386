from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.errors import FrameError
from proglog_trio.log.format.origin import Origin
from proglog_trio.replication.events import PeerLied
from proglog_trio.replication.messages import (
    ClockAnswer,
    Ended,
    EndReason,
    Hello,
    HolderNews,
    KnownDirectory,
    OriginRange,
    Positions,
    PullRequest,
    PullResponse,
    Want,
)
from proglog_trio.rpc.messages.codec import MessageCodec
from proglog_trio.rpc.messages.replication import (
    encode_frames,
    encode_response,
    frames_steps,
    request_steps,
    request_to_message,
    response_steps,
)
from proglog_trio.steps import complete
from tests.log.driving import ForeignLog, batch_of

Message = TypeVar("Message")

CODEC = MessageCodec(100_000)
PREFIX_BYTES = 5
NUMBERS = st.integers(0, 2**64 - 1)
ORIGINS = st.binary(min_size=16, max_size=16).map(Origin)
DIRECTORIES = st.binary(min_size=8, max_size=8)


def request_of_message(message: log_v1.PullRequest) -> PullRequest:
    return complete(request_steps(message))


def response_of_message(message: log_v1.PullResponse) -> PullResponse:
    return complete(response_steps(message))


@st.composite
def ranges(draw: st.DrawFn) -> OriginRange:
    edges = sorted(draw(st.sets(NUMBERS, min_size=2, max_size=8)))
    low, following = edges[0], edges[-1]
    inner = edges[1:-1]
    gaps = tuple(zip(inner[::2], inner[1::2], strict=False))
    missing = gaps[:1] if draw(st.booleans()) else ()
    return OriginRange(low, following, draw(st.integers(0, 2**32 - 1)), gaps[len(missing) :], missing)


HELLOS = st.builds(Hello, st.text(max_size=9), st.text(max_size=9), DIRECTORIES, NUMBERS, st.integers(0, 9))
POSITIONS = st.builds(
    Positions,
    st.dictionaries(ORIGINS, ranges(), max_size=4),
    st.lists(ORIGINS, max_size=3).map(tuple),
    st.none() | ORIGINS,
)


@st.composite
def news(draw: st.DrawFn) -> HolderNews:
    nexts = draw(st.dictionaries(ORIGINS, NUMBERS, max_size=3))
    not_held = {
        origin: ((first, following),)
        for origin, following in nexts.items()
        if following and (first := draw(st.integers(0, following))) < following
    }
    return HolderNews(draw(DIRECTORIES), draw(NUMBERS), nexts, not_held)


NEWS = news()
KNOWN = st.lists(
    st.builds(KnownDirectory, DIRECTORIES, st.text(max_size=9), st.integers(0, 2**63 - 1), st.booleans()), max_size=3
).map(tuple)
OTHERS = st.lists(NEWS, max_size=3).map(tuple)
REQUESTS = st.builds(
    PullRequest,
    st.none() | HELLOS,
    st.none() | POSITIONS,
    OTHERS,
    st.lists(st.builds(Want, ORIGINS, NUMBERS), max_size=3).map(tuple),
    st.lists(ORIGINS, max_size=3).map(tuple),
    KNOWN,
    NUMBERS,
)
RESPONSES = st.builds(
    PullResponse,
    st.none() | HELLOS,
    st.none() | POSITIONS,
    OTHERS,
    st.just(b""),
    st.lists(
        st.builds(Ended, ORIGINS, NUMBERS, st.none() | st.integers(1, 2**64 - 1), st.sampled_from(EndReason)),
        max_size=3,
    ).map(tuple),
    KNOWN,
    st.none() | st.builds(ClockAnswer, NUMBERS, NUMBERS),
)


@given(REQUESTS)
def test_requests_survive_the_wire(request: PullRequest) -> None:
    encoded = bytes(request_to_message(request))
    assert request_of_message(CODEC.decode(encoded, log_v1.PullRequest)) == request


@given(RESPONSES)
def test_responses_survive_the_wire(response: PullResponse) -> None:
    encoded = encode_response(response)[PREFIX_BYTES:]
    assert response_of_message(CODEC.decode(encoded, log_v1.PullResponse)) == response


@given(st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=4).map(tuple))
def test_frames_survive_the_wire(frames: tuple[bytes, ...]) -> None:
    encoded = encode_frames(frames)[PREFIX_BYTES:]
    assert response_of_message(CODEC.decode(encoded, log_v1.PullResponse)) == PullResponse(frames=b"".join(frames))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_understood(data: bytes) -> None:
    def read(message_class: type[Message], convert: Callable[[Message], object]) -> None:
        try:
            convert(CODEC.decode(data, message_class))
        except (PeerLied, GRPCError):
            return

    read(log_v1.PullRequest, request_of_message)
    read(log_v1.PullResponse, response_of_message)


def _positions(low: int, next: int, gaps: Sequence[int] = ()) -> log_v1.PullRequest:  # noqa: A002 - the field's name
    held = log_v1.OriginRange(origin=bytes(16), low=low, next=next, gaps=list(gaps))
    return log_v1.PullRequest(positions=log_v1.Positions(ranges=[held]))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (log_v1.PullRequest(wants=[log_v1.Want(origin=b"short")]), "16 bytes"),
        (log_v1.PullRequest(hello=log_v1.Hello(directory_id=b"123")), "by 3 bytes"),
        (_positions(low=5, next=4), "5 to 4"),
        (_positions(low=0, next=9, gaps=[1]), "1 edges"),
        (_positions(low=0, next=9, gaps=[1, 20]), "1 to 20 is not held in 0 to 9"),
        (_positions(low=0, next=9, gaps=[4, 5, 4, 6]), "4 to 6 is not held in 0 to 9"),
        (
            log_v1.PullRequest(others=[log_v1.HolderNews(directory_id=bytes(8), origins=[bytes(16)])]),
            "1 origins of a node and 0 places",
        ),
        (
            log_v1.PullRequest(
                others=[log_v1.HolderNews(directory_id=bytes(8), not_held=[log_v1.RangesNotHeld(edges=[1, 2])])]
            ),
            "0 origins of a node and 0 places, and says of 1 what is not held",
        ),
        (log_v1.PullRequest(stops=[bytes(16)] * 1025), "1025 things of one kind in a message, more than 1024"),
        (log_v1.PullRequest(others=[log_v1.HolderNews()] * 257), "257 things of one kind in a message, more than 256"),
    ],
)
def test_what_no_correct_node_says_is_a_lie(message: log_v1.PullRequest, words: str) -> None:
    with pytest.raises(PeerLied, match=words):
        request_of_message(message)


def test_frames_are_told_apart_in_steps() -> None:
    """An answer of half a megabyte may have thousands, each of which takes a hundredth of a millisecond."""
    foreign = ForeignLog.make(1)
    frames = [foreign.write(batch_of(b"%d" % number)).encode() for number in range(1000)]
    steps = frames_steps(b"".join(frames))
    assert sum(1 for _ in steps) >= len(frames) // 64
    assert complete(frames_steps(b"".join(frames))) == frames
    with pytest.raises(FrameError, match="cut off"):
        complete(frames_steps(b"".join(frames)[:-1]))
