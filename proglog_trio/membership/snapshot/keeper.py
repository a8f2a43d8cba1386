"""The memory of one member: what it gives back at a start, and the task that writes down what changes.

Members that come and go are written at once, the clocks at the latest half a second after they moved, and what was
written is synced as often. A file that cannot be written is a warning and a number, and is tried again.
"""

from __future__ import annotations

import errno

import structlog
import trio
from attrs import define, field

from proglog_trio.internal_errors import Where
from proglog_trio.membership.core_access import CoreAccess
from proglog_trio.membership.lives import DIRECTORY_TAG
from proglog_trio.membership.serf.member import KnownMember, MemberStatus
from proglog_trio.membership.serf.members import MAX_GONE
from proglog_trio.membership.snapshot.changes import Changes
from proglog_trio.membership.snapshot.file import MAX_FILE_BYTES, SnapshotFile
from proglog_trio.membership.snapshot.journal import Facts, Journal
from proglog_trio.membership.snapshot.lines import Header, RememberedMember
from proglog_trio.membership.snapshot.memory import Memory, NotOurs, read_steps
from proglog_trio.membership.swim.node import Endpoint
from proglog_trio.membership.wire.tags import tags_of
from proglog_trio.repetition import Repetitions

CLOCKS_SECONDS = 0.5
"""How often the clocks are looked at, and what was written is synced, as Serf does."""
PAUSE_SECONDS = 0.02
"""Between two writes."""
RETRY_SECONDS = 30.0
"""After a write that failed."""
CLOSING_SECONDS = 5.0
"""For what is left to write when the node stops."""
RESTORED_AT_ONCE = 64
READ_ATTEMPTS = 5
READ_AGAIN_SECONDS = 1.0
"""For a file that cannot be read for want of what the machine may have a moment later."""
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)

_logger = structlog.get_logger(__name__)


@define
class SnapshotCounters:
    """What became of the snapshot.

    Attributes:
        bytes_written: in all.
        rewrites: how often all was written anew.
        failures: reads and writes that failed; what could not be written is written later.
        lines_damaged: lines that said nothing when the file was read.
        put_aside: files that were not this member's, or could not be read.
    """

    bytes_written: int = 0
    rewrites: int = 0
    failures: int = 0
    lines_damaged: int = 0
    put_aside: int = 0


