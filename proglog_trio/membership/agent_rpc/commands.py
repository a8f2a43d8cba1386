"""What clients ask is done here, with the membership; what cannot be done is said in the words of agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import msgpack
import trio
from attrs import AttrsInstance, define, field

from proglog_trio.address import Address
from proglog_trio.membership.agent_rpc.member_records import FilterRefused, MemberFilter, member_record
from proglog_trio.membership.agent_rpc.messages import (
    ChangeKey,
    ChangeTags,
    CoordinateReport,
    FireEvent,
    ForceLeave,
    GetCoordinate,
    Joined,
    JoinMembers,
    KeyReport,
    MembersFiltered,
    encoded,
)
from proglog_trio.membership.agent_rpc.request_decoder import Request
from proglog_trio.membership.key_manager import KeyAnswers, KeysNotAsked
from proglog_trio.membership.membership import JoinFailed, Membership, NotAMember
from proglog_trio.membership.self_description.tags_file import TagsFileError
from proglog_trio.membership.serf.keys import KeyOperation
from proglog_trio.membership.serf.limits import MessageTooLarge
from proglog_trio.membership.turns import Turns
from proglog_trio.steps import Turn

MAX_ADDRESSES = 100
"""That one request joins through."""
_KEY_OPERATIONS = {operation.value: operation for operation in KeyOperation}
_MEMBERS = encoded({"Members": None})[:-1]
"""What stands before the list of members."""


class CommandFailed(Exception):
    """A command that could not be done; the message is the client's to see.

    Attributes:
        body: what follows the header all the same: clients of commands that have an answer read one, also behind an
            error.
    """

    def __init__(self, message: str, body: AttrsInstance | bytes | None = None) -> None:
        super().__init__(message)
        self.body = body


@define(eq=False)
class Commands:
    """Does commands, for any client.

    Attributes:
        membership: of this node.
        event_handlers: what is run for events, for `serf info`: scripts by the filter of their events.
    """

    membership: Membership
    event_handlers: Mapping[str, str] = field(factory=dict)
    _by_name: Mapping[str, Callable[[Any], Awaitable[AttrsInstance | bytes | None]]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._by_name = {
            "event": self._event,
            "force-leave": self._force_leave,
            "join": self._join,
            "members": self._members,
            "members-filtered": self._members,
            "tags": self._tags,
            "leave": self._leave,
            **{name: partial(self._keys, operation) for name, operation in _KEY_OPERATIONS.items()},
            "stats": self._stats,
            "get-coordinate": self._coordinate,
        }

    async def perform(self, request: Request) -> AttrsInstance | bytes | None:
        """Do a command; return the body of the answer, or None if it has none. Raises CommandFailed."""
        return await self._by_name[request.command](request.body)

    # -- the cluster ---------------------------------------------------------------------------------------------------

    async def _event(self, body: FireEvent) -> None:
        try:
            self.membership.send_event(body.name, body.payload, coalesce=body.coalesce)
        except (MessageTooLarge, NotAMember) as error:
            raise CommandFailed(str(error)) from None

    async def _force_leave(self, body: ForceLeave) -> None:
        # Agents say nothing of a name that nobody has.
        self.membership.force_leave(body.node, prune=body.prune)

    async def _join(self, body: JoinMembers) -> Joined:
        if not body.existing:
            return Joined()
        if len(body.existing) > MAX_ADDRESSES:
            raise CommandFailed(f"{len(body.existing)} addresses are more than {MAX_ADDRESSES}", Joined())
        port = self.membership.address.port
        try:
            addresses = [Address.parse(text, default_port=port) for text in body.existing]
            return Joined(await self.membership.join(addresses, ignore_events=not body.replay))
        except (ValueError, JoinFailed) as error:
            raise CommandFailed(str(error), Joined()) from None

    async def _leave(self, _body: None) -> None:
        try:
            await self.membership.leave()
        except NotAMember as error:
            raise CommandFailed(str(error)) from None

    async def _tags(self, body: ChangeTags) -> None:
        try:
            await self.membership.change_tags(set=body.tags, delete=body.delete_tags)
        except (ValueError, TagsFileError, NotAMember) as error:
            raise CommandFailed(str(error)) from None

    # -- what is known -------------------------------------------------------------------------------------------------

    async def _members(self, body: MembersFiltered | None) -> bytes:
        """Return the members, in an order of names; there may be many, so others have turns in between."""
        try:
            wanted = None if body is None else await Turns().run(MemberFilter.of(body))
        except FilterRefused as error:
            raise CommandFailed(str(error), NO_MEMBERS) from None
        turn = Turn()
        turn.begin()
        records: list[bytes] = []
        for name in self.membership.names():
            if turn.is_over:
                await trio.lowlevel.checkpoint()
                turn.begin()
            known = self.membership.gossip.core.members.by_name.get(name)
            if known is None:
                continue  # forgotten since the names were read
            if wanted is None or wanted.passes(known.name, known.status.value, known.tags):
                records.append(encoded(member_record(known.snapshot(), known)))
        return _member_list(records)

    async def _stats(self, _body: None) -> bytes:
        stats = self.membership.stats()
        runtime = stats["runtime"]
        # What is Go's stands for what is nearest to it.
        others = {"runtime": {**runtime, "goroutines": runtime["tasks"], "max_procs": 1}}
        sections = {**stats, **others, "event_handlers": self.event_handlers}
        as_text = {name: {key: str(value) for key, value in each.items()} for name, each in sections.items()}
        return encoded(as_text)

    async def _coordinate(self, body: GetCoordinate) -> CoordinateReport:
        coordinate = self.membership.coordinate(body.node)
        return CoordinateReport() if coordinate is None else CoordinateReport(coordinate, ok=True)

    # -- keys ----------------------------------------------------------------------------------------------------------

    async def _keys(self, operation: KeyOperation, body: ChangeKey | None) -> KeyReport:
        keys = self.membership.keys
        if keys is None:
            raise CommandFailed("this node has no keyring: its gossip is not encrypted", KeyReport())
        try:
            answers = await keys.ask(operation, "" if body is None else body.key)
        except (ValueError, KeysNotAsked) as error:
            raise CommandFailed(str(error), KeyReport()) from None
        report = _key_report(answers)
        if report.num_err:
            raise CommandFailed(f"{report.num_err}/{report.num_nodes} nodes reported failure", report)
        if report.num_resp != report.num_nodes:
            raise CommandFailed(f"{report.num_resp}/{report.num_nodes} nodes reported success", report)
        return report


NO_MEMBERS = encoded({"Members": None})[:-1] + b"\x90"


def _member_list(records: list[bytes]) -> bytes:
    return b"".join((_MEMBERS, msgpack.Packer().pack_array_header(len(records)), *records))


def _key_report(answers: KeyAnswers) -> KeyReport:
    return KeyReport(
        messages=answers.problems,
        keys={key: len(names) for key, names in answers.holders.items()},
        primary_keys={key: len(names) for key, names in answers.primary_of.items()},
        num_nodes=len(answers.done) + len(answers.problems) + len(answers.silent),
        num_err=len(answers.problems),
        num_resp=len(answers.done) + len(answers.problems),
    )
