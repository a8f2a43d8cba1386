"""What every command that asks one node takes: which node, for how long, and over which kind of connection."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import attrs
from cyclopts import Parameter

from proglog_trio.cli.contexts.addresses import DEFAULT_ADDRESSES, NodeAddress, asked, failed_at
from proglog_trio.cli.contexts.choice import ContextName
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.node_commands import Timeout
from proglog_trio.cli.tls_options import Tls, client_tls

Answer = TypeVar("Answer")


@attrs.frozen(kw_only=True)
class NodeOptions:
    """One node, asked through a call of proglog_trio.rpc.calls.cluster."""

    addr: NodeAddress = DEFAULT_ADDRESSES
    context: ContextName = None
    timeout: Timeout = 10.0
    tls: Tls = None

    async def ask(self, call: Callable[..., Awaitable[Answer]], *arguments: object, **options: object) -> Answer:
        """Return the node's answer; raises CommandError in place of what can go wrong with asking.

        Args:
            call: given the address, the arguments, the timeout and the TLS configuration.
            arguments: between the address and the timeout.
            options: by name.
        """
        from proglog_trio.errors import CallFailed, NodeConnectionError
        from proglog_trio.node.log_output import configure_log_output

        configure_log_output("console", "warning")
        first = asked(self.addr)
        (address,) = first
        try:
            return await call(address, *arguments, self.timeout, tls=client_tls(self.tls), **options)
        except NodeConnectionError as error:
            raise failed_at(first, error, ExitCode.UNREACHABLE) from error
        except CallFailed as error:
            raise failed_at(first, error, ExitCode.FAILED) from error
        except UnicodeEncodeError:
            # What it was is not said: it may be a key.
            raise CommandError("an argument has bytes that are no UTF-8 text", ExitCode.USAGE) from None


@attrs.frozen(kw_only=True)
class LongNodeOptions(NodeOptions):
    """The same for what takes the node a while."""

    timeout: Timeout = 30.0


AskedNode = Annotated[NodeOptions, Parameter(name="*")]
"""All of them, for a command's signature."""
NODE = NodeOptions()
