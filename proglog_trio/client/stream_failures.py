"""What a consumer makes of streams that end without anything new: when it goes on trying, and when that is an error.

No I/O and no clock.
"""

from __future__ import annotations

from collections.abc import Collection

from proglog_trio.client.config import ConsumerConfig
from proglog_trio.client.errors import (
    ClientError,
    ConsumerError,
    NodeUnreachable,
    RecordsLost,
    StartOutOfRange,
    consuming_next,
)
from proglog_trio.rpc.calls.sessions import StreamBroken
from proglog_trio.rpc.calls.status_code import StatusCode

_ERROR_OF_STATUS: dict[StatusCode, type[ConsumerError]] = {
    StatusCode.OUT_OF_RANGE: StartOutOfRange,
    StatusCode.DATA_LOSS: RecordsLost,
}
_ELSEWHERE = frozenset({StatusCode.OUT_OF_RANGE, StatusCode.DATA_LOSS, StatusCode.RESOURCE_EXHAUSTED})
"""What one node answers and another may not: it lacks the records, or has too many consumers."""


class EndedShort(StreamBroken):
    """A node gave all that it has, which is less than another had when the consumer opened."""


class StreamFailures:
    """The streams of one consumer that failed since one last gave something new.

    Attributes:
        lacking: the nodes that do not have the next records, with what they said.
        waits_for: which records no node had when all were asked last, in words, while they are waited for.
    """

    def __init__(self, config: ConsumerConfig) -> None:
        self.lacking: dict[str, StreamBroken] = {}
        self.waits_for: str | None = None
        self._config = config
        # Since when streams have broken without any answer; None if the last one gave one.
        self._failing_since: float | None = None
        # Since when streams have ended short without anything new; None if none has since.
        self._short_since: float | None = None

    def answered(self) -> None:
        """Begin to count the time without a connection anew: a node answered, with anything or nothing."""
        self._failing_since = None

    def brought_news(self) -> None:
        """Forget what nodes lack: a record came that had not been received before, and another is next."""
        self._short_since = None
        self.lacking.clear()
        self.waits_for = None

    def lost(self, node: str, failure: StreamBroken, now: float, known: Collection[str]) -> ClientError | None:
        """Count a stream that broke; return the error of the consumer when no other is to be tried.

        Args:
            node: which it was from.
            failure: why.
            now: in seconds.
            known: the nodes that may be tried.
        """
        status = failure.refusal
        if status is not None:
            if status not in _ELSEWHERE:
                return ConsumerError(f"{failure}{consuming_next(status)}", status)
            self.lacking[node] = failure
            if all(each in self.lacking for each in known):
                return None if self._waits(failure) else self._lack(failure, status)
        seconds = self._config.reconnect_timeout
        if isinstance(failure, EndedShort):
            if self._short_since is None:
                self._short_since = now
            over = now - self._short_since >= seconds
            return NodeUnreachable(f"nothing new for {seconds:g} s: {failure}", "reconnect_timeout") if over else None
        if self._failing_since is None:
            self._failing_since = now
        if now - self._failing_since < seconds:
            return None
        # The nodes that answered lack the records; the others have not answered for all that time.
        error: ClientError | None = None
        for lack in self.lacking.values():
            if lack.status is not None:
                if self._waits(lack):
                    return None
                error = self._lack(lack, lack.status)
        return error or NodeUnreachable(f"no answer for {seconds:g} s: {failure}", "reconnect_timeout")

    def _waits(self, failure: StreamBroken) -> bool:
        """Have all nodes asked again if one says that what it lacks is missing at present, or damaged; return whether.

        What is a gap, or retired everywhere, never turns up.
        """
        may_turn_up = any(lack.status is StatusCode.DATA_LOSS for lack in self.lacking.values())
        if self._config.on_missing != "wait" or not may_turn_up:
            return False
        self.waits_for = self._lacking_words(failure)
        self.lacking.clear()
        self._failing_since = None
        return True

    def _lacking_words(self, failure: StreamBroken) -> str:
        if len(self.lacking) > 1:
            return "; ".join(f"{node}: {lack}" for node, lack in self.lacking.items())
        return str(failure)

    def _lack(self, failure: StreamBroken, status: StatusCode) -> ConsumerError:
        message = self._lacking_words(failure)
        return _ERROR_OF_STATUS.get(status, ConsumerError)(f"{message}{consuming_next(status)}", status)
