import json
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import attrs
import pytest
from cyclopts import App, CycloptsError

from proglog_trio.address import Address, ServiceName
from proglog_trio.cli.node import app as node_app
from proglog_trio.membership.event_handlers.event_handlers import MAX_HANDLERS
from proglog_trio.node.config import MAX_EVENT_HANDLERS, ConfigError, NodeConfig, flag_name
from proglog_trio.node.option_types import ENVIRONMENT_PREFIX
from proglog_trio.node.parts_config import gossip_config
from proglog_trio.units import GIBIBYTE, KIBIBYTE, MEBIBYTE
from tests.node.parsing import parse, write

# every option, a value for it as text, and what that is in NodeConfig
SAMPLES: dict[str, tuple[str, Any]] = {
    "data_dir": ("/var/lib/log", Path("/var/lib/log")),
    "node_name": ("node-3", "node-3"),
    "bind_addr": ("[::1]:9000", Address("::1", 9000)),
    "rpc_port": ("0", 0),
    "advertise_addr": ("node-3.example", Address("node-3.example", 0)),
    "advertise_rpc_addr": ("[2001:db8::1]:18400", Address("2001:db8::1", 18400)),
    "start_join_addrs": ("10.0.0.1, [::1]:9", (Address("10.0.0.1", 8401), Address("::1", 9))),
    "name_servers": ("127.0.0.1:8600,[::1]", (Address("127.0.0.1", 8600), Address("::1", 53))),
    "gossip_profile": ("wan", "wan"),
    "gossip_settings": ("probe-interval=3s,gossip_nodes=4", (("probe_interval", 3.0), ("gossip_nodes", 4))),
    "gossip_label": ("orders-eu", "orders-eu"),
    "user_event_size_limit": ("9KiB", 9 * KIBIBYTE),
    "query_size_limit": ("2KiB", 2 * KIBIBYTE),
    "query_response_size_limit": ("2048", 2 * KIBIBYTE),
    "encrypt": ("AAECAwQFBgcICQoLDA0ODw==", "AAECAwQFBgcICQoLDA0ODw=="),
    "keyring_file": ("keys.json", Path("keys.json")),
    "no_verify_incoming": ("true", True),
    "no_verify_outgoing": ("true", True),
    "gossip_allowed_cidrs": ("10.0.0.0/8,fd00::/8", (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))),
    "server_tls_cert_file": ("server.pem", Path("server.pem")),
    "server_tls_key_file": ("server-key.pem", Path("server-key.pem")),
    "server_tls_ca_file": ("ca.pem", Path("ca.pem")),
    "peer_tls_cert_file": ("peer.pem", Path("peer.pem")),
    "peer_tls_key_file": ("peer-key.pem", Path("peer-key.pem")),
    "peer_tls_ca_file": ("ca.pem", Path("ca.pem")),
    "peer_tls_server_name": ("127.0.0.1", "127.0.0.1"),
    "acl_model_file": ("model.conf", Path("model.conf")),
    "acl_policy_file": ("policy.csv", Path("policy.csv")),
    "metrics_addr": ("127.0.0.1:0", Address("127.0.0.1", 0)),
    "tag": ("role=web,note=a,b", (("role", "web"), ("note", "a,b"))),
    "dns_addr": ("127.0.0.1:0", Address("127.0.0.1", 0)),
    "dns_ttl": ("2m", 120),
    "serf_rpc_addr": ("127.0.0.1", Address("127.0.0.1", 7373)),
    "serf_rpc_auth_key": ("a secret", "a secret"),
    "event_handler": ("member-join,user:a=run --x=1,2", ("member-join,user:a=run --x=1,2",)),
    "event_handler_timeout": ("5s", 5.0),
    "leave_timeout": ("1m", 60.0),
    "start_timeout": ("2m", 120.0),
    "no_leave_on_terminate": ("true", True),
    "rejoin_after_leave": ("false", False),
    "insecure": ("true", True),
    "cluster_name": ("blue", "blue"),
    "cluster_size": ("5", 5),
    "acknowledgement_timeout": ("2s", 2.0),
    "disk_reserve": ("1GiB", GIBIBYTE),
    "origin_retention": ("30d", 30 * 86400.0),
    "segment_bytes": ("1MiB", MEBIBYTE),
    "retention_bytes": ("10GiB", 10 * GIBIBYTE),
    "retention_age": ("7d", 7 * 86400.0),
    "max_message_bytes": ("1048576", MEBIBYTE),
    "log_level": ("debug", "debug"),
    "log_format": ("json", "json"),
}

