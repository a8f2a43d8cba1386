import re
from typing import Any, cast

import pytest
from cyclopts import Parameter
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.node.option_types import between, parse_bytes, parse_seconds, parse_whole_seconds, within
from proglog_trio.units import GIBIBYTE, KIBIBYTE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("12", 12),
        ("12B", 12),
        ("2k", 2000),
        ("2KB", 2000),
        ("2KiB", 2048),
        ("1.5MiB", 1536 * KIBIBYTE),
        ("3 GiB", 3 * GIBIBYTE),
        ("1TB", 10**12),
    ],
)
def test_parse_bytes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "-1", "1.5", "MiB", "1 2", "1e3", "1XiB", "0.0001KiB", "0x10"])
def test_parse_bytes_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="bytes"):
        parse_bytes(text)


@given(st.integers(0, 2**63))
def test_parse_bytes_is_exact(number: int) -> None:
    assert parse_bytes(str(number)) == number
    assert parse_bytes(f"{number}KiB") == number * 1024


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("0.5s", 0.5), ("15m", 900), ("12h", 43200), ("7d", 604800), ("2 w", 1209600)]
)
def test_parse_seconds(text: str, value: float) -> None:
    assert parse_seconds(text) == value


@pytest.mark.parametrize("text", ["", "-1", "d", "1y", "1h30m", "inf", "nan"])
def test_parse_seconds_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="length of time"):
        parse_seconds(text)


def test_parse_whole_seconds() -> None:
    assert parse_whole_seconds("0") == 0
    assert parse_whole_seconds("1.5m") == 90
    for text in ("0.5", "1.01m", "-1", "soon"):
        with pytest.raises(ValueError, match=re.escape(text)):
            parse_whole_seconds(text)


@pytest.mark.parametrize(
    ("parameter", "value", "message"),
    [
        (between(1), 0, "Must be at least 1."),
        (between(1, 3), 4, "Must be at most 3."),
        (within(1, 3, " seconds"), 4, "Must be from 1 to 3 seconds."),
        (within(1, 3), 0, "Must be from 1 to 3."),
    ],
)
def test_bounds(parameter: Parameter, value: int, message: str) -> None:
    (check,) = cast("tuple[Any]", parameter.validator)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check(int, value)
    for allowed in (1, 3):
        check(int, allowed)
