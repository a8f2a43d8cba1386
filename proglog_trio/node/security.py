"""What a node's options for security stand for: certificates, policies and keys, read from files and looked after."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import structlog
import trio
from attrs import frozen

from proglog_trio.internal_errors import InternalErrors, Where
from proglog_trio.membership import Keyring, KeyringFileError, load_keyring_file, save_keyring_file
from proglog_trio.node.config import NodeConfig
from proglog_trio.rpc.calls.connection import ConnectionConfig
from proglog_trio.rpc.server.authorization import Gate
from proglog_trio.rpc.server.server import ServerSecurity
from proglog_trio.security.permissions import PermitAll
from proglog_trio.security.reloading import FromFiles, Reloader
from proglog_trio.security.tls import ClientTls, LoadedTls, ServerTls

WARNING_DAYS = 30
"""A certificate that expires sooner is warned of, each day and whenever files are read again."""
_DAY_SECONDS = 86_400.0

_logger = structlog.get_logger(__name__)


@frozen
class NodeSecurity:
    """A node's certificates, policies and keys.

    Attributes:
        server: of its server; None: no TLS.
        peers: for the connections to other nodes; None: no TLS.
        keyring: what gossip begins with; None: not encrypted.
        reloader: reads the files again.
        errors: where unforeseen errors are counted.
    """

    server: ServerSecurity | None
    peers: ClientTls | None
    keyring: Keyring | None
    reloader: Reloader
    errors: InternalErrors

    def peer_connection(self) -> ConnectionConfig:
        """Return how other nodes are connected to."""
        return ConnectionConfig(tls=self.peers, errors=self.errors)

    def expiries(self) -> dict[str, datetime]:
        """Return when what expires first, by what it is: server_ or peer_, and then certificate, intermediate or ca."""
        return {
            f"{owner}_{what}": moment
            for owner, files in self._tls_files()
            for what, moment in files.value.expires.items()
        }

    def _tls_files(self) -> Iterator[tuple[str, FromFiles[LoadedTls]]]:
        if self.server is not None:
            yield "server", self.server.tls
        if self.peers is not None:
            yield "peer", self.peers.files()

    async def run(self) -> None:
        """Look after the files, and warn of certificates that expire soon, until cancelled."""
        changed = trio.Event()

        def files_changed() -> None:
            nonlocal changed
            changed.set()

        for _, files in self._tls_files():
            files.on_change(files_changed)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.reloader.run)
            while True:
                with self.errors.boundary(Where.CERTIFICATE_WATCH):
                    self.warn_of_expiry()
                with trio.move_on_after(_DAY_SECONDS if self.server or self.peers else math.inf):
                    await changed.wait()
                # Files that change from here on set the new one; those that did before are looked at next.
                changed = trio.Event()

    def warn_of_expiry(self, now: Callable[[], float] = time.time) -> None:
        """Log each certificate that has expired, or will within 30 days."""
        for what, moment in self.expiries().items():
            days = (moment - datetime.fromtimestamp(now(), UTC)).total_seconds() / _DAY_SECONDS
            name = what.replace("_intermediate", "_certificate's_intermediate_authority").replace("_", " ")
            if days <= 0:
                _logger.error(f"the {name} has expired", expired=moment.isoformat())
            elif days <= WARNING_DAYS:
                _logger.warning(f"the {name} expires soon", expires=moment.isoformat(), days=math.floor(days))


def load_security(config: NodeConfig, errors: InternalErrors | None = None) -> NodeSecurity:
    """Read the files that a node's configuration names.

    Args:
        config: names them.
        errors: where unforeseen errors are counted from then on.

    Raises:
        TlsError, AccessPolicyError, KeyringFileError: one of them cannot be used; the message names it.
    """
    server = _server(config)
    peers = _peers(config)
    values: list[FromFiles[Any]] = []
    if server is not None:
        values.append(server.tls)
        if server.gate is not None and isinstance(server.gate.policy, FromFiles):
            values.append(server.gate.policy)
        elif server.gate is None:
            _logger.warning("clients need no certificate and may do everything: no --server-tls-ca-file was given")
    if peers is not None:
        values.append(peers.files())
    errors = errors if errors is not None else InternalErrors()
    return NodeSecurity(server, peers, _keyring(config), Reloader(values, errors), errors)


def _server(config: NodeConfig) -> ServerSecurity | None:
    if config.server_tls_cert_file is None or config.server_tls_key_file is None:
        return None
    files = ServerTls(
        certificate=config.server_tls_cert_file,
        key=config.server_tls_key_file,
        authorities=config.server_tls_ca_file,
    )
    gate = None
    if config.acl_policy_file is not None:
        # late: casbin takes a while to load, and most nodes have no policy
        from proglog_trio.security.access_policy import AccessPolicy

        gate = Gate(AccessPolicy.read(config.acl_model_file, config.acl_policy_file))
    elif config.server_tls_ca_file is not None:
        gate = Gate(PermitAll())
    return ServerSecurity(files.read(), gate)


def _peers(config: NodeConfig) -> ClientTls | None:
    named = (config.peer_tls_cert_file, config.peer_tls_ca_file, config.peer_tls_server_name)
    if config.server_tls_cert_file is None and named == (None, None, None):
        return None
    # The others have TLS when this node does; a connection to them is never plain then.
    tls = ClientTls(
        authorities=config.peer_tls_ca_file or config.server_tls_ca_file,
        certificate=config.peer_tls_cert_file,
        key=config.peer_tls_key_file,
        server_name=config.peer_tls_server_name,
    )
    tls.files()
    return tls


def _keyring(config: NodeConfig) -> Keyring | None:
    given = None if config.encrypt is None else Keyring.from_base64([config.encrypt])
    path = config.keyring_file
    if path is None:
        return given
    if path.exists():
        keyring = load_keyring_file(path)
        if given is not None and given.primary not in keyring.keys:
            _logger.warning("the key of --encrypt is not in the keyring file, which counts", keyring_file=str(path))
        return keyring
    if given is None:
        raise KeyringFileError(f"--keyring-file {path} does not exist: give --encrypt as well, once, to make it")
    save_keyring_file(path, given)
    return given