SERVER_TLS = ("--server-tls-cert-file=server.pem", "--server-tls-key-file=server-key.pem")
ACCESS = ("--server-tls-ca-file=ca.pem", "--acl-model-file=model.conf", "--acl-policy-file=policy.csv")
# what has to be given with an option for it to be allowed
COMPANIONS = {
    "server_tls_cert_file": SERVER_TLS[1:],
    "server_tls_key_file": SERVER_TLS[:1],
    "server_tls_ca_file": SERVER_TLS,
    "no_verify_incoming": ("--encrypt=AAECAwQFBgcICQoLDA0ODw==",),
    "no_verify_outgoing": ("--encrypt=AAECAwQFBgcICQoLDA0ODw==", "--no-verify-incoming"),
    "peer_tls_cert_file": ("--peer-tls-key-file=peer-key.pem",),
    "peer_tls_key_file": ("--peer-tls-cert-file=peer.pem",),
    "acl_model_file": (*SERVER_TLS, ACCESS[0], ACCESS[2]),
    "acl_policy_file": (*SERVER_TLS, ACCESS[0]),
    "serf_rpc_auth_key": ("--serf-rpc-addr=127.0.0.1:0",),
}


def test_samples_are_complete() -> None:
    assert {field.name for field in attrs.fields(NodeConfig)} == {*SAMPLES, "config_file"}


@pytest.mark.parametrize("name", SAMPLES)
def test_flag_sets_the_option(name: str) -> None:
    text, value = SAMPLES[name]
    assert getattr(parse(f"{flag_name(name)}={text}", *COMPANIONS.get(name, ())), name) == value


@pytest.mark.parametrize("name", SAMPLES)
def test_variable_sets_the_option(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, value = SAMPLES[name]
    monkeypatch.setenv(ENVIRONMENT_PREFIX + name.upper(), text)
    assert getattr(parse(*COMPANIONS.get(name, ())), name) == value


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("spelling", ["dashes", "underscores"])
def test_file_sets_the_option(name: str, spelling: str, tmp_path: Path) -> None:
    text, value = SAMPLES[name]
    key = name.replace("_", "-") if spelling == "dashes" else name
    bare = {
        "rpc_port", "cluster_size", "insecure", "no_leave_on_terminate", "rejoin_after_leave", "max_message_bytes",
        "no_verify_incoming", "no_verify_outgoing",
    }  # fmt: skip
    written = text if name in bare else f'"{text}"'
    file = write(tmp_path, f"{key} = {written}\n")
    assert getattr(parse("--config-file", file, *COMPANIONS.get(name, ())), name) == value


@pytest.fixture(scope="module")
def documented() -> str:
    """What is said about the options, which takes a while to put together."""
    root = App(name="proglog-trio")
    root.command(node_app)
    return root.generate_docs(output_format="markdown")


@pytest.mark.parametrize("name", SAMPLES)
def test_help_names_flag_and_variable(name: str, documented: str) -> None:
    assert flag_name(name) in documented
    assert ENVIRONMENT_PREFIX + name.upper() in documented


def test_every_option_has_help() -> None:
    arguments = node_app.assemble_argument_collection(parse_docstring=True)
    without = [argument.name for argument in arguments if not argument.parameter.help]
    assert without == ["*"], "the options as a whole, which stand for themselves"


def test_start_addresses_are_repeatable_and_an_array_in_the_file(tmp_path: Path) -> None:
    wanted = (Address("a", 1), Address("b", 8401))
    assert parse("--start-join-addrs", "a:1", "--start-join-addrs", "b").start_join_addrs == wanted
    assert parse("--config-file", write(tmp_path, 'start-join-addrs = ["a:1", "b"]\n')).start_join_addrs == wanted


def test_gossip_settings_change_the_profile() -> None:
    profile = parse("--gossip-profile", "local", "--gossip-settings", "probe-interval=2s").profile()
    assert (profile.probe_interval, profile.probe_timeout) == (2.0, 0.2)


def test_gossip_settings_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="must be shorter than probe_interval"):
        parse("--gossip-settings", "probe-timeout=2")


