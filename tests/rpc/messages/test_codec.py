from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.messages import records as record_messages
from proglog_trio.rpc.messages.codec import MessageCodec

CODEC = MessageCodec(100)
REQUESTS = [
    log_v1.ConsumeBatchesRequest,
    log_v1.ConsumeRequest,
    log_v1.GetServersRequest,
    log_v1.ProduceBatchRequest,
    log_v1.ProduceRequest,
    record_messages.ProduceRequest,
]


@pytest.mark.parametrize("message_class", [log_v1.ConsumeResponse, record_messages.ConsumeResponse])
def test_there_and_back(message_class: Any) -> None:
    record_class = log_v1.Record if message_class is log_v1.ConsumeResponse else record_messages.Record
    message = message_class(record=record_class(value=b"v", key=b"k", headers={"h": b"1"}, timestamp=-7))
    assert CODEC.decode(CODEC.encode(message, message_class), message_class) == message


def test_another_type_is_not_written() -> None:
    with pytest.raises(TypeError, match="a message of type ConsumeRequest where ConsumeResponse is expected"):
        CODEC.encode(log_v1.ConsumeRequest(), log_v1.ConsumeResponse)


@pytest.mark.parametrize("message_class", REQUESTS)
@given(data=st.binary(max_size=100))
def test_any_bytes_are_a_message_or_have_a_status(message_class: Any, data: bytes) -> None:
    refused: GRPCError | None = None
    try:
        assert isinstance(CODEC.decode(data, message_class), message_class)
    except GRPCError as error:
        refused = error
    if refused is not None:
        assert refused.status is Status.INTERNAL
        assert str(refused.message).startswith(f"{len(data)} bytes are no {message_class.__name__}")


def test_too_long() -> None:
    with pytest.raises(GRPCError) as caught:
        CODEC.decode(b"\x08\x01" * 101, log_v1.ConsumeRequest)
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    assert caught.value.message == "a ConsumeRequest of 202 bytes has more than 100 beside long values"


def test_an_answers_frames_are_a_view_and_other_byte_strings_are_not() -> None:
    frames = bytes(1 << 20)
    answer = CODEC.decode(
        bytes(log_v1.ConsumeBatchesResponse(frames=frames, position=frames)), log_v1.ConsumeBatchesResponse
    )
    assert isinstance(answer.frames, memoryview)
    assert answer.frames == frames
    assert isinstance(answer.position, bytes)
    pulled = CODEC.decode(bytes(log_v1.PullResponse(frames=frames)), log_v1.PullResponse)
    assert isinstance(pulled.frames, bytes)
