from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio
import trio.testing
from attrs import define, field

from proglog_trio.cli.formats.given_fields import Given
from proglog_trio.cli.formats.record_forms import JsonForm, RawForm, RecordForm
from proglog_trio.cli.records.feeder import Feeder
from proglog_trio.cli.records.lines import Line
from proglog_trio.cli.records.settler import Sent, Settler
from proglog_trio.cli.records.tally import Tally
from proglog_trio.client import DeliveredBatch, DeliveryError, DeliveryTimeout, ProducerConfig, Record
from proglog_trio.log.format.origin import Origin

NOT_STORED = DeliveryTimeout("not sent", maybe_stored=False)
MAYBE_STORED = DeliveryTimeout("no answer", maybe_stored=True)
TRY_SECONDS = 300.0


def stored(count: int) -> DeliveredBatch:
    return DeliveredBatch(0, count, Origin(bytes(16)), 0, 0, 1, reached=True, node="a:1")


@define
class DeliveryThatEnds:
    """A delivery whose outcome comes after a time."""

    count: int
    outcome: "DeliveredBatch | DeliveryError"
    seconds: float

    async def outcomes(self) -> "tuple[DeliveredBatch | DeliveryError, ...]":
        await trio.sleep(self.seconds)
        return (self.outcome,)


@define
class ProducerOfOutcomes:
    """What a feeder needs of a producer; each call ends in the next outcome."""

    results: "list[DeliveredBatch | DeliveryError]"
    obstacle: str | None = "refused"
    config: ProducerConfig = field(factory=ProducerConfig)
    handed_in: list[list[Any]] = field(factory=list)

    async def send_batch(self, values: Sequence[bytes]) -> DeliveryThatEnds:
        await trio.lowlevel.checkpoint()
        self.handed_in.append([*values])
        return DeliveryThatEnds(len(values), self.results.pop(0), TRY_SECONDS)

    async def send_many(self, records: Sequence[Record]) -> DeliveryThatEnds:
        return await self.send_batch(cast("list[bytes]", [*records]))


class Fed:
    """A feeder with all that is around it."""

    def __init__(self, producer: ProducerOfOutcomes, patience: float, form: RecordForm | None = None) -> None:
        self.producer = producer
        self.settler = Settler(Tally(), None, trio.CancelScope())
        self.sending, self.sent = trio.open_memory_channel[Sent](10)
        self.feeder = Feeder(
            producer=cast("Any", producer),
            settler=self.settler,
            sending=self.sending,
            form=form or RawForm(),
            given=Given(),
            patience=patience,
        )

    def close(self) -> None:
        self.sending.close()
        self.sent.close()


@pytest.mark.parametrize(
    ("results", "patience", "tries"),
    [
        ([NOT_STORED, NOT_STORED, stored(2)], 10_000.0, 3),
        # it may be there already
        ([NOT_STORED, MAYBE_STORED, stored(2)], 10_000.0, 2),
        ([NOT_STORED] * 9, 2.5 * TRY_SECONDS, 3),
        # without patience nobody waits for the outcome here
        ([NOT_STORED] * 9, 0.0, 1),
    ],
)
async def test_how_often_is_tried(
    results: "list[DeliveredBatch | DeliveryError]", patience: float, tries: int, autojump_clock: trio.testing.MockClock
) -> None:
    fed = Fed(ProducerOfOutcomes([*results]), patience)
    assert await fed.feeder.feed([Line(4, b"a"), Line(5, b"b")]) == 2
    assert fed.producer.handed_in == [[b"a", b"b"]] * tries
    assert fed.settler.tally.sent == 2
    sent = fed.sent.receive_nowait()
    assert sent.lines == range(4, 6)
    # the last one's outcome is what counts
    assert await sent.delivery.outcomes() == (results[tries - 1],)
    fed.close()


async def test_nothing_is_handed_in_before_what_waits_is_acknowledged(autojump_clock: trio.testing.MockClock) -> None:
    fed = Fed(ProducerOfOutcomes([stored(1)]), 1000.0)
    fed.settler.tally.sent = 1
    before = DeliveryThatEnds(1, stored(1), TRY_SECONDS)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fed.feeder.feed, [Line(2, b"b")])
        await trio.testing.wait_all_tasks_blocked()
        assert fed.producer.handed_in == []
        deliveries, settling = trio.open_memory_channel[Sent](1)
        nursery.start_soon(fed.settler.run, settling)
        await deliveries.send(Sent(range(1, 2), cast("Any", before)))
        deliveries.close()
    assert fed.producer.handed_in == [[b"b"]]
    fed.close()


async def test_while_nodes_are_there_nobody_waits_for_an_outcome() -> None:
    fed = Fed(ProducerOfOutcomes([stored(1)], obstacle=None), 1000.0)
    with trio.fail_after(60):
        assert await fed.feeder.feed([Line(1, b"a")]) == 1
    fed.close()


async def test_what_is_no_record_is_named_once(
    autojump_clock: trio.testing.MockClock, capfd: pytest.CaptureFixture[str]
) -> None:
    fed = Fed(ProducerOfOutcomes([NOT_STORED, stored(1)]), 1000.0, form=JsonForm())
    assert await fed.feeder.feed([Line(1, b'{"value": "a"}'), Line(2, b"{}"), Line(3, b"", length=1 << 40)]) == 1
    assert fed.producer.handed_in == [[Record(b"a")]] * 2
    assert fed.settler.tally.left_out == 2
    assert [line.split(":")[0] for line in capfd.readouterr().err.splitlines()] == ["line 2", "line 3"]
    assert await fed.feeder.feed([Line(4, b"{}")]) == 0
    assert len(fed.producer.handed_in) == 2
    fed.close()


async def test_a_record_that_is_too_large_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    fed = Fed(ProducerOfOutcomes([], obstacle=None), 1000.0, form=JsonForm())
    text = b'{"value": "' + b"x" * fed.feeder.longest_record + b'", "key": ""}'
    assert await fed.feeder.feed([Line(1, text.replace(b'"key": ""', b'"key": "k"'))]) == 0
    assert "bytes are more than the" in capfd.readouterr().err
    fed.producer.results.append(stored(1))
    assert await fed.feeder.feed([Line(2, text)]) == 1
    fed.close()