def test_event_handlers_are_repeatable_and_an_array_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ("user:a,query=one", "two")
    assert parse("--event-handler", wanted[0], "--event-handler", wanted[1]).event_handler == wanted
    file = write(tmp_path, f"event-handler = {json.dumps(wanted)}\n")
    assert parse("--config-file", file).event_handler == wanted
    monkeypatch.setenv("PROGLOG_EVENT_HANDLER", "\n".join(wanted))
    assert parse().event_handler == wanted


def test_a_script_of_several_lines_is_one_event_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ("user:deploy=cd /srv\n./deploy", "member-join=date\n./join")
    assert parse("--event-handler", wanted[0], "--event-handler", wanted[1]).event_handler == wanted
    file = write(tmp_path, f"event-handler = {json.dumps(wanted)}\n")
    assert parse("--config-file", file).event_handler == wanted
    monkeypatch.setenv("PROGLOG_EVENT_HANDLER", wanted[0])
    assert parse().event_handler == ("user:deploy=cd /srv", "./deploy")


def test_event_handlers_are_bounded_in_number() -> None:
    assert MAX_EVENT_HANDLERS == MAX_HANDLERS
    with pytest.raises(ConfigError, match="65 are more than 64"):
        NodeConfig(event_handler=("true",) * 65)


def test_the_agents_rpc_may_be_on_a_unix_socket() -> None:
    assert parse("--serf-rpc-addr", "unix:/run/serf.sock").serf_rpc_addr == Path("/run/serf.sock")


def test_the_agents_rpc_beyond_this_machine_wants_a_key() -> None:
    reachable = Address("10.0.0.1", 7373)
    with pytest.raises(ConfigError, match="give --serf-rpc-auth-key, or say --insecure"):
        NodeConfig(serf_rpc_addr=reachable)
    assert NodeConfig(serf_rpc_addr=reachable, serf_rpc_auth_key="k").serf_rpc_addr == reachable
    assert NodeConfig(serf_rpc_addr=reachable, insecure=True).serf_rpc_addr == reachable


def test_the_key_of_the_agents_rpc_is_not_shown() -> None:
    assert "sesame" not in repr(parse("--serf-rpc-addr", "127.0.0.1:0", "--serf-rpc-auth-key", "sesame"))
    with pytest.raises(CycloptsError, match="A key is 1 to 512 bytes"):
        parse("--serf-rpc-addr", "127.0.0.1:0", "--serf-rpc-auth-key", "x" * 513)


@pytest.mark.parametrize(
    ("option", "text", "problem"),
    [
        ("--serf-rpc-addr", "unix:", "no path"),
        ("--serf-rpc-addr", f"unix:/{'x' * 107}", "too long"),
        ("--serf-rpc-addr", "a b", "a b"),
        ("--event-handler", "nonsense=x", "no kind of event"),
        ("--event-handler", "user=", "no script"),
    ],
)
def test_what_is_no_address_or_handler_is_refused(option: str, text: str, problem: str) -> None:
    with pytest.raises(CycloptsError, match=problem):
        parse(option, text)


def test_the_gossip_key_is_not_shown() -> None:
    assert "AAECAw" not in repr(parse("--encrypt", "AAECAwQFBgcICQoLDA0ODw=="))


