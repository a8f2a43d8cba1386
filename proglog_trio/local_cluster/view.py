"""How a local cluster looks to people. What it looks like on a terminal is made with rich, imported when needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .snapshot import ClusterSnapshot, NodeSnapshot, behind, member_status

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

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
    """Return the cluster as tables: its nodes, and what each has of each origin."""
    from rich.console import Group

    parts: list[RenderableType] = [_nodes(snapshot)]
    others = [f"{member.name} ({member_status(member)})" for member in snapshot.others()]
    if others:
        parts.append(f"other members: {', '.join(others)}")
    if snapshot.origins():
        parts.append(_origins(snapshot))
    return Group(*parts)


def _nodes(snapshot: ClusterSnapshot) -> Table:
    from rich.text import Text

    table = _table(f"cluster {snapshot.cluster_name}")
    for title in ("node", "RPC", "process", "member"):
        table.add_column(title, no_wrap=True)
    for title in ("next offset", "behind", "in/s", "pulled/s", "out/s"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("peers lack")
    for node in snapshot.nodes:
        member = snapshot.status_of(node.name)
        state = Text(node.state, style="" if node.status is not None else "red")
        row: list[RenderableType] = [node.name, str(node.address), state, Text(member, style=_STYLES.get(member, ""))]
        if node.status is None:
            table.add_row(*row)
            continue
        rates = node.rates
        numbers = ["-"] * 3
        if rates is not None:
            numbers = [f"{number:,.0f}" for number in (rates.produced, rates.pulled, rates.consumed)]
        lacking = behind(node.status)
        table.add_row(
            *row,
            f"{node.status.next_offset:,}",
            Text(f"{lacking:,}", style="yellow" if lacking else ""),
            *numbers,
            _peers(node),
        )
    return table


def _peers(node: NodeSnapshot) -> str:
    peers = node.status.peers if node.status is not None else ()
    return "  ".join(
        f"{peer.name} {peer.peer_behind:,}{'' if peer.connected else ' (not connected)'}" for peer in peers
    )


def _origins(snapshot: ClusterSnapshot) -> Table:
    from rich.text import Text

    origins = snapshot.origins()
    shown = origins[:ORIGINS_SHOWN]
    table = _table("next sequence of each origin")
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


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, caption_justify="left")
