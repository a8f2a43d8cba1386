from __future__ import annotations

import h2.config
import h2.connection
import pytest
from hyperframe.frame import DataFrame, Frame, PingFrame


def test_the_body_is_left_out() -> None:
    frame = DataFrame(7, data=b"secret" * 10_000)
    assert repr(frame) == "<DataFrame stream_id=7>"


def test_h2_still_formats_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, h2 has stopped formatting frames nobody looks at: frame_repr.py can go."""
    formatted = []

    def counting(frame: Frame) -> str:
        formatted.append(type(frame))
        return ""

    monkeypatch.setattr(Frame, "__repr__", counting)
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.ping(b"12345678")
    server.receive_data(client.data_to_send())
    assert PingFrame in formatted