def test_defaults_are_a_single_node_on_loopback() -> None:
    config = parse()
    assert config == NodeConfig()
    assert config.rpc_bind_address == Address("127.0.0.1", 8400)
    assert config.bind_addr.is_loopback
    assert config.data_dir == Path("proglog-data")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rpc-prot", "1"], "Unknown option: --rpc-prot. Did you mean --rpc-port?"),
        (["--no-insecure"], "Unknown option: --no-insecure"),
        (["--start-join-addrs", "a:b"], "has no valid port"),
        (["--gossip-settings", "prob-interval=1"], "Did you mean 'probe-interval'?"),
        (["--gossip-settings", "gossip-nodes=1.5"], "whole number"),
        (["--gossip-profile", "moon"], "--gossip-profile"),
        (["--gossip-label", "x" * 256], "1 to 255 bytes"),
        (["--gossip-label", ""], "1 to 255 bytes"),
        (["--encrypt", "c2hvcnQ="], "16, 24 or 32 bytes in base64"),
        (["--rpc-port", "http"], "--rpc-port: unable to convert"),
        (["--rpc-port", "65536"], "--rpc-port. Must be at most 65535"),
        (["--rpc-port", "-1"], "--rpc-port"),
        (["--rpc-port"], "--rpc-port requires an argument"),
        (["--rpc-port", "1", "--rpc-port", "2"], "--rpc-port specified multiple times"),
        (["--bind-addr", "::1"], "--bind-addr: '::1' has an IPv6 address without brackets"),
        (["--bind-addr", "localhost:http"], "--bind-addr: 'localhost:http' has no valid port"),
        (["--advertise-addr", "host/x"], "--advertise-addr: 'host/x' has '/' in it"),
        (["--advertise-addr", "host:0"], "--advertise-addr: 'host:0' has port 0, which nobody can dial"),
        (["--advertise-rpc-addr", "0.0.0.0:1"], "--advertise-rpc-addr: '0.0.0.0:1' is no address that others can dial"),
        (["--start-join-addrs", "a;b"], "--start-join-addrs: 'a;b' has a semicolon in it"),
        (["--peer-tls-server-name", "a..b"], "without brackets. 'a..b' has a dot too many"),
        (["--node-name", "\udcff"], "A name is 1 to 128 bytes of printable text"),
        (["--gossip-label", "\udcff"], "1 to 255 bytes of printable text"),
        (["--node-name", ""], "--node-name. A name is 1 to 128 bytes"),
        (["--cluster-name", "x" * 129], "--cluster-name. A name is 1 to 128 bytes"),
        (["--cluster-size", "0"], "--cluster-size. Must be at least 1"),
        (["--segment-bytes", "64 MB!"], "--segment-bytes: '64 MB!' is not a number of bytes"),
        (["--segment-bytes", "1"], "--segment-bytes. Must be at least 65536"),
        (["--retention-age", "a week"], "--retention-age: 'a week' is not a length of time"),
        (["--max-message-bytes", "1TB"], "--max-message-bytes. Must be at most"),
        (["--log-level", "loud"], '--log-level. Choose from: "debug"'),
    ],
)
def test_bad_flag(arguments: list[str], message: str) -> None:
    with pytest.raises(CycloptsError, match=re.escape(message)):
        parse(*arguments)


TLS = {"server_tls_cert_file": Path("server.pem"), "server_tls_key_file": Path("server-key.pem")}
KEY = "AAECAwQFBgcICQoLDA0ODw=="


