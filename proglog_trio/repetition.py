"""What is logged of something that happens again and again: the first time, then once a period, and never too much."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from attrs import define, field

PERIOD_SECONDS = 3600.0
MAX_KINDS = 1024


@define
class _Kind:
    since: float
    repeated: int = 0


@define(eq=False)
class Repetitions:
    """Tells what is news and what is only a repetition.

    Attributes:
        period: of what goes on happening, one in so many seconds is news again.
        max_kinds: how many kinds are remembered; beyond that those that were news longest ago are forgotten.
    """

    clock: Callable[[], float] = time.monotonic
    period: float = PERIOD_SECONDS
    max_kinds: int = MAX_KINDS
    # In the order in which they were last news, so that the first is the one to forget.
    _kinds: dict[Hashable, _Kind] = field(factory=dict)

    def news(self, kind: Hashable) -> int | None:
        """Count that something of a kind has happened, and tell whether it is news.

        Returns:
            None: it is a repetition, and not to be told; else how many repetitions there were since it was last told.
        """
        now = self.clock()
        known = self._kinds.get(kind)
        if known is not None and now - known.since < self.period:
            known.repeated += 1
            return None
        self._kinds.pop(kind, None)
        while len(self._kinds) >= self.max_kinds:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = _Kind(now)
        return 0 if known is None else known.repeated

    def clear(self) -> None:
        """Forget all: whatever happens next is news."""
        self._kinds.clear()


@define(eq=False)
class Quota:
    """Lets so many through in each period, and then tells how many were not.

    Attributes:
        max_admitted: how many are let through in a period.
        period: its length in seconds.
        tell_excess: called with how many were not let through, when the next period begins.
    """

    max_admitted: int
    period: float
    tell_excess: Callable[[int], None]
    clock: Callable[[], float] = time.monotonic
    _began: float = float("-inf")
    # In the present period, let through or not.
    _asked: int = 0

    def admits(self) -> bool:
        """Count one more, and tell whether it is let through."""
        now = self.clock()
        if now - self._began >= self.period:
            if self._asked > self.max_admitted:
                self.tell_excess(self._asked - self.max_admitted)
            self._began, self._asked = now, 0
        self._asked += 1
        return self._asked <= self.max_admitted


@define(eq=False)
class BoundedNews:
    """News of which strangers decide how much there is: repetitions seldom, and no more than so many in a period.

    Attributes:
        max_admitted, period, tell_excess: see Quota.
    """

    max_admitted: int
    period: float
    tell_excess: Callable[[int], None]
    clock: Callable[[], float] = time.monotonic
    _repetitions: Repetitions = field(init=False)
    _quota: Quota = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._repetitions = Repetitions(self.clock)
        self._quota = Quota(self.max_admitted, self.period, self.tell_excess, self.clock)

    def news(self, kind: Hashable) -> int | None:
        """Count that something of a kind has happened; as Repetitions.news, and None for one too many as well."""
        repeated = self._repetitions.news(kind)
        return repeated if repeated is not None and self._quota.admits() else None

    def clear(self) -> None:
        """Forget all: whatever happens next is news."""
        self._repetitions.clear()
