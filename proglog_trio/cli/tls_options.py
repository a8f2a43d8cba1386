"""The options of every command that talks to a node over TLS."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.structlog_loading import load_structlog_without_rich
from proglog_trio.node.option_types import ENVIRONMENT_PREFIX, FILE, HOST

if TYPE_CHECKING:
    from proglog_trio.security.tls import ClientTls

_PREFIX = f"{ENVIRONMENT_PREFIX}TLS_"


@attrs.frozen(kw_only=True)
class TlsOptions:
    """How to reach a node that has TLS. Given any of these, the connection is encrypted and the node is verified."""

    tls_ca_file: Annotated[Path | None, FILE, Parameter(env_var=f"{_PREFIX}CA_FILE")] = None
    """The authority that signed the node's certificate (PEM). With this or any other --tls option the connection is
    encrypted; without this one, the authorities that the system trusts are asked."""

    tls_cert_file: Annotated[Path | None, FILE, Parameter(env_var=f"{_PREFIX}CERT_FILE")] = None
    """The certificate that says who asks (PEM); its common name is what the node's policy is about."""

    tls_key_file: Annotated[Path | None, FILE, Parameter(env_var=f"{_PREFIX}KEY_FILE")] = None
    """The key of that certificate (PEM)."""

    tls_server_name: Annotated[str | None, HOST, Parameter(env_var=f"{_PREFIX}SERVER_NAME")] = None
    """What the node's certificate must be for, where that is not the host of --addr."""

    def client_tls(self) -> "ClientTls | None":
        """Return the configuration of a connection; raises CommandError if the files cannot be used."""
        if self == TlsOptions():
            return None
        load_structlog_without_rich()
        from proglog_trio.errors import TlsError
        from proglog_trio.security.tls import ClientTls

        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise CommandError("--tls-cert-file and --tls-key-file go together: give both, or none.", ExitCode.USAGE)
        tls = ClientTls(
            authorities=self.tls_ca_file,
            certificate=self.tls_cert_file,
            key=self.tls_key_file,
            server_name=self.tls_server_name,
        )
        try:
            tls.files()
        except TlsError as error:
            raise CommandError(str(error), ExitCode.USAGE) from error
        return tls


TLS_VARIABLES = tuple(f"{ENVIRONMENT_PREFIX}{attribute.name.upper()}" for attribute in attrs.fields(TlsOptions))

Tls = Annotated[TlsOptions | None, Parameter(name="*")]
"""All of them, for a command's signature."""


def client_tls(options: TlsOptions | None) -> "ClientTls | None":
    """Return what the options stand for; raises CommandError if the files cannot be used."""
    return None if options is None else options.client_tls()