@define(eq=False)
class Keeper:
    """Keeps the memory of a member in a file; see SnapshotFile for where.

    Attributes:
        gossip: has the core whose memory it is.
        file: None: nothing is kept.
        changes: what the core says has happened.
        rejoins: what is known is kept over a leave too.
        counters: see SnapshotCounters.
        members_before: those of before this start, the most promising first, by where they were; to be joined through.
    """

    gossip: CoreAccess
    file: SnapshotFile | None
    changes: Changes
    rejoins: bool
    counters: SnapshotCounters = field(factory=SnapshotCounters)
    members_before: dict[Endpoint, str] = field(factory=dict)
    # None until the file was read: what happens until then is known to the core, and written anew with the rest.
    _journal: Journal | None = None
    _told: Repetitions = field(factory=lambda: Repetitions(trio.current_time))
    # On Trio's clock: when the last sync was, and before when nothing is tried again.
    _synced: float = 0.0
    _retry_at: float = 0.0
    _is_dirty: bool = False

    # -- a start -------------------------------------------------------------------------------------------------------

    async def recall(self) -> None:
        """Give the core back what is remembered, before it starts."""
        if self.file is not None:
            with self.gossip.errors.boundary(Where.MEMBERSHIP_SNAPSHOT):
                await self._recall(self.file)

    async def _recall(self, file: SnapshotFile) -> None:
        header = self._header()
        memory = await self._read(file, header)
        if memory.has_left and not self.rejoins:
            memory = Memory()
        core = self.gossip.core
        now = core.swim.now
        facts = Facts(
            core.swim.name,
            core.members.by_name,
            core.clock,
            core.events.clock,
            core.query_clock,
            lambda: core.swim.now,
            now,
            memory.lived,
        )
        await self._restore(memory, facts)
        self._journal = Journal(header, facts, self.changes, self.rejoins)

    def _header(self) -> Header:
        core = self.gossip.core
        tags = tags_of(core.swim.rules.me.meta)
        return Header(tags.get(DIRECTORY_TAG) or core.swim.name, None if core.cluster is None else core.cluster.value)

    async def _read(self, file: SnapshotFile, header: Header) -> Memory:
        try:
            data = await self._bytes_of(file)
            memory = await self.gossip.codec.turns.run(read_steps(data, header))
        except OSError as error:
            self.counters.failures += 1
            await self._put_aside(file, f"it cannot be read: {_why(error)}")
            return Memory()
        except NotOurs as error:
            await self._put_aside(file, str(error))
            return Memory()
        self.counters.lines_damaged += memory.damaged
        if memory.damaged or memory.left_out or len(data) >= MAX_FILE_BYTES:
            _logger.warning(
                "some of the members of before are not known any more",
                file=str(file.path),
                lines=memory.lines,
                damaged=memory.damaged,
                left_out=memory.left_out,
            )
        return memory

    async def _bytes_of(self, file: SnapshotFile) -> bytes:
        for _ in range(READ_ATTEMPTS - 1):
            try:
                return await trio.to_thread.run_sync(file.read)
            except OSError as error:
                if error.errno not in _PASSING:
                    raise
                self.counters.failures += 1
                _logger.warning(
                    "the members of before cannot be read yet; it is tried again",
                    file=str(file.path),
                    reason=_why(error),
                )
            await trio.sleep(READ_AGAIN_SECONDS)
        return await trio.to_thread.run_sync(file.read)

    async def _put_aside(self, file: SnapshotFile, reason: str) -> None:
        self.counters.put_aside += 1
        try:
            aside = await trio.to_thread.run_sync(file.put_aside)
        except OSError as error:
            self.counters.failures += 1
            _logger.warning(
                "the members of before are not known, and are not written down",
                file=str(file.path),
                reason=reason,
                not_put_aside=_why(error),
            )
        else:
            _logger.warning(
                "the members of before are not known: their file was put aside",
                file=str(file.path),
                reason=reason,
                aside=str(aside),
            )

    async def _restore(self, memory: Memory, facts: Facts) -> None:
        core, boundary = self.gossip.core, self.gossip.errors.boundary(Where.MEMBERSHIP_SNAPSHOT)
        clocks = memory.clocks
        core.restore_clocks(member=clocks.member, event=clocks.event, query=clocks.query)
        members = memory.most_promising_first(core.swim.rules.rng.random())
        # Those who went first, first: in that order they are forgotten.
        kept = sorted(members[:MAX_GONE], key=lambda member: (member.status is MemberStatus.ALIVE, member.gone_at))
        for number, member in enumerate(kept, 1):
            if member.name != core.swim.name:
                with boundary:
                    core.members.restore(_known(member, facts))
                    core.clock.witness(member.status_time)
            if number % RESTORED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        for number, member in enumerate(members, 1):
            endpoint = member.endpoint
            if member.name != core.swim.name and endpoint != self.gossip.endpoint:
                self.members_before.setdefault(endpoint, member.name)
            if number % RESTORED_AT_ONCE == 0:
                await trio.lowlevel.checkpoint()
        if self.members_before:
            _logger.info("members of before are known", members=len(self.members_before))

    # -- what happens --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write down what changes, until cancelled; what is left then is written before this returns."""
        if self.file is None or self._journal is None:
            return
        turns = self.gossip.errors.turns(Where.MEMBERSHIP_SNAPSHOT)
        try:
            while True:
                async with turns:
                    if await self._write(self.file, self._journal):
                        # However fast things happen, others want the disk and the processor too.
                        await trio.sleep(PAUSE_SECONDS)
                    with trio.move_on_after(CLOCKS_SECONDS):
                        await self.changes.news.wait()
                    self.changes.news.clear()
        finally:
            with trio.move_on_after(CLOSING_SECONDS, shield=True):
                with self.gossip.errors.boundary(Where.MEMBERSHIP_SNAPSHOT):
                    self._retry_at = 0.0
                    await self._write(self.file, self._journal, is_last=True)
                with self.gossip.errors.boundary(Where.MEMBERSHIP_SNAPSHOT):
                    await trio.to_thread.run_sync(self.file.close)

    async def _write(self, file: SnapshotFile, journal: Journal, *, is_last: bool = False) -> bool:
        """Write what there is to write, and tell whether there was anything; what fails is written anew later."""
        if trio.current_time() < self._retry_at:
            return False
        before = self.counters.bytes_written
        try:
            if journal.is_rewrite_due:
                everything = await self.gossip.codec.turns.run(journal.rewrite_steps())
                await trio.to_thread.run_sync(file.replace, everything)
                self.counters.rewrites += 1
                self.counters.bytes_written += len(everything)
                self._is_dirty = False
            data = await self.gossip.codec.turns.run(journal.append_steps())
            if data:
                self._is_dirty = True
                await trio.to_thread.run_sync(file.append, data)
                self.counters.bytes_written += len(data)
            now = trio.current_time()
            if self._is_dirty and (is_last or now - self._synced >= CLOCKS_SECONDS):
                self._synced = now
                await trio.to_thread.run_sync(file.sync)
                self._is_dirty = False
        except OSError as error:
            self.counters.failures += 1
            self._retry_at = trio.current_time() + RETRY_SECONDS
            journal.failed()
            if self._told.news(error.errno) is not None:
                _logger.warning(
                    "which members there are cannot be written down; it is tried again",
                    file=str(file.path),
                    reason=_why(error),
                )
        except BaseException:
            # It is not known how much of it was written.
            journal.failed()
            raise
        return self.counters.bytes_written > before


def _known(member: RememberedMember, facts: Facts) -> KnownMember:
    """Return a member of before, as this node knows it now: it has not been seen since, so it is not there."""
    is_gone = member.status in (MemberStatus.FAILED, MemberStatus.LEFT)
    return KnownMember(
        member.name,
        member.endpoint,
        member.tags,
        member.status if is_gone else MemberStatus.FAILED,
        member.version,
        status_time=member.status_time,
        gone_since=facts.time_of(member.gone_at) if is_gone else facts.begun,
        has_answered=member.has_answered,
        told_address=member.address,
    )


def _why(error: OSError) -> str:
    return error.strerror or str(error)
