"""``proglog-trio certs`` and ``proglog-trio keygen``: what a secure cluster begins with."""

import base64
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.node_commands import report
from proglog_trio.node.option_types import check_host, within

certs_app = App(name="certs")
keygen_app = App(name="keygen")

_KEY_BYTES = 32
_MAX_DAYS = 3650


def _check_hosts(_type: type, hosts: Sequence[str]) -> None:
    for host in hosts:
        check_host(str, host)


@certs_app.default
def certs(
    directory: Annotated[Path, Parameter(help="Where they are written; made if it does not exist.")],
    /,
    *,
    host: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            show_default=False,
            validator=_check_hosts,
            metavar="HOST",
            help="A name or address that the server's certificate is for, besides localhost and 127.0.0.1. Repeatable.",
        ),
    ] = (),
    days: Annotated[int, within(1, _MAX_DAYS), Parameter(metavar="N", help="For how long they are valid.")] = 365,
) -> int:
    """Make an authority and certificates for development: ca, server, root-client and nobody-client (.pem, -key.pem).

    With ca-key.pem more can be made. Keys are readable for their owner alone; nothing is overwritten.
    """
    from proglog_trio.security.certificates import CertificatesError, development_files, write_files

    try:
        files = development_files(host, days=days)
    except ValueError as error:
        raise CommandError(f"--host: {error}", ExitCode.USAGE) from error
    try:
        write_files(directory, files)
    except CertificatesError as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    report(f"{', '.join(files)} are in {directory}")
    return ExitCode.DONE


@keygen_app.default
def keygen() -> int:
    """Write a new gossip key to standard output: 32 random bytes in base64, for --encrypt or serf's -encrypt."""
    print(base64.b64encode(os.urandom(_KEY_BYTES)).decode("ascii"))
    return ExitCode.DONE