def test_beyond_loopback_needs_tls_and_a_key_or_must_be_said() -> None:
    beyond = Address("10.0.0.1", 8401)
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "give --server-tls-cert-file and --server-tls-key-file, and --encrypt or --keyring-file, or"),
        ({"encrypt": KEY}, "give --server-tls-cert-file and --server-tls-key-file, or say --insecure"),
        (TLS, "give --encrypt or --keyring-file, or say --insecure"),
    ]
    for options, missing in cases:
        with pytest.raises(ConfigError, match=missing):
            NodeConfig(bind_addr=beyond, **options)
    enough: list[dict[str, Any]] = [{**TLS, "encrypt": KEY}, {**TLS, "keyring_file": Path("k")}, {"insecure": True}]
    for options in enough:
        assert NodeConfig(bind_addr=beyond, **options).bind_addr == beyond
    assert NodeConfig(bind_addr=Address("10.0.0.1", 8401), insecure=True).rpc_address(1) == Address("10.0.0.1", 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"server_tls_cert_file": Path("a")}, "--server-tls-cert-file and --server-tls-key-file go together"),
        ({"peer_tls_key_file": Path("a")}, "--peer-tls-cert-file and --peer-tls-key-file go together"),
        ({"server_tls_ca_file": Path("a")}, "give --server-tls-cert-file as well"),
        ({"acl_model_file": Path("a")}, "--acl-model-file is the model of a policy"),
        ({"acl_policy_file": Path("b"), **TLS}, "give --server-tls-ca-file as well"),
        ({"no_verify_incoming": True}, "are about a gossip key"),
        ({"no_verify_outgoing": True, "encrypt": KEY}, "give --no-verify-incoming too"),
        (
            {"bind_addr": Address("10.0.0.1", 1), "encrypt": KEY, "no_verify_incoming": True, **TLS},
            "the gossip key keeps nobody out: say --insecure",
        ),
        (
            {"bind_addr": Address("::", 1), "insecure": True, "advertise_addr": Address("auto", 0)},
            "--advertise-addr auto is learnt from members: say with --start-join-addrs",
        ),
    ],
)
def test_what_does_not_go_together(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NodeConfig(**given)


def test_space_around_a_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = "AAECAwQFBgcICQoLDA0ODw=="
    assert parse("--encrypt", f" {key} ").encrypt == key
    assert parse("--config-file", write(tmp_path, f'encrypt = """{key}\r\n"""')).encrypt == key
    monkeypatch.setenv("PROGLOG_ENCRYPT", f"{key}\n")
    assert parse().encrypt == key


def test_wildcard_needs_an_address_to_dial() -> None:
    wildcard = Address("0.0.0.0", 8401)  # noqa: S104 (never listened on)
    with pytest.raises(ConfigError, match="--advertise-addr"):
        NodeConfig(bind_addr=wildcard, insecure=True)
    config = NodeConfig(bind_addr=wildcard, insecure=True, advertise_addr=Address("node-3.example", 0))
    assert config.rpc_address(8400) == Address("node-3.example", 8400)


def test_what_others_dial() -> None:
    gossip = parse("--advertise-addr", "proxy.example:18401")
    assert gossip.rpc_address(8400) == Address("proxy.example", 8400)
    both = parse("--advertise-addr", "proxy.example:18401", "--advertise-rpc-addr", "other.example:18400")
    assert both.rpc_address(8400) == Address("other.example", 18400)
    assert parse("--advertise-rpc-addr", "[2001:db8::1]").rpc_address(8400) == Address("2001:db8::1", 8400)


def test_the_host_may_be_learnt_and_the_port_told() -> None:
    join = ("--start-join-addrs", "10.0.0.1", "--insecure")
    config = parse("--bind-addr=0.0.0.0:1", "--advertise-addr=auto", *join)
    assert config.learns_host
    assert config.rpc_address(8400, "192.0.2.1") == Address("192.0.2.1", 8400)
    told = gossip_config(parse("--advertise-addr=auto:18401", *join), None)
    assert (told.learn_host, told.advertise_host, told.advertise_port) == (True, None, 18401)


@pytest.mark.parametrize("text", ["srv+_gossip._tcp.example.org", "_gossip._tcp.example.org", "srv+members.consul"])
def test_a_start_address_may_be_a_name_with_srv_records(text: str) -> None:
    wanted = (ServiceName(text.removeprefix("srv+")), Address("b", 8401))
    assert parse("--start-join-addrs", f"{text},b").start_join_addrs == wanted


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("--start-join-addrs", "srv+_gossip._tcp.example.org:8401", "has a port, which the SRV records of a name say"),
        ("--start-join-addrs", "srv+10.0.0.1", "an IP address"),
        ("--start-join-addrs", "srv+", "is no name with SRV records"),
        ("--gossip-allowed-cidrs", "10.0.0.1/8", "which is 10.0.0.0/8"),
        ("--gossip-allowed-cidrs", "10.0.0.0/33", "is no network, write it like"),
        ("--name-servers", "ns.example.org", "is no IP address"),
    ],
)
def test_what_is_no_place_is_named(option: str, text: str, message: str) -> None:
    with pytest.raises(CycloptsError, match=re.escape(message)):
        parse(option, text)


def test_more_networks_than_are_looked_at() -> None:
    networks = ",".join(f"10.{number}.0.0/16" for number in range(256))
    assert len(parse("--gossip-allowed-cidrs", networks).gossip_allowed_cidrs) == 256
    with pytest.raises(CycloptsError, match="257 networks are more than 256"):
        parse("--gossip-allowed-cidrs", f"{networks},fd00::/8")


def test_values_are_checked_without_a_command_line_too() -> None:
    with pytest.raises(ValueError, match="--cluster-size: Must be at least 1"):
        NodeConfig(cluster_size=0)
