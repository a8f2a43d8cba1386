import re
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from proglog_trio.node.config_sources import unknown_variables, variables_of_services
from proglog_trio.node.option_types import DEFAULT_RPC_PORT
from tests.node.parsing import parse, write


def test_flag_wins_over_variable_and_variable_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, 'node-name = "file"\ncluster-name = "file"\nrpc-port = 1\n')
    monkeypatch.setenv("PROGLOG_CONFIG_FILE", file)
    monkeypatch.setenv("PROGLOG_NODE_NAME", "variable")
    monkeypatch.setenv("PROGLOG_CLUSTER_NAME", "variable")
    config = parse("--node-name", "flag")
    assert (config.node_name, config.cluster_name, config.rpc_port) == ("flag", "variable", 1)


def test_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROGLOG_RPC_PORT", "http")
    with pytest.raises(CycloptsError, match="PROGLOG_RPC_PORT from env: unable to convert"):
        parse()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rpc-prot = 1", "the key 'rpc-prot' is no option. Did you mean 'rpc-port'?"),
        ("[node]\nrpc-port = 1", "the key 'node' is no option"),
        ('config-file = "x"', "the key 'config-file' is no option"),
        ("rpc-port = 1\nrpc_port = 1", "the key 'rpc_port' is given twice"),
        ('rpc-port = "1"', "the key 'rpc-port' must be an integer, not a string"),
        ("rpc-port = 1.5", "the key 'rpc-port' must be an integer, not a float"),
        ("rpc-port = [1]", "the key 'rpc-port' must be an integer, not an array"),
        ("insecure = 1", "the key 'insecure' must be a boolean, not an integer"),
        ("data-dir = true", "the key 'data-dir' must be a string, not a boolean"),
        ("node-name = 2020-01-01", "the key 'node-name' must be a string, not a date or time"),
        ("segment-bytes = 1.5", "the key 'segment-bytes' must be an integer or a string, not a float"),
        ("retention-age = true", "the key 'retention-age' must be an integer or a float or a string, not a boolean"),
        ("rpc-port = \n", "it is not TOML: Invalid value (at line 1"),
    ],
)
def test_bad_file_is_named_with_its_key(text: str, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    with pytest.raises(CycloptsError, match=re.escape(f"Configuration file {file}: {message}")):
        parse("--config-file", file)


@pytest.mark.parametrize("text", ['log-level = "loud"', "segment-bytes = 1", "rpc-port = 65536"])
def test_bad_value_in_a_file_is_named_with_its_key(text: str, tmp_path: Path) -> None:
    file = write(tmp_path, text)
    key = text.partition(" ")[0]
    with pytest.raises(CycloptsError, match=re.escape(f"[{key}]") + ".*" + re.escape(file)):
        parse("--config-file", file)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CycloptsError, match="No such file"):
        parse("--config-file", str(tmp_path / "missing"))
    with pytest.raises(CycloptsError, match="Is a directory"):
        parse("--config-file", str(tmp_path))
    file = tmp_path / "latin"
    file.write_bytes(b'node-name = "\xe9"')
    with pytest.raises(CycloptsError, match="not UTF-8"):
        parse("--config-file", str(file))


def test_what_kubernetes_says_of_services_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PROGLOG_RPC_PORT", "tcp://10.96.14.3:8400")
    assert parse().rpc_port == DEFAULT_RPC_PORT
    assert parse("--rpc-port", "1").rpc_port == 1
    assert parse("--config-file", write(tmp_path, "rpc-port = 2")).rpc_port == 2
    assert variables_of_services({"PROGLOG_RPC_PORT": "tcp://10.96.14.3:8400"}) == ["PROGLOG_RPC_PORT"]
    assert variables_of_services({"PROGLOG_RPC_PORT": "8400", "PROGLOG_PORT": "tcp://10.96.14.3:8400"}) == []


def test_unknown_variables_are_found() -> None:
    environ = {"PROGLOG_RPC_PROT": "1", "PROGLOG_RPC_PORT": "1", "PROGLOG_ADDR": "x", "PATH": "x"}
    assert unknown_variables(environ, ["PROGLOG_ADDR"]) == ["PROGLOG_RPC_PROT"]
