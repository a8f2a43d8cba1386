"""What a node can be told, defined once.

Each field of `NodeConfig` is a flag (``--data-dir``), an environment variable (``PROGLOG_DATA_DIR``), a key of the
configuration file (``data-dir``) and a line of the reference documentation. A flag wins over the environment, the
environment over the file, the file over the default.
"""

import base64
import binascii
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_type_hints

import attrs
from cyclopts import App, CycloptsError, Parameter, Token
from cyclopts.argument import ArgumentCollection
from cyclopts.config import Dict, Env

from proglog_trio.address import Address
from proglog_trio.host_names import host_problem
from proglog_trio.node.config_checks import security_problem

if TYPE_CHECKING:
    from proglog_trio.membership import GossipProfile

ENVIRONMENT_PREFIX = "PROGLOG_"
DEFAULT_RPC_PORT = 8400
DEFAULT_GOSSIP_PORT = 8401
DEFAULT_BIND_ADDRESS = Address("127.0.0.1", DEFAULT_GOSSIP_PORT)

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
GIBIBYTE = 1024 * MEBIBYTE
LARGEST_MESSAGE_BYTES = 64 * MEBIBYTE

GossipProfileName = Literal["lan", "local", "wan"]
LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


class ConfigError(ValueError):
    """Options that are each valid but do not go together. The message is one line and names them."""


def parse_bytes(text: str) -> int:
    """Read a number of bytes: ``1048576``, ``64MiB``, ``1.5GiB``, ``10GB``. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kKMGT])(i?)B?|B)?", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a number of bytes, such as 1048576, 64MiB or 10GB")
    from fractions import Fraction  # late: a node is seldom told a number of bytes

    number, unit, binary = match.groups()
    exponent = "kmgt".index(unit.lower()) + 1 if unit else 0
    scaled = Fraction(number) * (1024 if binary else 1000) ** exponent
    if scaled.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(scaled)


_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_seconds(text: str) -> float:
    """Read a length of time: ``90`` (seconds), ``90s``, ``15m``, ``12h``, ``7d``, ``2w``. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a length of time, such as 90 (seconds), 15m, 12h or 7d")
    return float(match[1]) * _SECONDS[match[2]]


def _converter(parse: Callable[[str], Any]) -> Callable[[type, Sequence[Token]], Any]:
    def convert(_type: type, tokens: Sequence[Token]) -> Any:  # noqa: ANN401 (cyclopts hands on whatever it is)
        return parse(tokens[0].value)

    return convert


def _between(lowest: float, highest: float | None = None) -> Callable[[type, Any], None]:
    def check(_type: type, value: float | None) -> None:
        if value is None:
            return
        if value < lowest:
            raise ValueError(f"Must be at least {lowest}.")
        if highest is not None and value > highest:
            raise ValueError(f"Must be at most {highest}.")

    return check


# gossip carries names in length-prefixed msgpack tags within one datagram; a name has to leave room for the rest
_NAME_BYTES = 128
# its length is one byte before every packet
_LABEL_BYTES = 255


def check_name(_type: type, value: str | None) -> None:
    """Refuse what is no name of a node or of a cluster (a validator of cyclopts)."""
    if value is None:
        return
    if not value or not value.isprintable() or len(value.encode()) > _NAME_BYTES or value != value.strip():
        raise ValueError(f"A name is 1 to {_NAME_BYTES} bytes of printable text without spaces at its ends.")


def _check_label(_type: type, value: str | None) -> None:
    if value is not None and not (value.isprintable() and 0 < len(value.encode()) <= _LABEL_BYTES):
        raise ValueError(f"A label is 1 to {_LABEL_BYTES} bytes of printable text.")


def check_host(_type: type, value: str | None) -> None:
    """Refuse what is no host (a validator of cyclopts)."""
    if value is None:
        return
    problem = host_problem(value.removeprefix("*."))
    if not value or problem is not None:
        why = f" {value!r} {problem}." if problem else ""
        raise ValueError(f"A host is a name or an IP address, without a port and without brackets.{why}")


