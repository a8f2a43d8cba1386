"""Durations, and that there is one place where the rest of a wait is computed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proglog_trio
from proglog_trio.durations import remaining

SOURCE = Path(proglog_trio.__file__).parent
WAITS = frozenset(
    {
        *("sleep", "fail_after", "move_on_after", "call_later", "timeout", "wait_for", "after", "Timeout"),
        *("PingByStream", "sleep_for", "settimeout", "join", "wait", "acquire", "select"),
    }
)
"""Functions and effects that take a duration, and refuse or misunderstand a negative one."""
READINGS = frozenset({"now", "current_time", "time", "monotonic", "perf_counter", "clock", "_clock", "wall_clock"})
CLOCKWORK = frozenset({"durations.py", "lived_time.py"})
"""Modules whose subject is readings."""
FLOORS = frozenset({"remaining", "max"})


@given(st.floats(-1e12, 1e12), st.floats(-1e12, 1e12))
def test_no_rest_is_negative(deadline: float, now: float) -> None:
    assert remaining(deadline, now) == (deadline - now if deadline > now else 0.0)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _unfloored(node: ast.AST) -> Iterator[ast.BinOp]:
    """Yield the differences in an expression that no floor is around."""
    if isinstance(node, ast.Call) and _name(node) in FLOORS:
        return
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _unfloored(child)


def negative_waits(source: str) -> list[int]:
    """Return the lines on which a wait may be negative.

    Either a difference is handed to what waits, or the present is taken from a time to have the rest (`deadline - now`)
    outside the one function that does so.
    """
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            given = [*node.args, *(keyword.value for keyword in node.keywords)] if _name(node) in WAITS else []
            given += [keyword.value for keyword in node.keywords if keyword.arg in ("timeout", "seconds", "delay")]
            lines.update(found.lineno for each in given for found in _unfloored(each))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and _name(node.right) in READINGS:
            lines.add(node.lineno)
    return sorted(lines)


@pytest.mark.parametrize(
    ("source", "is_negative"),
    [
        ("trio.sleep(deadline - now)", True),
        ("with trio.fail_after(2 * (a - b)): pass", True),
        ("f(timeout=end - start)", True),
        ("rest = self.deadline - self.timers.now", True),
        ("rest = deadline - loop.time()", True),
        ("rest = max(deadline - clock(), 0.0)", True),  # there is a name for it
        ("trio.sleep(remaining(deadline, now))", False),
        ("trio.sleep(max(end - start, 0.0))", False),
        ("if now - since > limit: pass", False),
        ("loop.call_later(seconds, then, count - 1 if False else 0)", True),
        ("call_at(count - 1)", False),
    ],
)
def test_what_counts_as_a_negative_wait(source: str, is_negative: bool) -> None:
    assert bool(negative_waits(source)) == is_negative


def test_no_wait_is_the_difference_of_two_readings() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        if "_proto" not in path.parts and path.name not in CLOCKWORK
        for line in negative_waits(path.read_text("utf-8"))
    ]
    assert not found, "a wait that may be negative: use proglog_trio.durations.remaining"
