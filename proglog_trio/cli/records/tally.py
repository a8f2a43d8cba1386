"""What became of records that were produced, in numbers."""

from typing import TYPE_CHECKING

from attrs import define, field

from proglog_trio.cli.node_commands import report

if TYPE_CHECKING:
    from proglog_trio.cli.records.lines import Line
    from proglog_trio.client import DeliveredBatch

_PROBLEMS_SHOWN = 10


@define
class Place:
    """Where records are stored in the log of one node."""

    lowest: int
    highest: int = 0
    count: int = 0

    def add(self, delivered: "DeliveredBatch") -> None:
        """Count a batch that is stored there."""
        self.lowest = min(self.lowest, delivered.base_offset)
        self.highest = max(self.highest, delivered.base_offset + delivered.count - 1)
        self.count += delivered.count

    def offsets(self) -> str:
        """Say where they are."""
        if self.count == 1:
            return f"at offset {self.lowest}"
        where = "at offsets" if self.highest - self.lowest + 1 == self.count else "between offsets"
        return f"{where} {self.lowest} to {self.highest}"


@define
class Tally:
    """What became of the records. Their offsets are one range a node, unless others write meanwhile."""

    sent: int = 0
    stored: int = 0
    left_out: int = 0
    on_fewer_nodes: int = 0
    places: "dict[str, Place]" = field(factory=dict)

    def add(self, delivered: "DeliveredBatch") -> None:
        """Count a batch that is stored."""
        self.stored += delivered.count
        if not delivered.reached:
            self.on_fewer_nodes += delivered.count
        self.places.setdefault(delivered.node, Place(delivered.base_offset)).add(delivered)

    def leave_out(self, line: "Line", problem: str) -> None:
        """Count a line that is not sent, and say why for the first few."""
        self.left_out += 1
        if self.left_out <= _PROBLEMS_SHOWN:
            report(f"line {line.number}: {problem}")

    def summary(self) -> str:
        """Say in one line what became of all."""
        if not self.places:
            stored = "no record stored"
        elif len(self.places) == 1:
            (place,) = self.places.values()
            stored = f"{place.count} record{'' if place.count == 1 else 's'} stored {place.offsets()}"
        else:
            each = (f"{place.count} on {node} {place.offsets()}" for node, place in self.places.items())
            stored = f"{self.stored} records stored: {', '.join(each)}"
        if self.on_fewer_nodes:
            stored += f", {self.on_fewer_nodes} of them on fewer nodes than asked for"
        left_out = f", {self.left_out} lines left out" if self.left_out else ""
        open_ = self.sent - self.stored
        return f"{stored}{left_out}" + (f", {open_} records sent and not acknowledged" if open_ else "")