def _advertised(_type: type, tokens: Sequence[Token]) -> Address:
    """Read ``HOST[:PORT]``; without a port it has port 0, which stands for the one that the node listens on."""
    text = tokens[0].value
    address = Address.parse(text, default_port=0)
    if address.port == 0 and text.strip() not in (address.host, f"[{address.host}]"):
        raise ValueError(
            f"{text!r} has port 0, which nobody can dial: leave it out for the one that the node listens on"
        )
    if address.is_wildcard:
        raise ValueError(f"{text!r} is no address that others can dial: it stands for all of a machine's")
    return address


def _advertisement(*, default: str, help: str) -> Parameter:  # noqa: A002 - as Parameter has it
    return Parameter(
        converter=_advertised,
        accepts_keys=False,
        n_tokens=1,
        metavar="HOST[:PORT]",
        show_default=lambda _value: default,
        help=help,
    )


def _addresses(_type: type, tokens: Sequence[Token]) -> tuple[Address, ...]:
    texts = [text.strip() for token in tokens for text in token.value.split(",")]
    return tuple(Address.parse(text, default_port=DEFAULT_GOSSIP_PORT) for text in texts if text)


def _gossip_settings(_type: type, tokens: Sequence[Token]) -> tuple[tuple[str, float], ...]:
    from proglog_trio.membership import GossipProfile

    figures = {attribute.name: attribute for attribute in attrs.fields(GossipProfile)}
    settings = []
    for text in (part.strip() for token in tokens for part in token.value.split(",")):
        if not text:
            continue
        name, separator, value = text.partition("=")
        known = figures.get(name.strip().replace("-", "_"))
        if not separator or known is None:
            raise ValueError(f"{text!r} is no figure of the gossip profile.{_nearest(name, figures)}")
        number = parse_seconds(value)
        if known.type in (int, "int"):
            if number != int(number):
                raise ValueError(f"{text!r}: {name} is a whole number.")
            number = int(number)
        settings.append((known.name, number))
    return tuple(settings)


