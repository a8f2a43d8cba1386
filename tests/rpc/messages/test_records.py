from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from proglog_trio._proto.log import v1 as log_v1
from proglog_trio.rpc.messages import records as record_messages
from proglog_trio.rpc.messages.descriptors import descriptor_pool


def test_they_are_the_messages_of_the_generated_classes() -> None:
    record: dict[str, Any] = {
        "value": b"v",
        "offset": 3,
        "key": b"k",
        "headers": {"h": b"1"},
        "timestamp": -7,
        "log_time": 1 << 60,
    }
    ours = record_messages.ConsumeResponse(record=record_messages.Record(**record)).SerializeToString()
    assert log_v1.ConsumeResponse.parse(ours) == log_v1.ConsumeResponse(record=log_v1.Record(**record))


@pytest.mark.parametrize("name", ["Record", "ConsumeResponse", "ProduceRequest", "ProduceResponse"])
def test_they_have_the_fields_of_the_generated_classes(name: str) -> None:
    generated = {field.name for field in dataclasses.fields(getattr(log_v1, name))}
    assert {field.name for field in getattr(record_messages, name).DESCRIPTOR.fields} == generated


def test_every_message_of_a_method_is_generated() -> None:
    for service in ("log.v1.Log", "log.v1.Cluster"):
        for method in descriptor_pool().FindServiceByName(service).methods:
            for descriptor in (method.input_type, method.output_type):
                assert hasattr(log_v1, descriptor.name)
