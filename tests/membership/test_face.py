"""proglog_trio.membership as other programs see it."""

from __future__ import annotations

import pytest

from proglog_trio import membership


def test_every_public_name_is_there() -> None:
    for name in membership.__all__:
        assert getattr(membership, name) is not None
    assert set(membership.__all__) <= set(dir(membership))


def test_no_other_name_is() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = membership.Nothing  # type: ignore[attr-defined]
