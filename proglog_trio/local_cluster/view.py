"""How a local cluster looks to people. What it looks like on a terminal is made with rich, imported when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proglog_trio.local_cluster.snapshot import ClusterSnapshot, NodeSnapshot, behind, member_status

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from proglog_trio._proto.log.v1 import PeerStatus

ORIGINS_SHOWN = 8
_STYLES = {"alive": "green", "failed": "red", "left": "yellow", "leaving": "yellow"}


def summary(snapshot: ClusterSnapshot) -> str:
    """Return the cluster in one line."""
    return "; ".join(_in_short(snapshot, node) for node in snapshot.nodes)


def _in_short(snapshot: ClusterSnapshot, node: NodeSnapshot) -> str:
    if node.status is None:
        return f"{node.name} {node.state}, {snapshot.status_of(node.name)}"
    parts = [f"{node.name} {snapshot.status_of(node.name)}", f"next offset {node.status.next_offset}"]
    lacking = behind(node.status)
    if lacking:
        parts.append(f"{lacking} behind")
    rates = node.rates
    if rates is not None and (rates.produced or rates.pulled or rates.consumed):
        parts.append(f"{rates.produced:,.0f}/s produced, {rates.pulled:,.0f}/s pulled, {rates.consumed:,.0f}/s read")
    return ", ".join(parts)


def view(snapshot: ClusterSnapshot) -> RenderableType:
    """Return the cluster as tables: its nodes, how far each says that the others are, what each has of each origin."""
    from rich.console import Group

    title = f"cluster {snapshot.cluster_name}: records in from producers, pulled from others, out to consumers"
    parts: list[RenderableType] = [_title(title), _nodes(snapshot)]
    others = [f"{member.name} ({member_status(member)})" for member in snapshot.others()]
    if others:
        parts.append(f"other members: {', '.join(others)}")
    if len(snapshot.nodes) > 1:
        parts += ["", _title("records that each node has and the others lack, as they have told it"), _lags(snapshot)]
    if snapshot.origins():
        parts += ["", _title("next sequence of each origin"), _origins(snapshot)]
    return Group(*parts)


def _nodes(snapshot: ClusterSnapshot) -> Table:
    from rich.text import Text

    table = _table()
    table.add_column("node", no_wrap=True)
    for title in ("port", "next offset", "behind", "in/s", "pulled/s", "out/s"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("state")
    for node in snapshot.nodes:
        cells: list[RenderableType] = ["-"] * 5
        if node.status is not None:
            lacking = behind(node.status)
            cells[:2] = f"{node.status.next_offset:,}", Text(f"{lacking:,}", style="yellow" if lacking else "")
        if node.rates is not None:
            cells[2:] = [f"{each:,.0f}" for each in (node.rates.produced, node.rates.pulled, node.rates.consumed)]
        table.add_row(node.name, str(node.address.port), *cells, _state(snapshot, node))
    return table


def _lags(snapshot: ClusterSnapshot) -> Table:
    from rich.text import Text

    table = _table()
    table.add_column("has", no_wrap=True)
    names = [node.name for node in snapshot.nodes]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for node in snapshot.nodes:
        if node.status is None:
            continue
        peers = {peer.name: _peer(peer) for peer in node.status.peers}
        table.add_row(node.name, *(peers.get(name, Text("-", style="dim")) for name in names))
    return table


def _state(snapshot: ClusterSnapshot, node: NodeSnapshot) -> Text:
    from rich.text import Text

    member = snapshot.status_of(node.name)
    if node.status is None:
        return Text(f"{node.state}, member {member}", style="red")
    return Text(member, style=_STYLES.get(member, ""))


def _peer(peer: PeerStatus) -> Text:
    from rich.text import Text

    away = "" if peer.connected else "away, "
    return Text(f"{away}{peer.peer_behind:,}", style="yellow" if peer.peer_behind or away else "")


def _origins(snapshot: ClusterSnapshot) -> Table:
    from rich.text import Text

    origins = snapshot.origins()
    shown = origins[:ORIGINS_SHOWN]
    table = _table()
    table.add_column("origin", no_wrap=True)
    table.add_column("written by", no_wrap=True)
    names = list(shown[0].nexts)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for places in shown:
        most = max(places.nexts.values())
        cells = [Text(f"{places.nexts[name]:,}", style="yellow" if places.nexts[name] < most else "") for name in names]
        table.add_row(places.origin.hex(), places.written_by or "nobody now", *cells)
    if len(origins) > len(shown):
        left_out = origins[len(shown) :]
        how = "the same everywhere" if all(places.is_even for places in left_out) else "not the same everywhere"
        table.caption = f"and {len(left_out)} more, {how}"
    return table


def _table() -> Table:
    from rich.table import Table

    return Table(header_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0), caption_justify="left")


def _title(text: str) -> Text:
    from rich.text import Text

    return Text(text, style="bold")
