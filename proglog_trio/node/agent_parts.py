"""What a node has of a Serf agent besides its gossip: the RPC of Serf's tools, and event handlers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import frozen

from proglog_trio.address import Address
from proglog_trio.internal_errors import InternalErrors
from proglog_trio.membership import AgentRpcServer, EventHandler, EventHandlers, Membership
from proglog_trio.node.config import SECRET_OPTIONS, NodeConfig
from proglog_trio.node.option_types import ENVIRONMENT_PREFIX


@frozen
class AgentParts:
    """Both, not running yet.

    Attributes:
        address: where the RPC is to be served.
        server: serves it; None: nobody does.
        handlers: what is run for events; None: nothing.
    """

    address: Address | Path | None
    server: AgentRpcServer | None
    handlers: EventHandlers | None

    @classmethod
    def of(
        cls, config: NodeConfig, membership: Membership, stop: Callable[[], None], errors: InternalErrors
    ) -> AgentParts:
        """Return what a configuration wants.

        Args:
            config: says it.
            membership: the node's, running or not.
            stop: called when a client had the node leave.
            errors: where unforeseen errors are counted.
        """
        address = config.serf_rpc_addr
        handlers = tuple(map(EventHandler.parse, config.event_handler))
        return cls(
            address,
            None
            if address is None
            else AgentRpcServer(
                membership,
                auth_key=config.serf_rpc_auth_key,
                event_handlers=handlers,
                on_leave=stop,
                errors=errors,
            ),
            EventHandlers(membership, handlers, config.event_handler_timeout, errors, _without_secrets(os.environ))
            if handlers
            else None,
        )

    @property
    def counters(self) -> dict[str, Any]:
        """What they count, for the metrics: attrs classes of numbers, by the part."""
        found: dict[str, Any] = {}
        if self.server is not None:
            found["agent_rpc"] = self.server.counters
        if self.handlers is not None:
            found["event_handlers"] = self.handlers.counters
        return found

    async def start(self, parts: trio.Nursery) -> Address | Path | None:
        """Start both in a nursery; return where the RPC is served, if it is.

        To be called before the membership runs, so that no event is missed.

        Raises:
            AddressUnavailable: it cannot be served there; nothing runs then.
        """
        bound: Address | Path | None = None
        if self.server is not None and self.address is not None:
            bound = await parts.start(partial(self.server.run, self.address))
        if self.handlers is not None:
            await parts.start(self.handlers.run)
        return bound


def _without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of scripts: this process's, without what only the node is to know."""
    secrets = {ENVIRONMENT_PREFIX + option.removeprefix("--").replace("-", "_").upper() for option in SECRET_OPTIONS}
    return {name: value for name, value in environ.items() if name not in secrets}
