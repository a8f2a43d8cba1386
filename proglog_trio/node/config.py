"""What a node can be told, defined once.

Each field of `NodeConfig` is a flag (``--data-dir``), an environment variable (``PROGLOG_DATA_DIR``), a key of the
configuration file (``data-dir``) and a line of the reference documentation. A flag wins over the environment, the
environment over the file, the file over the default. The text below a field is the option's help, word for word.
"""

import socket
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import attrs
from cyclopts import Parameter

from proglog_trio.address import Address, StartAddress
from proglog_trio.node.option_types import (
    ADDRESS,
    ADVERTISED_ADDRESS,
    AGENT_RPC_ADDRESS,
    DEFAULT_GOSSIP_PORT,
    DEFAULT_RPC_PORT,
    EVENT_HANDLERS,
    FILE,
    FLAG,
    GOSSIP_ADDRESS,
    GOSSIP_KEY,
    GOSSIP_SETTINGS,
    HOST,
    LABEL,
    LEARNT,
    NAME,
    NAME_SERVERS,
    NETWORKS,
    NO_DEFAULT,
    SECRET,
    SIZE,
    START_ADDRESSES,
    SWITCH,
    TAGS,
    TIME,
    WHOLE_SECONDS,
    between,
    shown_as,
)
from proglog_trio.units import GIBIBYTE, KIBIBYTE, MEBIBYTE

if TYPE_CHECKING:
    from proglog_trio.membership import GossipProfile

DEFAULT_BIND_ADDRESS = Address("127.0.0.1", DEFAULT_GOSSIP_PORT)
LARGEST_MESSAGE_BYTES = 64 * MEBIBYTE
LARGEST_USER_MESSAGE_BYTES = 9 * KIBIBYTE
MAX_EVENT_HANDLERS = 64
"""As many as a membership runs."""
SECRET_OPTIONS = frozenset({"--encrypt", "--serf-rpc-auth-key"})
"""Options whose values are shown nowhere, in no error either."""

GossipProfileName = Literal["lan", "local", "wan"]
LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class ConfigError(ValueError):
    """Options that are each valid but do not go together. The message is one line and names them."""


