"""Handing lines to a producer as records."""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import trio
from attrs import frozen

from proglog_trio.cli.formats.given_fields import Given, record_bytes
from proglog_trio.cli.formats.record_forms import RecordForm, is_value_alone
from proglog_trio.cli.records.lines import Line
from proglog_trio.cli.records.settler import Sent, Settler
from proglog_trio.client import BatchDelivery, DeliveryTimeout, Producer, Record

# what packing adds to a line at most: the array of records, the record's own, the lengths of value and key
_PACKING_BYTES = 64


@frozen(kw_only=True)
class Feeder:
    """Makes records of lines and hands them in.

    While no node can be reached nothing more is handed in than what waits for one already. What the producer gives up
    then is handed in again, in its order, as long as it is certain that no node has stored it: so a cluster may be down
    for longer than a producer may try.

    Attributes:
        producer: takes the records.
        settler: counts them.
        sending: where what was handed in goes to be waited for.
        form: how a line is read.
        given: what a record has that has none of its own.
        patience: for how many seconds what certainly is not stored is handed in again; 0: not at all.
    """

    producer: Producer
    settler: Settler
    sending: trio.MemorySendChannel[Sent]
    form: RecordForm
    given: Given
    patience: float = 0.0

    @property
    def longest_record(self) -> int:
        """How many bytes the fields of a record can have."""
        return self.producer.config.max_batch_bytes - _PACKING_BYTES

    @property
    def longest_line(self) -> int:
        """How many bytes a line can have that stands for such a record."""
        return self.form.longest(self.longest_record)

    async def feed(self, lines: list[Line]) -> int:
        """Hand in lines, and return how many records they were; what is none is named and left out."""
        send, count = self._sending(lines)
        if not count:
            return 0
        if self.patience and self.producer.obstacle is not None:
            delivery = await self._wait_with(send, count)
        else:
            delivery = await send()
            self.settler.tally.sent += delivery.count
        if delivery.count:
            await self.sending.send(Sent(range(lines[0].number, lines[-1].number + 1), delivery))
        return delivery.count

    def _sending(self, lines: list[Line]) -> tuple[Callable[[], Awaitable[BatchDelivery]], int]:
        """Return what hands in the records, and can be called again, and how many there are at most."""
        if is_value_alone(self.form) and self.given == Given():
            values = [line.text for line in lines if self._is_sound(line)]
            return partial(self.producer.send_batch, values), len(values)
        if self.patience:
            # what is left out must be named once
            records = list(self._records(lines))
            return partial(self.producer.send_many, records), len(records)
        return partial(self.producer.send_many, self._records(lines)), len(lines)

    async def _wait_with(self, send: Callable[[], Awaitable[BatchDelivery]], count: int) -> BatchDelivery:
        """Hand in what comes next until a node takes it, or may have taken it, or the patience is over."""
        # Whatever is handed in behind something that is then handed in again would be stored before it.
        await self.settler.all_acknowledged()
        self.settler.tally.sent += count
        until = trio.current_time() + self.patience
        while True:
            delivery = await send()
            outcomes = await delivery.outcomes()
            not_stored = all(isinstance(each, DeliveryTimeout) and not each.maybe_stored for each in outcomes)
            if not not_stored or trio.current_time() >= until:
                return delivery

    def _is_sound(self, line: Line) -> bool:
        if line.length is not None:
            problem = f"its {line.length} bytes are more than the {self.longest_line} that a record can have"
        elif not line.text:
            problem = "it is empty"
        else:
            return True
        self.settler.tally.leave_out(line, problem)
        return False

    def _records(self, lines: list[Line]) -> Iterator[Record]:
        """Yield what lines stand for."""
        for line in lines:
            if not self._is_sound(line):
                continue
            try:
                record = self.given.add_to(self.form.read(line.text))
            except ValueError as error:
                self.settler.tally.leave_out(line, str(error))
                continue
            size = record_bytes(record)
            if size > self.longest_record:
                what = f"its record's {size} bytes are more than the {self.longest_record} that one can have"
                self.settler.tally.leave_out(line, what)
                continue
            yield record
