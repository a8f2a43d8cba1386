"""A node's gossip keys: changed when members ask for it, one at a time, and written down before they count.

```
KeyManager
├── run      changes the keyring as key queries want, and has them answered
└── ask      asks all members, and collects what they answer
```
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog
import trio
from attrs import define, field

from proglog_trio.errors import ProglogError
from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership.core_access import CoreAccess
from proglog_trio.membership.keyring_file import KeyringFileError, save_keyring_file
from proglog_trio.membership.serf.keys import (
    KeyOperation,
    KeyQuestion,
    KeyRefused,
    changed,
    fits_into_response,
    refusal,
    request_payload,
    success,
)
from proglog_trio.membership.serf.member import MemberStatus
from proglog_trio.membership.serf.open_queries import Listener, TooManyQueries
from proglog_trio.membership.serf.querying import Question
from proglog_trio.membership.wire.errors import DecodingError
from proglog_trio.membership.wire.keyring import decode_key
from proglog_trio.membership.wire.serf import KeyResponse, decode_serf

MAX_WAITING = 32
"""Key queries that wait for one that is being done; further ones are refused."""

_logger = structlog.get_logger(__name__)


_FAILED = "it has failed, and cannot be asked: it comes back with the keys that it had"


class KeysNotAsked(ProglogError):
    """The members could not be asked; the message says why."""


@define
class KeyAnswers:
    """What the members said.

    Attributes:
        done: the names of those that did what was asked.
        problems: by name, why others did not.
        silent: the names of those that did not answer.
        holders: for a list, by key (base64): who has it.
        primary_of: for a list, by key (base64): whose primary it is.
    """

    done: list[str] = field(factory=list)
    problems: dict[str, str] = field(factory=dict)
    silent: list[str] = field(factory=list)
    holders: dict[str, list[str]] = field(factory=dict, repr=False)
    primary_of: dict[str, list[str]] = field(factory=dict, repr=False)

    def add(self, name: str, payload: bytes) -> None:
        """Add one member's answer."""
        try:
            response = decode_serf(payload)
        except DecodingError as error:
            self.problems[name] = f"its answer is malformed: {error}"
            return
        if not isinstance(response, KeyResponse):
            self.problems[name] = "its answer is no key response"
            return
        if not response.result:
            self.problems[name] = response.message or "it did not say why"
            return
        self.done.append(name)
        for key in response.keys:
            self.holders.setdefault(key, []).append(name)
        if response.primary_key:
            self.primary_of.setdefault(response.primary_key, []).append(name)


def open_key_questions() -> tuple[Callable[[KeyQuestion], None], trio.MemoryReceiveChannel[KeyQuestion]]:
    """Return what the core gives key queries to (it raises KeyRefused when too many wait), and where they come out."""
    send, receive = trio.open_memory_channel[KeyQuestion](MAX_WAITING)

    def ask(question: KeyQuestion) -> None:
        try:
            send.send_nowait(question)
        except trio.WouldBlock:
            raise KeyRefused("too many key queries at once") from None

    return ask, receive


@define(eq=False)
class KeyManager:
    """See the module.

    Attributes:
        gossip: uses the keyring.
        file: where it is written; None: nowhere, and changes are lost with the process.
        questions: the key queries that are to be done, one after the other.
        errors: where an operation that fails unexpectedly is counted.
    """

    gossip: CoreAccess
    file: Path | None
    questions: trio.MemoryReceiveChannel[KeyQuestion]
    errors: InternalErrors
    _ended: bool = False

    async def run(self) -> None:
        """Do what key queries ask for, until cancelled."""
        try:
            async for question in self.questions:
                answer = refusal("internal error")
                with self.errors.boundary(Where.GOSSIP_KEYS, operation=question.operation.value):
                    answer = await self._do(question)
                with self.errors.boundary(Where.GOSSIP_KEYS, operation=question.operation.value):
                    self._answer(question, answer)
        finally:
            self._ended = True

    def _answer(self, question: KeyQuestion, answer: bytes) -> None:
        querying = self.gossip.core.querying
        self.gossip.act(lambda: querying.answer_key_query(question.query, answer))

    async def _do(self, question: KeyQuestion) -> bytes:
        keyring = self.gossip.keyring
        operation, asked_by = question.operation, question.query.source_node
        if keyring is None:
            return refusal("this node has no keyring")
        try:
            fresh = changed(keyring, operation, question.key)
            if fresh is not keyring:
                if self.file is not None:
                    await trio.to_thread.run_sync(save_keyring_file, self.file, fresh)
                self.gossip.use_keyring(fresh)
                _logger.info("gossip keys changed", operation=operation.value, asked_by=asked_by, keys=len(fresh.keys))
        except (KeyRefused, KeyringFileError) as error:
            _logger.warning(
                "a key operation was not done", operation=operation.value, asked_by=asked_by, reason=str(error)
            )
            return refusal(str(error))
        return success(operation, fresh, fits_into_response(question.query, self.gossip.core.swim.name))

    async def ask(self, operation: KeyOperation, key: str = "") -> KeyAnswers:
        """Have all members do something with a key, this node among them; return what they answered.

        This lasts until all have answered, or for as long as gossip may need to reach all of them: some seconds. When
        this node stops meanwhile, those that have not answered by then are silent.

        Args:
            operation: what they are to do.
            key: in base64; nothing for LIST.

        Raises:
            ValueError: the key is none.
            KeysNotAsked: too many queries are open, or this node has stopped.
        """
        if self._ended:
            raise KeysNotAsked("this node does not gossip any more")
        payload = request_payload(operation, b"" if operation is KeyOperation.LIST else decode_key(key))
        answers = KeyAnswers()
        over = trio.Event()
        core = self.gossip.core
        asked: list[str] = []

        def ask() -> None:
            for member in core.snapshot():
                if member.status is MemberStatus.ALIVE:
                    asked.append(member.name)
                elif member.status is MemberStatus.FAILED:
                    # Not done, and it will be: it is a member still, and comes back with the keys that it has.
                    answers.problems[member.name] = _FAILED
            core.querying.ask(Question(name=operation.query_name, payload=payload), Listener(answers.add, over.set))

        try:
            self.gossip.act(ask)
        except TooManyQueries as error:
            raise KeysNotAsked(str(error)) from None
        await over.wait()
        for name in answers.done:
            answers.problems.pop(name, None)  # one that had failed and is back
        answered = {*answers.done, *answers.problems}
        answers.silent = sorted(set(asked) - answered)
        answers.done.sort()
        return answers