@attrs.frozen(kw_only=True)
class NodeConfig:
    """What a node is told. Times are in seconds and sizes in bytes.

    Raises:
        ConfigError: values do not go together.
        ValueError: a value is bad by itself.
    """

    data_dir: Annotated[Path, Parameter(show_default=lambda value: f"./{value}")] = Path("proglog-data")
    """Where the log is kept. Made when it does not exist; one node at a time can have it open."""

    node_name: Annotated[str, NAME, shown_as("the host's name")] = attrs.field(factory=socket.gethostname)
    """What this node is called; unique in its cluster."""

    bind_addr: Annotated[Address, GOSSIP_ADDRESS] = DEFAULT_BIND_ADDRESS
    """Where the node listens for gossip, UDP and TCP; port 0 takes any that is free for both. The host is used for RPC
    too."""

    rpc_port: Annotated[int, between(0, 65535), Parameter(metavar="PORT")] = DEFAULT_RPC_PORT
    """The port for RPC; 0 takes any free one."""

    advertise_addr: Annotated[Address | None, ADVERTISED_ADDRESS, shown_as("that of --bind-addr")] = None
    """Where others send gossip to reach this node, where it is not --bind-addr (behind address translation, or when
    bound to 0.0.0.0): the host, and the port if it is another. The host is that of RPC too. As auto or auto:PORT, the
    host is learnt when the node starts: it is the one at which most of the members of --start-join-addrs see it."""

    advertise_rpc_addr: Annotated[
        Address | None, ADVERTISED_ADDRESS, shown_as("the host of --advertise-addr, or else of --bind-addr")
    ] = None
    """Where clients and other nodes dial this node's RPC, if it is not there, or not at --rpc-port."""

    start_join_addrs: Annotated[tuple[StartAddress, ...], START_ADDRESSES] = ()
    """Members of the cluster to join through: where they listen for gossip. Repeatable, or separated by commas; every
    address that a name stands for is tried, and again for as long as it is no live member. srv+NAME stands for all
    hosts and ports in the name's SRV records, and so does a name such as _gossip._tcp.example.org."""

    name_servers: Annotated[tuple[Address, ...], NAME_SERVERS, shown_as("those of the system")] = ()
    """Whom to ask for SRV records, and for the hosts in them. Repeatable, or separated by commas."""

    start_timeout: Annotated[float, TIME, between(0, 86_400)] = 60.0
    """For how long a start is tried again for what may pass: a port, an address or a data directory that another
    process still has, an address that is not on this machine yet, a name that cannot be looked up yet, a node name that
    another member has, a full disk. 0: not at all."""

    gossip_profile: GossipProfileName = "lan"
    """The timing of gossip, for the kind of network that the cluster is on."""

    gossip_settings: Annotated[tuple[tuple[str, float], ...], GOSSIP_SETTINGS] = ()
    """One figure of the profile, such as probe-interval=2s or gossip-nodes=4. Repeatable, or separated by commas."""

    user_event_size_limit: Annotated[int, SIZE, between(1, LARGEST_USER_MESSAGE_BYTES), shown_as("512")] = 512
    """The largest user event that this node sends, encoded, and its name and payload together; 9KiB at the most. What
    fits into no packet goes by streams. Larger ones of other members are taken and passed on."""

    query_size_limit: Annotated[int, SIZE, between(1, LARGEST_USER_MESSAGE_BYTES), shown_as("1KiB")] = KIBIBYTE
    """The largest query that this node asks, encoded; likewise."""

    query_response_size_limit: Annotated[int, SIZE, between(1, LARGEST_USER_MESSAGE_BYTES), shown_as("1KiB")] = KIBIBYTE
    """The largest answer that this node gives to a query, encoded; likewise."""

    encrypt: Annotated[str | None, GOSSIP_KEY] = attrs.field(default=None, repr=False)
    """Encrypt gossip with this key: 16, 24 or 32 bytes in base64, the same on all members. What is not encrypted with
    it is refused. Better given by its variable: others can read command lines."""

    gossip_label: Annotated[str | None, LABEL] = None
    """Put this before every packet and stream of gossip (memberlist's label), the same on all members. Of members with
    another label, or without one, nothing at all is read: the full wall between clusters that could reach each
    other."""

    tag: Annotated[tuple[tuple[str, str], ...], TAGS] = ()
    """What the node tells the others of itself, such as role=web or rack=7. Repeatable, or separated by commas. All
    tags together, those that the node has anyway included, take at most 512 bytes. What the tags command changed counts
    over this: it is kept in the data directory."""
    no_verify_incoming: Annotated[bool, FLAG] = False
    """Take gossip that is not encrypted too, although there is a key: only while a cluster that runs changes to
    encrypted gossip."""

    no_verify_outgoing: Annotated[bool, FLAG] = False
    """Do not encrypt what the node sends, although there is a key: in the first step of that change, and only together
    with --no-verify-incoming."""

    gossip_allowed_cidrs: Annotated[tuple[IPv4Network | IPv6Network, ...], NETWORKS, shown_as("everywhere")] = ()
    """Where members may be: networks such as 10.0.0.0/8 or fd00::/8, this node's address among them. Gossip from
    elsewhere is not read, and members elsewhere are not taken in. Repeatable, or separated by commas."""

    leave_timeout: Annotated[float, TIME, between(0)] = 10.0
    """How long a node that is told to stop takes to leave its cluster, at most: seconds, or 1m."""

    no_leave_on_terminate: Annotated[bool, FLAG] = False
    """Stop without leaving the cluster, for a restart: the others take the node for failed until it is back, instead of
    having it leave and join."""

    rejoin_after_leave: Annotated[bool, SWITCH] = True
    """Know after a leave, too, who the members were, so that the node finds its cluster again without start addresses.
    Otherwise that is kept over a crash and over --no-leave-on-terminate alone."""

    keyring_file: Annotated[Path | None, FILE] = None
    """Where the gossip keys are kept: a JSON array of keys in base64, the first of which encrypts and any of which
    decrypts. Rotation (the keys command, or serf's) writes it. Made with the key of --encrypt when it does not exist;
    when it does, it counts and --encrypt does not."""

    server_tls_cert_file: Annotated[Path | None, FILE] = None
    """The node's certificate (PEM), then those of intermediate authorities. With it, RPC is encrypted: TLS 1.2 or
    later. Read again on SIGHUP and when it changes, as all files of certificates, keys and policies."""

    server_tls_key_file: Annotated[Path | None, FILE] = None
    """The key of that certificate (PEM), not encrypted."""

    server_tls_ca_file: Annotated[Path | None, FILE] = None
    """The authorities (PEM) whose client certificates are accepted, those of other nodes included. With it, a client
    that has none of them can only ask whether the node is well."""

    peer_tls_cert_file: Annotated[Path | None, FILE] = None
    """The certificate (PEM) that this node shows to other nodes."""

    peer_tls_key_file: Annotated[Path | None, FILE] = None
    """The key of that certificate (PEM), not encrypted."""

    peer_tls_ca_file: Annotated[Path | None, FILE, shown_as("that of --server-tls-ca-file")] = None
    """The authorities (PEM) that signed the certificates of other nodes."""

    peer_tls_server_name: Annotated[str | None, HOST] = None
    """What the certificates of other nodes must be for, where that is not the host that is dialled."""

    acl_model_file: Annotated[Path | None, FILE, shown_as("each rule of the policy is a subject, * and an action")] = (
        None
    )
    """The casbin model that the policy follows (model.conf)."""

    acl_policy_file: Annotated[Path | None, FILE] = None
    """The casbin policy (policy.csv): subjects are the common names of certificates, the object is *, actions are
    produce, consume, replicate and admin. Without it, every accepted certificate may do all."""

    metrics_addr: Annotated[Address | None, ADDRESS, NO_DEFAULT] = None
    """Serve figures for Prometheus there, over plain HTTP at /metrics, to every client. Port 0 takes any free one."""

    dns_addr: Annotated[Address | None, ADDRESS, NO_DEFAULT] = None
    """Answer questions of DNS there, UDP and TCP: the nodes that are alive, as addresses and ports (A, AAAA, SRV) of
    CLUSTER.proglog, NODE.node.CLUSTER.proglog and _grpc._tcp.CLUSTER.proglog. Every client may ask. Port 0 takes any
    free one."""

    dns_ttl: Annotated[int, WHOLE_SECONDS, between(0, 3600), shown_as("1s")] = 1
    """For how long clients of --dns-addr may keep an answer. 0: not at all."""

    serf_rpc_addr: Annotated[Address | Path | None, AGENT_RPC_ADDRESS, NO_DEFAULT] = None
    """Speak the protocol of a Serf agent's RPC there, for the serf command and its libraries: an address, whose port is
    7373 if none is given (0 takes any free one), or unix: and the path of a socket, which only the user who runs the
    node can open. Who can dial it, and knows the key of --serf-rpc-auth-key if there is one, can make this node leave,
    change its tags and the gossip keys."""

    serf_rpc_auth_key: Annotated[str | None, SECRET] = attrs.field(default=None, repr=False)
    """What clients of --serf-rpc-addr have to know. It crosses the network unencrypted. Better given by its variable:
    others can read command lines."""

    event_handler: Annotated[tuple[str, ...], EVENT_HANDLERS] = ()
    """Run a script, in a shell, for what happens in the cluster, as Serf's agents do: member-join,user:deploy=SCRIPT,
    or SCRIPT alone for everything. There are member-join, member-leave, member-failed, member-update, member-reap,
    user, user:NAME, query and query:NAME. Repeatable; in the variable, each on a line of its own."""

    event_handler_timeout: Annotated[float, TIME, between(0.1, 86_400)] = 60.0
    """How long a script of --event-handler may run; then it is killed."""

    insecure: Annotated[bool, FLAG] = False
    """Allow a --bind-addr beyond loopback without TLS or without a gossip key: any program that reaches the ports can
    then read and write the log, or join the cluster. Likewise a --serf-rpc-addr without a key."""

    cluster_name: Annotated[str, NAME] = "proglog"
    """The cluster that the node belongs to. Kept in the data directory, which opens under no other name."""

    cluster_size: Annotated[int | None, between(1, 10_000), Parameter(metavar="N")] = None
    """How many nodes the cluster is meant to have. A produce can ask for a majority, which is more than half of it;
    without it, such a produce is refused."""

    acknowledgement_timeout: Annotated[float, TIME, between(0.001, 300)] = 5.0
    """How long a produce that asks for several nodes waits for the others, unless it says so itself; what they have by
    then is its answer."""

    segment_bytes: Annotated[int, SIZE, between(64 * KIBIBYTE, 4 * GIBIBYTE), shown_as("64MiB")] = 64 * MEBIBYTE
    """The size at which the log goes on in a new file. Retention drops whole files."""

    retention_bytes: Annotated[int | None, SIZE, between(64 * KIBIBYTE)] = None
    """Drop the oldest files of the log while it is larger than this. Without it, size drops nothing."""

    retention_age: Annotated[float | None, TIME, between(1)] = None
    """Drop files of the log when the node has run for this time since their newest record was stored: seconds, or 15m,
    12h, 7d. Without it, age drops nothing."""

    disk_reserve: Annotated[int, SIZE, between(0), shown_as("256MiB")] = 256 * MEBIBYTE
    """Take no records while less than this is free on the disk of --data-dir, and take them again when there is room;
    what is held is served meanwhile. 0: fill the disk."""

    origin_retention: Annotated[float, TIME, between(60), shown_as("30d")] = 30 * 86_400.0
    """Forget an origin (a run of a node) of which retention has left nothing in any log when this node has run for so
    long since. A node that was away for longer than this may bring its records back."""

    max_message_bytes: Annotated[int, SIZE, between(128 * KIBIBYTE, LARGEST_MESSAGE_BYTES), shown_as("4MiB")] = (
        4 * MEBIBYTE
    )
    """The largest message that the node takes from a client. Foreign clients may have to raise their own limit to read
    what was written with a larger one."""

    log_level: LogLevel = "info"
    """The least serious event that is logged, to standard error."""

    log_format: LogFormat = "auto"
    """How events are written: auto is console on a terminal and json otherwise."""

    config_file: Annotated[Path | None, FILE] = None
    """A TOML file whose keys are these options, without the dashes in front."""

    def __attrs_post_init__(self) -> None:
        for name, parameter in parameters().items():
            # always a tuple, whatever it was made with
            for validator in cast("tuple[Any, ...]", parameter.validator):
                try:
                    validator(object, getattr(self, name))
                except ValueError as error:
                    raise ValueError(f"{flag_name(name)}: {error}") from None
        problem = _security_problem(self)
        if problem is not None:
            raise ConfigError(problem)
        if len(self.event_handler) > MAX_EVENT_HANDLERS:
            raise ConfigError(f"--event-handler: {len(self.event_handler)} are more than {MAX_EVENT_HANDLERS}")
        if self.bind_addr.is_wildcard and self.advertise_addr is None:
            raise ConfigError(
                f"--bind-addr {self.bind_addr} is no address that others can dial: say which is, with --advertise-addr"
            )
        if self.dns_addr is not None:
            from proglog_trio.dns import zone_problem

            problem = zone_problem(self.cluster_name)
            if problem is not None:
                raise ConfigError(
                    f"--dns-addr serves names that end with that of the cluster, and {self.cluster_name!r} {problem}: "
                    "choose another --cluster-name, or do without"
                )
        if self.learns_host and self.bind_addr.is_wildcard and not self.start_join_addrs:
            raise ConfigError(
                f"--advertise-addr {LEARNT} is learnt from members: say with --start-join-addrs where they are"
            )
        self.profile()  # raises where the figures do not go together
        if self.tag:
            _check_tags(self.tag)

    def profile(self) -> "GossipProfile":
        """Return the timing of gossip. Raises ConfigError: its figures do not go together."""
        from proglog_trio.membership import GossipProfile, ProfileName

        named = GossipProfile.named(ProfileName(self.gossip_profile))
        try:
            return attrs.evolve(named, **cast("dict[str, Any]", dict(self.gossip_settings)))
        except ValueError as error:
            raise ConfigError(f"--gossip-settings: {error}") from None

    @property
    def learns_host(self) -> bool:
        """Whether the host that others are told is learnt from members."""
        return self.advertise_addr is not None and self.advertise_addr.host == LEARNT

    @property
    def rpc_bind_address(self) -> Address:
        """Where the node listens for RPC."""
        return Address(self.bind_addr.host, self.rpc_port)

    def rpc_address(self, port: int, learnt_host: str = "") -> Address:
        """Return what others dial to reach the node.

        Args:
            port: the one that it listens on.
            learnt_host: where others see it, if that is learnt.
        """
        told = self.advertise_rpc_addr
        if told is None:
            return Address(learnt_host if self.learns_host else (self.advertise_addr or self.bind_addr).host, port)
        return Address(told.host, told.port or port)