def _check_gossip_key(_type: type, value: str | None) -> None:
    if value is None:
        return
    try:
        length = len(base64.b64decode(value.strip(), validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("A gossip key is 16, 24 or 32 bytes in base64; this is no base64 text.") from None
    if length not in (16, 24, 32):
        raise ValueError(f"A gossip key is 16, 24 or 32 bytes in base64; this is {length} bytes.")


SECRET_OPTIONS = frozenset({"--encrypt"})
"""Options whose values are shown nowhere, in no error either."""


def flag(meaning: str) -> Parameter:
    """Return what makes a bool an option that is given or not: no ``--no-…``, no value, no default to show."""
    return Parameter(negative="", show_default=False, help=meaning)


@attrs.frozen(kw_only=True)
class NodeConfig:
    """What a node is told. Raises ConfigError for values that do not go together, ValueError for a bad value."""

    data_dir: Annotated[
        Path,
        Parameter(
            show_default=lambda value: f"./{value}",
            help="Where the log is kept. Made when it does not exist; one node at a time can have it open.",
        ),
    ] = Path("proglog-data")
    node_name: Annotated[
        str,
        Parameter(
            help="What this node is called; unique in its cluster.",
            validator=check_name,
            show_default=lambda _value: "the host's name",
        ),
    ] = attrs.field(factory=socket.gethostname)
    bind_addr: Annotated[
        Address,
        Parameter(
            converter=_converter(lambda text: Address.parse(text, default_port=DEFAULT_GOSSIP_PORT)),
            accepts_keys=False,
            n_tokens=1,
            metavar="HOST:PORT",
            help="Where the node listens for gossip, UDP and TCP; port 0 takes any that is free for both. The host is "
            "used for RPC too.",
        ),
    ] = DEFAULT_BIND_ADDRESS
    rpc_port: Annotated[
        int,
        Parameter(validator=_between(0, 65535), metavar="PORT", help="The port for RPC; 0 takes any free one."),
    ] = DEFAULT_RPC_PORT
    advertise_addr: Annotated[
        Address | None,
        _advertisement(
            default="that of --bind-addr",
            help="Where others send gossip to reach this node, where it is not --bind-addr (behind address "
            "translation, or when bound to 0.0.0.0): the host, and the port if it is another. The host is that of RPC "
            "too.",
        ),
    ] = None
    advertise_rpc_addr: Annotated[
        Address | None,
        _advertisement(
            default="the host of --advertise-addr, or else of --bind-addr",
            help="Where clients and other nodes dial this node's RPC, if it is not there, or not at --rpc-port.",
        ),
    ] = None
    start_join_addrs: Annotated[
        tuple[Address, ...],
        Parameter(
            converter=_addresses,
            accepts_keys=False,
            n_tokens=1,
            json_list=False,
            negative="",
            metavar="HOST:PORT",
            show_default=False,
            help="Members of the cluster to join through: where they listen for gossip. Repeatable, or separated by "
            "commas; every address that a name stands for is tried, and again for as long as it is no live member.",
        ),
    ] = ()
    start_timeout: Annotated[
        float,
        Parameter(
            converter=_converter(parse_seconds),
            validator=_between(0, 86_400),
            metavar="TIME",
            help="For how long a start is tried again for what may pass: a port, an address or a data directory that "
            "another process still has, an address that is not on this machine yet, a name that cannot be looked up "
            "yet, a node name that another member has, a full disk. 0: not at all.",
        ),
    ] = 60.0
    gossip_profile: Annotated[
        GossipProfileName,
        Parameter(help="The timing of gossip, for the kind of network that the cluster is on."),
    ] = "lan"
    gossip_settings: Annotated[
        tuple[tuple[str, float], ...],
        Parameter(
            converter=_gossip_settings,
            accepts_keys=False,
            n_tokens=1,
            json_list=False,
            negative="",
            metavar="NAME=VALUE",
            show_default=False,
            help="One figure of the profile, such as probe-interval=2s or gossip-nodes=4. Repeatable, or separated by "
            "commas.",
        ),
    ] = ()
    encrypt: Annotated[
        str | None,
        Parameter(
            # what secrets are kept in ends with a newline more often than not
            converter=_converter(str.strip),
            accepts_keys=False,
            n_tokens=1,
            validator=_check_gossip_key,
            metavar="KEY",
            show_default=False,
            help="Encrypt gossip with this key: 16, 24 or 32 bytes in base64, the same on all members. What is not "
            "encrypted with it is refused. Better given by its variable: others can read command lines.",
        ),
    ] = attrs.field(default=None, repr=False)
    gossip_label: Annotated[
        str | None,
        Parameter(
            validator=_check_label,
            metavar="TEXT",
            show_default=False,
            help="Put this before every packet and stream of gossip (memberlist's label), the same on all members. Of "
            "members with another label, or without one, nothing at all is read: the full wall between clusters that "
            "could reach each other.",
        ),
    ] = None
    leave_timeout: Annotated[
        float,
        Parameter(
            converter=_converter(parse_seconds),
            validator=_between(0),
            metavar="TIME",
            help="How long a node that is told to stop takes to leave its cluster, at most: seconds, or 1m.",
        ),
    ] = 10.0
    no_leave_on_terminate: Annotated[
        bool,
        flag(
            "Stop without leaving the cluster, for a restart: the others take the node for failed until it is back, "
            "instead of having it leave and join."
        ),
    ] = False
    keyring_file: Annotated[
        Path | None,
        Parameter(
            metavar="FILE",
            help="Where the gossip keys are kept: a JSON array of keys in base64, the first of which encrypts and any "
            "of which decrypts. Rotation (the keys command, or serf's) writes it. Made with the key of --encrypt when "
            "it does not exist; when it does, it counts and --encrypt does not.",
        ),
    ] = None
    server_tls_cert_file: Annotated[
        Path | None,
        Parameter(
            metavar="FILE",
            help="The node's certificate (PEM), then those of intermediate authorities. With it, RPC is encrypted: TLS "
            "1.2 or later. Read again on SIGHUP and when it changes, as all files of certificates, keys and policies.",
        ),
    ] = None
    server_tls_key_file: Annotated[
        Path | None, Parameter(metavar="FILE", help="The key of that certificate (PEM), not encrypted.")
    ] = None
    server_tls_ca_file: Annotated[
        Path | None,
        Parameter(
            metavar="FILE",
            help="The authorities (PEM) whose client certificates are accepted, those of other nodes included. With "
            "it, whoever has none of them can only ask whether the node is well.",
        ),
    ] = None
    peer_tls_cert_file: Annotated[
        Path | None, Parameter(metavar="FILE", help="The certificate (PEM) that this node shows to other nodes.")
    ] = None
    peer_tls_key_file: Annotated[
        Path | None, Parameter(metavar="FILE", help="The key of that certificate (PEM), not encrypted.")
    ] = None
    peer_tls_ca_file: Annotated[
        Path | None,
        Parameter(
            metavar="FILE",
            show_default=lambda _value: "that of --server-tls-ca-file",
            help="The authorities (PEM) that signed the certificates of other nodes.",
        ),
    ] = None
    peer_tls_server_name: Annotated[
        str | None,
        Parameter(
            validator=check_host,
            metavar="HOST",
            help="What the certificates of other nodes must be for, where that is not the host that is dialled.",
        ),
    ] = None
    acl_model_file: Annotated[
        Path | None,
        Parameter(
            metavar="FILE",
            show_default=lambda _value: "each rule of the policy is a subject, * and an action",
            help="The casbin model that the policy follows (model.conf).",
        ),
    ] = None
    acl_policy_file: Annotated[
        Path | None,
        Parameter(
            metavar="FILE",
            help="The casbin policy (policy.csv): subjects are the common names of certificates, the object is *, "
            "actions are produce, consume, replicate and admin. Without it, every accepted certificate may do all.",
        ),
    ] = None
    metrics_addr: Annotated[
        Address | None,
        Parameter(
            converter=_converter(Address.parse),
            accepts_keys=False,
            n_tokens=1,
            metavar="HOST:PORT",
            show_default=False,
            help="Serve figures for Prometheus there, over plain HTTP at /metrics, to whoever asks. Port 0 takes any "
            "free one.",
        ),
    ] = None
    insecure: Annotated[
        bool,
        flag(
            "Allow a --bind-addr beyond loopback without TLS or without a gossip key: whoever reaches the ports can "
            "then read and write the log, or join the cluster."
        ),
    ] = False
    cluster_name: Annotated[
        str,
        Parameter(
            validator=check_name,
            help="The cluster that the node belongs to. Kept in the data directory, which opens under no other name.",
        ),
    ] = "proglog"
    cluster_size: Annotated[
        int | None,
        Parameter(
            validator=_between(1, 10_000),
            metavar="N",
            help="How many nodes the cluster is meant to have. A produce can ask for a majority, which is more than "
            "half of it; without it, such a produce is refused.",
        ),
    ] = None
    acknowledgement_timeout: Annotated[
        float,
        Parameter(
            converter=_converter(parse_seconds),
            validator=_between(0.001, 300),
            metavar="TIME",
            help="How long a produce that asks for several nodes waits for the others, unless it says so itself; what "
            "they have by then is its answer.",
        ),
    ] = 5.0
    segment_bytes: Annotated[
        int,
        Parameter(
            converter=_converter(parse_bytes),
            validator=_between(64 * KIBIBYTE, 4 * GIBIBYTE),
            metavar="BYTES",
            show_default=lambda _value: "64MiB",
            help="The size at which the log goes on in a new file. Retention drops whole files.",
        ),
    ] = 64 * MEBIBYTE
    retention_bytes: Annotated[
        int | None,
        Parameter(
            converter=_converter(parse_bytes),
            validator=_between(64 * KIBIBYTE),
            metavar="BYTES",
            help="Drop the oldest files of the log while it is larger than this. Without it, size drops nothing.",
        ),
    ] = None
    retention_age: Annotated[
        float | None,
        Parameter(
            converter=_converter(parse_seconds),
            validator=_between(1),
            metavar="TIME",
            help="Drop files of the log when the node has run for this time since their newest record was stored: "
            "seconds, or 15m, 12h, 7d. Without it, age drops nothing.",
        ),
    ] = None
    disk_reserve: Annotated[
        int,
        Parameter(
            converter=_converter(parse_bytes),
            validator=_between(0),
            metavar="BYTES",
            show_default=lambda _value: "256MiB",
            help="Take no records while less than this is free on the disk of --data-dir, and take them again when "
            "there is room; what is held is served meanwhile. 0: fill the disk.",
        ),
    ] = 256 * MEBIBYTE
    origin_retention: Annotated[
        float,
        Parameter(
            converter=_converter(parse_seconds),
            validator=_between(60),
            metavar="TIME",
            show_default=lambda _value: "30d",
            help="Forget an origin (a run of a node) of which retention has left nothing in any log when this node has "
            "run for so long since. A node that was away for longer than this may bring its records back.",
        ),
    ] = 30 * 86_400.0
    max_message_bytes: Annotated[
        int,
        Parameter(
            converter=_converter(parse_bytes),
            validator=_between(128 * KIBIBYTE, LARGEST_MESSAGE_BYTES),
            metavar="BYTES",
            show_default=lambda _value: "4MiB",
            help="The largest message that the node takes from a client. Foreign clients may have to raise their own "
            "limit to read what was written with a larger one.",
        ),
    ] = 4 * MEBIBYTE
    log_level: Annotated[LogLevel, Parameter(help="The least serious event that is logged, to standard error.")] = (
        "info"
    )
    log_format: Annotated[
        LogFormat,
        Parameter(help="How events are written: auto is console on a terminal and json otherwise."),
    ] = "auto"
    config_file: Annotated[
        Path | None,
        Parameter(metavar="FILE", help="A TOML file whose keys are these options, without the dashes in front."),
    ] = None

    def __attrs_post_init__(self) -> None:
        for name, validators in _validators().items():
            for validator in validators:
                try:
                    validator(object, getattr(self, name))
                except ValueError as error:
                    raise ValueError(f"{flag_name(name)}: {error}") from None
        problem = security_problem(self)
        if problem is not None:
            raise ConfigError(problem)
        if self.bind_addr.is_wildcard and self.advertise_addr is None:
            raise ConfigError(
                f"--bind-addr {self.bind_addr} is no address that others can dial: say which is, with --advertise-addr"
            )

        self.profile()  # raises where the figures do not go together

    def profile(self) -> "GossipProfile":
        """Return the timing of gossip."""
        from proglog_trio.membership import GossipProfile, ProfileName

        named = GossipProfile.named(ProfileName(self.gossip_profile))
        try:
            return attrs.evolve(named, **cast("dict[str, Any]", dict(self.gossip_settings)))
        except ValueError as error:
            raise ConfigError(f"--gossip-settings: {error}") from None

    @property
    def rpc_bind_address(self) -> Address:
        """Where the node listens for RPC."""
        return Address(self.bind_addr.host, self.rpc_port)

    def rpc_address(self, port: int) -> Address:
        """Return what others dial to reach the node, ``port`` being the one that it listens on."""
        told = self.advertise_rpc_addr
        if told is None:
            return Address((self.advertise_addr or self.bind_addr).host, port)
        return Address(told.host, told.port or port)


def flag_name(field: str) -> str:
    """Name the flag of a field of NodeConfig."""
    return "--" + field.replace("_", "-")


def _validators() -> Mapping[str, Sequence[Callable[[type, Any], None]]]:
    found: dict[str, Sequence[Callable[[type, Any], None]]] = {}
    for name, hint in get_type_hints(NodeConfig, include_extras=True).items():
        for extra in getattr(hint, "__metadata__", ()):
            if isinstance(extra, Parameter):
                found[name] = cast("Sequence[Callable[[type, Any], None]]", extra.validator)
    return found


class _NodeEnvironment(Env):
    """The environment, without what Kubernetes puts there for a service that is named like an option."""

    def __call__(self, app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        super().__call__(app, commands, arguments)
        for argument in arguments:
            argument.tokens[:] = [
                token
                for token in argument.tokens
                if token.source != self.source or not _is_of_a_service(token.keyword or "", token.value)
            ]


def environment() -> Env:
    """Return the source that reads ``PROGLOG_…`` variables."""
    return _NodeEnvironment(ENVIRONMENT_PREFIX, command=False)


def _is_of_a_service(variable: str, value: str) -> bool:
    """Tell whether a variable is Kubernetes': all containers get NAME_PORT=tcp://… of each service NAME there is."""
    return variable.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))


def variables_of_services(environ: Mapping[str, str]) -> list[str]:
    """List the variables of options that hold what Kubernetes says of a service, and are passed over."""
    known = {ENVIRONMENT_PREFIX + attribute.name.upper() for attribute in attrs.fields(NodeConfig)}
    return sorted(name for name, value in environ.items() if name in known and _is_of_a_service(name, value))


def unknown_variables(environ: Mapping[str, str], also_known: Sequence[str] = ()) -> list[str]:
    """List the ``PROGLOG_…`` variables that are no option's.

    They are worth a warning and not an error: container platforms make variables of their own from service names.
    """
    known = {ENVIRONMENT_PREFIX + attribute.name.upper() for attribute in attrs.fields(NodeConfig)}
    return sorted(name for name in environ if name.startswith(ENVIRONMENT_PREFIX) and name not in {*known, *also_known})


def config_file_source(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take options from the file that ``--config-file`` or its variable names, if one does (a cyclopts source).

    Raises CycloptsError naming the file and the key: a file that cannot be read, is not TOML, has a key that is no
    option, or a value of another type than the option's.
    """
    paths = [token.value for argument in arguments if argument.name == "--config-file" for token in argument.tokens]
    for path in paths[:1]:
        options = _read_config_file(Path(path))
        Dict(options, use_commands_as_keys=False, source=path)(app, commands, arguments)


def _read_config_file(path: Path) -> dict[str, Any]:
    import tomllib  # late: most nodes have no file, and no command but theirs has one

    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise CycloptsError(msg=f"Configuration file {path}: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise CycloptsError(msg=f"Configuration file {path}: it is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise CycloptsError(msg=f"Configuration file {path}: it is not TOML: {error}.") from None
    fields = {attribute.name: attribute for attribute in attrs.fields(NodeConfig) if attribute.name != "config_file"}
    options: dict[str, tuple[str, Any]] = {}
    for key, value in data.items():
        name = key.replace("-", "_")
        if name not in fields or name in options:
            what = "given twice" if name in options else "no option"
            raise CycloptsError(msg=f"Configuration file {path}: the key {key!r} is {what}.{_nearest(key, fields)}")
        expected = _toml_types(name)
        if name in _REPEATABLE and isinstance(value, list) and all(isinstance(part, str) for part in value):
            value = ",".join(value)
        if type(value) not in expected:
            names = " or ".join(_TOML_NAMES[kind] for kind in expected)
            raise CycloptsError(
                msg=f"Configuration file {path}: the key {key!r} must be {names}, not "
                f"{_TOML_NAMES.get(type(value), 'a date or time')}."
            )
        options[name] = (key, value)
    return dict(options.values())


_REPEATABLE = frozenset({"start_join_addrs", "gossip_settings"})
_TOML_NAMES: Mapping[type, str] = {
    str: "a string",
    int: "an integer",
    float: "a float",
    bool: "a boolean",
    list: "an array",
    dict: "a table",
}


def _toml_types(name: str) -> Sequence[type]:
    """List the TOML types that an option can be written in: sizes and times are numbers, or strings with a unit."""
    annotation = get_type_hints(NodeConfig, include_extras=False)[name]
    members = {kind for kind in (bool, int, float) if annotation == kind or annotation == kind | None}
    if members and name in _with_unit():
        return (int, float, str) if float in members else (int, str)
    return tuple(members) or (str,)


def _with_unit() -> set[str]:
    return {
        name
        for name, hint in get_type_hints(NodeConfig, include_extras=True).items()
        for extra in hint.__metadata__
        if isinstance(extra, Parameter) and extra.converter is not None
    }


def _nearest(key: str, names: Mapping[str, object]) -> str:
    import difflib

    found = difflib.get_close_matches(key.replace("-", "_"), names, n=1)
    return f" Did you mean {found[0].replace('_', '-')!r}?" if found else ""
