import pytest

from proglog_trio.dns.names import labels_of, wire_bytes, zone_of, zone_problem


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("a", (b"a",)),
        ("Node-1", (b"node-1",)),
        ("web1.example.com", (b"web1", b"example", b"com")),
        ("web1.example.com.", (b"web1", b"example", b"com")),
        ("under_score", (b"under_score",)),
        ("10.0.0.1", (b"10", b"0", b"0", b"1")),
        ("kölln", (b"xn--klln-5qa",)),
        ("x" * 63, (b"x" * 63,)),
    ],
)
def test_a_name_of_a_node_is_one_or_more_labels(name: str, labels: tuple[bytes, ...]) -> None:
    assert labels_of(name) == labels


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", ".a", "a b", "a/b", "x" * 64, "a:1", "::1", "a\0", "*", "xn--ä-\u200d", ".".join("x" * 130)],
)
def test_what_no_host_may_be_called_has_no_labels(name: str) -> None:
    assert labels_of(name) is None


def test_a_cluster_has_a_zone_or_the_reason_why_it_has_none() -> None:
    assert zone_of("Blue.Example") == (b"blue", b"example", b"proglog")
    assert zone_problem("Blue.Example") is None
    for name in ("two words", "a:b", "x" * 64):
        assert zone_of(name) is None
        assert zone_problem(name)


def test_a_name_has_a_length_before_each_label_and_the_roots() -> None:
    assert wire_bytes(()) == 1
    assert wire_bytes((b"ab", b"c")) == len(b"\2ab\1c\0")