def flag_name(field: str) -> str:
    """Name the flag of a field of NodeConfig."""
    return "--" + field.replace("_", "-")


def parameters() -> Mapping[str, Parameter]:
    """Return how each field of NodeConfig is read and checked, by its name."""
    hints = get_type_hints(NodeConfig, include_extras=True)
    return {name: Parameter.combine(*getattr(hint, "__metadata__", ())) for name, hint in hints.items()}


def _check_tags(tags: tuple[tuple[str, str], ...]) -> None:
    """Raise ConfigError where tags are the node's own, or one is given twice."""
    from proglog_trio.node.tags import OWN_TAG_NAMES

    names = [name for name, _ in tags]
    for name in names:
        if name in OWN_TAG_NAMES:
            raise ConfigError(f"--tag {name}=…: the node gives itself the tag {name}, it cannot be another")
        if names.count(name) > 1:
            raise ConfigError(f"--tag {name}=… is given more than once, and a tag has one value")


def _security_problem(config: NodeConfig) -> str | None:
    """Return what is wrong with the options for TLS, access and gossip keys, in one line; None: nothing.

    No file is read: what is in them is checked when the node starts.
    """
    for name in ("server_tls", "peer_tls"):
        flag = flag_name(name)
        certificate, key = getattr(config, f"{name}_cert_file"), getattr(config, f"{name}_key_file")
        if (certificate is None) != (key is None):
            return f"{flag}-cert-file and {flag}-key-file go together: give both, or none"
    if config.server_tls_ca_file is not None and config.server_tls_cert_file is None:
        return "--server-tls-ca-file verifies clients of a node that has TLS: give --server-tls-cert-file as well"
    if config.acl_model_file is not None and config.acl_policy_file is None:
        return "--acl-model-file is the model of a policy: give --acl-policy-file as well"
    if config.acl_policy_file is not None and config.server_tls_ca_file is None:
        return "--acl-policy-file is about clients with certificates: give --server-tls-ca-file as well"
    has_key = config.encrypt is not None or config.keyring_file is not None
    if not has_key and (config.no_verify_incoming or config.no_verify_outgoing):
        return "--no-verify-incoming and --no-verify-outgoing are about a gossip key: give --encrypt or --keyring-file"
    if config.no_verify_outgoing and not config.no_verify_incoming:
        return "--no-verify-outgoing has the node send plain gossip: give --no-verify-incoming too, for what it is sent"
    if config.serf_rpc_auth_key is not None and config.serf_rpc_addr is None:
        return "--serf-rpc-auth-key is for clients of --serf-rpc-addr: give that as well"
    if config.insecure:
        return None
    agent_rpc = config.serf_rpc_addr
    if isinstance(agent_rpc, Address) and not agent_rpc.is_loopback and config.serf_rpc_auth_key is None:
        return (
            f"--serf-rpc-addr {agent_rpc} can be reached from other machines: give --serf-rpc-auth-key, or say "
            "--insecure to do without"
        )
    if config.bind_addr.is_loopback:
        return None
    missing = []
    if config.server_tls_cert_file is None:
        missing.append("--server-tls-cert-file and --server-tls-key-file")
    if not has_key:
        missing.append("--encrypt or --keyring-file")
    if config.no_verify_incoming:
        return (
            f"--bind-addr {config.bind_addr} can be reached from other machines, and with --no-verify-incoming the "
            "gossip key keeps nobody out: say --insecure for as long as that lasts"
        )
    if missing:
        return (
            f"--bind-addr {config.bind_addr} can be reached from other machines: give {', and '.join(missing)}, or "
            "say --insecure to do without"
        )
    return None
