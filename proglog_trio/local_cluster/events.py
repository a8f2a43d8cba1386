"""What happens in a local cluster, as it is told."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import attrs
from attrs import frozen

from proglog_trio.address import Address
from proglog_trio.local_cluster.plan import NodePlan


@frozen
class _PlainEvent:
    """One whose fields are all there is to say."""

    def fields(self) -> dict[str, Any]:
        """Return what there is to say, as JSON has it."""
        return {name: str(field) if isinstance(field, Path) else field for name, field in attrs.asdict(self).items()}


@frozen
class Ready:
    """All nodes take requests and know each other.

    Attributes:
        directory: where everything is.
        nodes: what the nodes take RPCs at, by their names.
    """

    name: ClassVar[str] = "ready"
    directory: Path
    nodes: Mapping[str, Address]

    def fields(self) -> dict[str, Any]:
        """Return what there is to say, as JSON has it."""
        return {
            "directory": str(self.directory),
            "nodes": [{"name": name, "rpc_addr": str(address)} for name, address in self.nodes.items()],
        }

    def text(self) -> str:
        """Say it, and what can be done now."""
        first, *others = self.nodes.values()
        last = others[-1] if others else first
        command = f"{Path(sys.executable).name} -m proglog_trio"
        count = f"{len(self.nodes)} nodes are" if others else "1 node is"
        return (
            f"{count} ready; data and logs are in {shown_path(self.directory)}. In another terminal:\n"
            f"  echo hello | {command} produce --addr {first}\n"
            f"  {command} consume --addr {last} --follow\n"
            f"  {command} status --addr {first}\n"
            "Ctrl-C stops all."
        )


@frozen
class NodeEnded:
    """A node has ended by itself, or was ended from outside.

    Attributes:
        node: which.
        exit_code: as `subprocess` has it: negative for a signal.
    """

    name: ClassVar[str] = "node_ended"
    node: NodePlan
    exit_code: int

    def fields(self) -> dict[str, Any]:
        """Return what there is to say, as JSON has it."""
        killed = signal_name(self.exit_code)
        return {
            "node": self.node.name,
            "exit_code": None if killed else self.exit_code,
            "signal": killed,
            "log_file": str(self.node.log_file),
            "config_file": str(self.node.config_file),
        }

    def text(self) -> str:
        """Say it, and how it can be started again."""
        command = f"{Path(sys.executable).name} -m proglog_trio node --config-file"
        return (
            f"{self.node.name} has ended: {ending(self.exit_code)} (see {shown_path(self.node.log_file)})\n"
            f"Start it again with\n  {command} {shlex.quote(shown_path(self.node.config_file))}"
        )


@frozen
class Stopping(_PlainEvent):
    """The nodes are told to stop."""

    name: ClassVar[str] = "stopping"
    nodes: tuple[str, ...]

    def text(self) -> str:
        """Say it."""
        return f"stopping {', '.join(self.nodes)} …"


@frozen
class NodeKilled(_PlainEvent):
    """A node that was told to stop has not, and is killed."""

    name: ClassVar[str] = "node_killed"
    node: str
    seconds: float

    def text(self) -> str:
        """Say it."""
        return f"{self.node} has not stopped within {self.seconds:g} s: it is killed"


@frozen
class Stopped(_PlainEvent):
    """Nothing that was started is left."""

    name: ClassVar[str] = "stopped"
    directory: Path
    nodes: tuple[str, ...]

    def text(self) -> str:
        """Say it."""
        return f"stopped; the same command goes on with what is in {shown_path(self.directory)}"


Event = Ready | NodeEnded | Stopping | NodeKilled | Stopped


def signal_name(exit_code: int) -> str | None:
    """Name the signal that ended a process, if one did."""
    if exit_code >= 0:
        return None
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"


def ending(exit_code: int) -> str:
    """Say how a process ended."""
    killed = signal_name(exit_code)
    return f"killed by {killed}" if killed else f"exit code {exit_code}"


def shown_path(path: Path) -> str:
    """Return a path as a user in the present directory would write it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
