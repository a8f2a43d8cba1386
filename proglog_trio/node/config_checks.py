"""Which options of a node go together, as far as security is concerned.

Nothing here reads a file: what is in them is checked when the node starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proglog_trio.node.config import NodeConfig


def security_problem(config: NodeConfig) -> str | None:
    """Return what is wrong with a node's options for TLS, access and gossip keys, in one line; None: nothing."""
    for name in ("server_tls", "peer_tls"):
        flag = f"--{name.replace('_', '-')}"
        certificate, key = getattr(config, f"{name}_cert_file"), getattr(config, f"{name}_key_file")
        if (certificate is None) != (key is None):
            return f"{flag}-cert-file and {flag}-key-file go together: give both, or none"
    if config.server_tls_ca_file is not None and config.server_tls_cert_file is None:
        return "--server-tls-ca-file verifies clients of a node that has TLS: give --server-tls-cert-file as well"
    if config.acl_model_file is not None and config.acl_policy_file is None:
        return "--acl-model-file is the model of a policy: give --acl-policy-file as well"
    if config.acl_policy_file is not None and config.server_tls_ca_file is None:
        return "--acl-policy-file is about clients with certificates: give --server-tls-ca-file as well"
    if config.insecure or config.bind_addr.is_loopback:
        return None
    missing = []
    if config.server_tls_cert_file is None:
        missing.append("--server-tls-cert-file and --server-tls-key-file")
    if config.encrypt is None and config.keyring_file is None:
        missing.append("--encrypt or --keyring-file")
    if missing:
        return (
            f"--bind-addr {config.bind_addr} can be reached from other machines: give {', and '.join(missing)}, or "
            "say --insecure to do without"
        )
    return None
