"""What a node's configuration says about each of its parts."""

from typing import TYPE_CHECKING

import attrs

from proglog_trio.address import Address
from proglog_trio.log.config import LogConfig
from proglog_trio.membership import (
    AllowedNetworks,
    GossipConfig,
    Keyring,
)
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.open_files import connections_that_fit
from proglog_trio.node.tags import CLUSTER_NAME_TAG, OWN_TAG_NAMES
from proglog_trio.rpc.server.log_service_state import LogServiceConfig
from proglog_trio.rpc.server.requested_acknowledgement import AcknowledgementConfig
from proglog_trio.rpc.server.server import ServerConfig
from proglog_trio.units import KIBIBYTE

if TYPE_CHECKING:
    from proglog_trio.dns import DnsConfig

SNAPSHOT_FILE = "members"
"""In the data directory: who the members are, for the next start."""
TAGS_FILE = "tags"
"""In the data directory: what was changed of the node's tags while it ran."""

# what a message has besides one batch: its other fields, and as a stored frame the header and the offsets around it
MESSAGE_OVERHEAD_BYTES = 64 * KIBIBYTE


def log_service_config(config: NodeConfig) -> LogServiceConfig:
    """Return what a node's configuration says about its Log service."""
    return LogServiceConfig(
        acknowledgement=AcknowledgementConfig(
            cluster_size=config.cluster_size, acknowledgement_timeout=config.acknowledgement_timeout
        )
    )


def gossip_config(config: NodeConfig, keyring: Keyring | None) -> GossipConfig:
    """Return what a node's configuration says about gossip; keyring: what it begins with."""
    return GossipConfig(
        name=config.node_name,
        bind_host=config.bind_addr.host,
        bind_port=config.bind_addr.port,
        advertise_host=None if config.advertise_addr is None or config.learns_host else config.advertise_addr.host,
        advertise_port=None if config.advertise_addr is None else config.advertise_addr.port or None,
        learn_host=config.learns_host,
        name_servers=config.name_servers,
        profile=config.profile(),
        keyring=keyring,
        verify_incoming=not config.no_verify_incoming,
        verify_outgoing=not config.no_verify_outgoing,
        keyring_file=config.keyring_file,
        allowed_networks=AllowedNetworks(config.gossip_allowed_cidrs) if config.gossip_allowed_cidrs else None,
        label=(config.gossip_label or "").encode(),
        cluster_tag=CLUSTER_NAME_TAG,
        user_event_bytes=config.user_event_size_limit,
        query_bytes=config.query_size_limit,
        query_response_bytes=config.query_response_size_limit,
        tags_file=config.data_dir / TAGS_FILE,
        fixed_tags=OWN_TAG_NAMES,
        snapshot_file=config.data_dir / SNAPSHOT_FILE,
        rejoin_after_leave=config.rejoin_after_leave,
    )


def dns_config(config: NodeConfig, address: Address, gossip_host: str) -> "DnsConfig":
    """Return what a node's configuration says about its answers to questions of DNS; gossip_host: see rpc_address."""
    from proglog_trio.dns import DnsConfig

    return DnsConfig(
        address=address,
        cluster_name=config.cluster_name,
        ttl=config.dns_ttl,
        like={CLUSTER_NAME_TAG: config.cluster_name},
        own_host=config.rpc_address(0, gossip_host).host,
    )


def log_config(config: NodeConfig) -> LogConfig:
    """Return what a node's configuration says about its log."""
    return LogConfig(
        directory=config.data_dir,
        cluster_name=config.cluster_name,
        segment_bytes=config.segment_bytes,
        retention_bytes=config.retention_bytes,
        retention_age=config.retention_age,
        reserve_bytes=config.disk_reserve,
        max_batch_bytes=config.max_message_bytes - MESSAGE_OVERHEAD_BYTES,
    )


def server_config(config: NodeConfig) -> ServerConfig:
    """Return what a node's configuration says about its server."""
    limits = ServerConfig()
    return attrs.evolve(
        limits,
        max_connections=connections_that_fit(limits.max_connections),
        transport=attrs.evolve(limits.transport, message_bytes=config.max_message_bytes),
    )
