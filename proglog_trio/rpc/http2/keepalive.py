"""Noticing that a peer has gone: one that never greets, and one that falls silent and does not answer a PING.

TCP alone does not tell for minutes that the other machine is off, and never that the other process is stopped.

Where it is this process that was stopped, what the peer sent meanwhile waits to be read, and its silence says nothing:
a timer that comes late gives the loop a moment to read before anything is concluded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from attrs import define, frozen

from proglog_trio.durations import remaining

LATE_SECONDS = 0.5
"""A timer that is later than this was not looked at: this process was stopped, or its loop was held."""
READING_SECONDS = 0.5
"""How long what has arrived meanwhile is read before a late timer does what it is for."""


@frozen
class PeerPatience:
    """How long a peer is waited for, in seconds.

    Attributes:
        handshake: until its greeting is here.
        silence: until it is asked for a sign of life.
        answer: until that sign is here.
    """

    handshake: float
    silence: float
    answer: float


@define
class PeerWatch:
    """Watches over one peer, by one timer of the asyncio loop at a time.

    Attributes:
        loop: whose timers are used.
        patience: see PeerPatience.
        ask: asks the peer for a sign of life.
        give_up: is called once, with the reason, when it has gone.
    """

    loop: asyncio.AbstractEventLoop
    patience: PeerPatience
    ask: Callable[[], None]
    give_up: Callable[[str], None]
    # By the loop's clock; written for each piece of data, which is cheaper than arming a timer anew: the timer looks.
    _last_received: float = 0.0
    _greeted: bool = False
    # Once true, no timer is armed any more and give_up is not called.
    _stopped: bool = False
    # The one timer: for the greeting, then in turn for silence and for the answer to what was asked. None: stopped, or
    # not begun.
    _timer: asyncio.TimerHandle | None = None
    # When the peer was asked for a sign of life, and by when it must be here; None: it was not asked, or has answered.
    _asked: tuple[float, float] | None = None

    @property
    def has_greeted(self) -> bool:
        """Whether the peer's greeting is here."""
        return self._greeted

    @property
    def last_received(self) -> float:
        """When something last came from the peer, by the loop's clock."""
        return self._last_received

    def begin(self) -> None:
        """Begin to wait for the peer's greeting."""
        self._last_received = self.loop.time()
        self._after(self.patience.handshake, self._greeting_is_late)

    def received(self) -> None:
        """Count its silence from now: something came from the peer, which shows that it is alive."""
        self._last_received = self.loop.time()

    def greeted(self) -> None:
        """Watch for silence from now on: the peer has greeted."""
        if not self._greeted:
            self._greeted = True
            self._after(self.patience.silence, self._check_silence)

    def answered(self) -> None:
        """Watch for silence again: the peer has given the sign of life that it was asked for."""
        self._asked = None
        self._after(self.patience.silence, self._check_silence)

    def ask_now(self, seconds: float, because: str) -> None:
        """Ask the peer for a sign of life at once, since there is reason to think that it has gone.

        Nothing is asked of one that has not greeted, for which there is a deadline already.

        Args:
            seconds: it is given up when nothing at all has come from it by then. One that was asked before and has sent
                nothing since is not given more time than it had.
            because: the reason, in words, for give_up.
        """
        if self._stopped or not self._greeted:
            return
        if self._asked is not None:
            asked, due = self._asked
            if self._last_received <= asked and due <= self.loop.time() + seconds:
                return
        self._ask(seconds, f"{because}, and it did not answer a PING within {seconds:g} s")

    def stop(self) -> None:
        """Watch no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _after(self, seconds: float, then: Callable[[], None]) -> None:
        if self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._arm(seconds, then, may_be_late=True)

    def _arm(self, seconds: float, then: Callable[[], None], *, may_be_late: bool) -> None:
        due = self.loop.time() + seconds

        def run() -> None:
            if may_be_late and self.loop.time() > due + LATE_SECONDS:
                # Once: a loop that is late all the time must notice dead peers as well.
                self._arm(READING_SECONDS, then, may_be_late=False)
            else:
                self._run(then)

        self._timer = self.loop.call_later(seconds, run)

    def _run(self, then: Callable[[], None]) -> None:
        try:
            then()
        except Exception as error:
            # No timer runs now, so it would not be noticed any more when this peer has gone.
            self._give_up(f"watching over the peer failed: {type(error).__name__}")
            raise

    def _greeting_is_late(self) -> None:
        self._give_up(f"no HTTP/2 handshake within {self.patience.handshake:g} s")

    def _check_silence(self) -> None:
        patience = remaining(self._last_received + self.patience.silence, self.loop.time())
        if patience:
            self._after(patience, self._check_silence)
            return
        seconds = self.patience.answer
        self._ask(seconds, f"the peer did not answer a PING within {seconds:g} s")

    def _ask(self, seconds: float, reason: str) -> None:
        """Ask for a sign of life, and give the peer up for a reason if none comes within so many seconds."""
        asked = self.loop.time()
        self._asked = asked, asked + seconds
        self._after(seconds, lambda: self._check_answer(asked, reason))
        self.ask()

    def _check_answer(self, asked: float, reason: str) -> None:
        # Anything will do, not the answer to the PING alone: a peer that sends much may come to answer late.
        self._asked = None
        if self._last_received <= asked:
            self._give_up(reason)
        else:
            self._check_silence()

    def _give_up(self, reason: str) -> None:
        self.stop()
        self.give_up(reason)
