"""What is to be concluded from what members said: who was taken for dead, and what reached whom."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from attrs import frozen

from tests.observed.member import Kind
from tests.observed.notes import Notes

LATE_SECONDS = 2.0
"""Gossip is over long before: what comes later has come by a state exchange."""


@frozen
class FalseFailure:
    """A member that lived was shown as failed by another.

    Attributes:
        observer, subject: their names.
        seconds: for how long; infinite if to the end.
        declared_by: who declared it dead, by its own finding, last before; empty if nobody is known to have.
    """

    observer: str
    subject: str
    seconds: float
    declared_by: str


def false_failures(notes: Notes) -> list[FalseFailure]:
    """Return each time that somebody showed a member as failed; all members live."""
    shown: dict[tuple[str, str], tuple[float, str]] = {}
    declared: dict[str, str] = {}
    found = []
    for happening in notes.all:
        pair = happening.observer, happening.subject
        match happening.kind:
            case Kind.DECLARES_DEAD:
                declared[happening.subject] = happening.observer
            case Kind.FAILED:
                shown.setdefault(pair, (happening.at, declared.get(happening.subject, "")))
            case Kind.JOIN if pair in shown:
                began, by = shown.pop(pair)
                found.append(FalseFailure(*pair, happening.at - began, by))
                if not any(subject == happening.subject for _, subject in shown):
                    declared.pop(happening.subject, None)
    found += [FalseFailure(*pair, math.inf, by) for pair, (_, by) in shown.items()]
    return found


@frozen
class Reach:
    """Whom an event reached.

    Attributes:
        seconds: until the last that it reached had it.
        late: those that had it after more than LATE_SECONDS.
        missing: those that it did not reach.
        repeated: those that said it more than once.
    """

    seconds: float
    late: frozenset[str]
    missing: frozenset[str]
    repeated: frozenset[str]


def reach(notes: Notes, event: str, sent_at: float, names: Iterable[str]) -> Reach:
    """Return whom an event reached."""
    said = notes.of(Kind.EVENT, event)
    observers = [happening.observer for happening in said]
    return Reach(
        max((happening.at for happening in said), default=sent_at) - sent_at,
        frozenset(happening.observer for happening in said if happening.at - sent_at > LATE_SECONDS),
        frozenset(names) - set(observers),
        frozenset(observer for observer in observers if observers.count(observer) > 1),
    )


def in_words(values: Sequence[float], digits: int = 2) -> str:
    """Return the median, the 95th percentile and the highest of some values."""
    if not values:
        return "none"
    ordered = sorted(values)
    high = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return f"median {statistics.median(ordered):.{digits}f}, 95 % {high:.{digits}f}, highest {ordered[-1]:.{digits}f}"
