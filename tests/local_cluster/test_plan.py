import tomllib
from pathlib import Path

import attrs
import pytest

from proglog_trio.local_cluster.node_process import node_environment
from proglog_trio.local_cluster.plan import NOT_FROM_ENVIRONMENT, ClusterPlan
from proglog_trio.node.config import NodeConfig
from proglog_trio.node.option_types import ENVIRONMENT_PREFIX


def test_ports_begin_with_the_defaults_of_a_node(tmp_path: Path) -> None:
    nodes = ClusterPlan(directory=tmp_path).nodes()
    assert [(node.name, str(node.rpc_address), str(node.gossip_address)) for node in nodes] == [
        ("node-1", "127.0.0.1:8400", "127.0.0.1:8401"),
        ("node-2", "127.0.0.1:8402", "127.0.0.1:8403"),
        ("node-3", "127.0.0.1:8404", "127.0.0.1:8405"),
    ]


def test_free_ports(tmp_path: Path) -> None:
    plan = ClusterPlan(directory=tmp_path, base_port=0)
    nodes = plan.nodes()
    assert {node.rpc_address.port for node in nodes} == {node.gossip_address.port for node in nodes} == {0}
    assert plan.options(nodes[0], nodes)["start-join-addrs"] == []


@pytest.mark.parametrize(
    ("size", "base_port", "message"),
    [(0, 8400, "1 to 16"), (17, 8400, "1 to 16"), (3, 65531, "65531 leaves fewer")],
)
def test_what_cannot_be(size: int, base_port: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ClusterPlan(directory=tmp_path, size=size, base_port=base_port)
    ClusterPlan(directory=tmp_path, size=3, base_port=65530)


def test_configuration_files(tmp_path: Path) -> None:
    directory = tmp_path / 'a "strange" näme\t\U0001f40d'
    directory.mkdir()
    plan = ClusterPlan(directory=directory, cluster_name="c\\1")
    nodes = plan.nodes()
    plan.write_config_files(nodes)
    for node in nodes:
        told = tomllib.loads(node.config_file.read_text("utf-8"))
        assert told == plan.options(node, nodes)
        assert told["data-dir"] == str(node.data_dir)
        assert told["cluster-name"] == "c\\1"
        assert told["start-join-addrs"] == [str(other.gossip_address) for other in nodes if other is not node]


def test_the_environment_cannot_speak_against_the_file() -> None:
    environ = {"PATH": "/bin", "PROGLOG_DATA_DIR": "x", "PROGLOG_CONFIG_FILE": "y", "PROGLOG_SEGMENT_BYTES": "1MiB"}
    assert node_environment(environ, ["data-dir"]) == {"PATH": "/bin", "PROGLOG_SEGMENT_BYTES": "1MiB"}


def test_the_environment_cannot_make_a_node_secure_or_bind_elsewhere(tmp_path: Path) -> None:
    plan = ClusterPlan(directory=tmp_path)
    nodes = plan.nodes()
    told = plan.options(nodes[0], nodes)
    every = {attribute.name for attribute in attrs.fields(NodeConfig)}
    kept = node_environment({f"{ENVIRONMENT_PREFIX}{name.upper()}": "x" for name in every}, list(told))
    left = {name.removeprefix(ENVIRONMENT_PREFIX).lower() for name in kept}
    assert {name.replace("-", "_") for name in NOT_FROM_ENVIRONMENT} <= every
    # A new option of this kind has to be thought about here.
    kinds = ("tls", "acl", "addr", "encrypt", "key", "secure", "port")
    assert [name for name in sorted(left) if any(kind in name for kind in kinds)] == []
    assert {"segment_bytes", "retention_age", "log_level"} <= left
