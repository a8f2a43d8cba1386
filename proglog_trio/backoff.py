"""Waiting longer and longer between attempts, each time by a random part less.

Without the random part all clients of a node that restarts would come back in the same instant, again and again (see
"Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import random

from attrs import define, frozen


@frozen
class BackoffConfig:
    """How long to wait between attempts, in seconds.

    Attributes:
        first: the longest first wait.
        longest: the longest wait at all.
        factor: by how much each wait may be longer than the one before.
    """

    first: float = 0.05
    longest: float = 2.0
    factor: float = 2.0

    def __attrs_post_init__(self) -> None:
        if not 0 < self.first <= self.longest or self.factor < 1:
            raise ValueError(
                f"a backoff needs 0 < first <= longest and a factor of at least 1, not {self.first}, {self.longest}, "
                f"{self.factor}"
            )


@define
class Backoff:
    """The waits of one client. No clock of its own.

    Attributes:
        attempts: how many waits were given out since the last success.
    """

    config: BackoffConfig
    rng: random.Random
    attempts: int = 0
    _ceiling: float | None = None

    def next_delay(self) -> float:
        """Return how many seconds to wait now: between half of the present ceiling and all of it."""
        ceiling = self.config.first if self._ceiling is None else self._ceiling
        self._ceiling = min(ceiling * self.config.factor, self.config.longest)
        self.attempts += 1
        return ceiling * self.rng.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """Begin anew with the shortest wait."""
        self.attempts = 0
        self._ceiling = None
