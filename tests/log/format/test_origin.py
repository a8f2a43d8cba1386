from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.log.format.origin import Origin


@given(st.binary(min_size=8, max_size=8), st.integers(0, 2**32 - 1), st.integers(0))
def test_parts(directory_id: bytes, epoch: int, seed: int) -> None:
    origin = Origin.make(directory_id, epoch, random.Random(seed))
    assert (origin.directory_id, origin.epoch) == (directory_id, epoch)
    assert Origin.parse(bytes(origin)) == origin
    assert str(origin) == bytes(origin).hex()
    assert Origin.make(directory_id, epoch, random.Random(seed + 1)) != origin


@given(st.binary(max_size=40).filter(lambda data: len(data) != 16))
def test_other_lengths_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=f"16 bytes, not {len(data)}"):
        Origin.parse(data)
