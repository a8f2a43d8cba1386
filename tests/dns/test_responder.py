from __future__ import annotations

import random

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proglog_trio.dns.answer import MAX_PACKET_BYTES
from proglog_trio.dns.question import LEAST_PACKET_BYTES, MAX_QUESTION_BYTES
from proglog_trio.dns.responder import MAX_RECORDS, Responder
from tests.dns.support import TTL, answer_to, asked, code, contents, is_cut, member, responder_of, texts

MEMBERS = (
    member("a", "10.0.0.1:8400", role="web"),
    member("b", "10.0.0.2:8401", role="db"),
    member("Six", "[2001:db8::6]:8400", role="db"),
    member("web.example", "web.example:99"),
    member("two words", "10.0.0.4:1"),
)
FOUND = {"web.example": ["10.0.0.3", "2001:db8::3"]}


@pytest.fixture
def responder() -> Responder:
    return responder_of(MEMBERS, FOUND)


# -- what there is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("a.node.blue.proglog", "A", {"10.0.0.1"}),
        ("A.NODE.Blue.ProgLog", "A", {"10.0.0.1"}),
        ("six.node.blue.proglog", "AAAA", {"2001:db8::6"}),
        ("web.example.node.blue.proglog", "A", {"10.0.0.3"}),
        ("web.example.node.blue.proglog", "AAAA", {"2001:db8::3"}),
        ("a.node.blue.proglog", "SRV", {"0 0 8400 a.node.blue.proglog."}),
        ("blue.proglog", "A", {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"}),
        ("blue.proglog", "AAAA", {"2001:db8::6", "2001:db8::3"}),
        ("role-db.blue.proglog", "A", {"10.0.0.2"}),
        ("ROLE-db.blue.proglog", "AAAA", {"2001:db8::6"}),
        ("_grpc._tcp.role-web.blue.proglog", "SRV", {"0 0 8400 a.node.blue.proglog."}),
        ("_grpc._tcp.b.node.blue.proglog", "SRV", {"0 0 8401 b.node.blue.proglog."}),
        ("blue.proglog", "NS", {"ns.blue.proglog."}),
        ("ns.blue.proglog", "A", {"127.0.0.1"}),
        ("blue.proglog", "SOA", {f"ns.blue.proglog. hostmaster.blue.proglog. 7 3600 600 86400 {TTL}"}),
    ],
)
def test_each_name_has_its_records(responder: Responder, name: str, kind: str, expected: set[str]) -> None:
    message = answer_to(responder, name, kind)
    assert (code(message), contents(message)) == ("NOERROR", expected)
    assert message.flags & dns.flags.AA
    assert not message.flags & dns.flags.RA
    assert {each.ttl for each in message.answer} == {TTL}
    assert {str(each.name) for each in message.answer} == {f"{name}."}
    assert responder.counters.answered == 1


@pytest.mark.parametrize("name", ["_grpc._tcp.blue.proglog", "blue.proglog"])
def test_a_service_has_a_target_and_its_addresses_for_each_node_with_a_name(responder: Responder, name: str) -> None:
    message = answer_to(responder, name, "SRV")
    assert contents(message) == {
        "0 0 8400 a.node.blue.proglog.",
        "0 0 8401 b.node.blue.proglog.",
        "0 0 8400 six.node.blue.proglog.",
        "0 0 99 web.example.node.blue.proglog.",
    }
    assert texts(message.additional) == {
        "a.node.blue.proglog. A 10.0.0.1",
        "b.node.blue.proglog. A 10.0.0.2",
        "six.node.blue.proglog. AAAA 2001:db8::6",
        "web.example.node.blue.proglog. A 10.0.0.3",
        "web.example.node.blue.proglog. AAAA 2001:db8::3",
    }


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.node.blue.proglog", "AAAA"),
        ("a.node.blue.proglog", "TXT"),
        ("a.node.blue.proglog", "CNAME"),
        ("blue.proglog", "MX"),
        ("node.blue.proglog", "A"),
        ("example.node.blue.proglog", "A"),
        ("_tcp.blue.proglog", "SRV"),
        ("_tcp.role-db.blue.proglog", "SRV"),
        ("_grpc._tcp.blue.proglog", "A"),
        ("ns.blue.proglog", "SRV"),
        ("node.blue.proglog", "ANY"),
    ],
)
def test_a_name_without_such_records_is_no_data(responder: Responder, name: str, kind: str) -> None:
    message = answer_to(responder, name, kind)
    assert (code(message), message.answer) == ("NOERROR", [])
    assert len(message.authority) == 1
    assert message.authority[0].ttl == TTL
    assert str(message.authority[0].name) == "blue.proglog."
    assert responder.counters.no_data == 1


@pytest.mark.parametrize(
    "name",
    [
        "c.node.blue.proglog", "x.a.node.blue.proglog", "role-x.blue.proglog", "a.blue.proglog", "x.ns.blue.proglog",
        "_http._tcp.blue.proglog", "_grpc._udp.blue.proglog", "_grpc._tcp.c.node.blue.proglog", "_tcp.x.blue.proglog",
        "_grpc_config.blue.proglog", "two\\032words.node.blue.proglog", "two words.node.blue.proglog", "*.blue.proglog",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["A", "SRV", "SOA", "ANY"])
def test_a_name_that_is_not_there_is_nxdomain(responder: Responder, name: str, kind: str) -> None:
    message = answer_to(responder, name, kind)
    assert (code(message), message.answer) == ("NXDOMAIN", [])
    # without it, no resolver keeps that there is nothing
    assert texts(message.authority) == {
        f"blue.proglog. SOA ns.blue.proglog. hostmaster.blue.proglog. 7 3600 600 86400 {TTL}"
    }
    assert responder.counters.no_such_name == 1


@pytest.mark.parametrize(
    ("name", "kind", "kind_class"),
    [
        ("example.com", "A", "IN"), ("proglog", "SOA", "IN"), (".", "NS", "IN"), ("red.proglog", "A", "IN"),
        ("ablue.proglog", "A", "IN"), ("1.0.0.10.in-addr.arpa", "PTR", "IN"), ("blue.proglog", "A", "CH"),
        ("version.bind", "TXT", "CH"), ("blue.proglog", "AXFR", "IN"), ("blue.proglog", "IXFR", "IN"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_zone_is_refused(responder: Responder, name: str, kind: str, kind_class: str) -> None:
    query = dns.message.make_query(name, kind, kind_class)
    query.authority = []
    answer = responder.answer(query.to_wire(), by_stream=False)
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert (code(message), message.answer, message.authority) == ("REFUSED", [], [])
    assert not message.flags & dns.flags.AA
    assert responder.counters.refused == 1


def test_who_asks_for_any_records_gets_one_kind(responder: Responder) -> None:
    assert contents(answer_to(responder, "a.node.blue.proglog", "ANY")) == {"10.0.0.1"}
    assert contents(answer_to(responder, "six.node.blue.proglog", "ANY")) == {"2001:db8::6"}


def test_a_cluster_without_nodes_is_there() -> None:
    responder = responder_of([])
    assert code(answer_to(responder, "blue.proglog")) == "NOERROR"
    assert code(answer_to(responder, "_grpc._tcp.blue.proglog", "SRV")) == "NOERROR"
    assert code(answer_to(responder, "a.node.blue.proglog")) == "NXDOMAIN"


def test_a_zone_may_have_several_labels_and_no_time_to_live() -> None:
    responder = responder_of(MEMBERS, cluster="blue.example", ttl=0)
    message = answer_to(responder, "a.node.blue.example.proglog")
    assert contents(message) == {"10.0.0.1"}
    assert message.answer[0].ttl == 0
    assert code(answer_to(responder, "a.node.blue.proglog")) == "REFUSED"


def test_nodes_at_one_address_are_told_once() -> None:
    responder = responder_of([member("a", "127.0.0.1:1"), member("b", "127.0.0.1:2")])
    assert [str(each) for each in answer_to(responder, "blue.proglog").answer[0]] == ["127.0.0.1"]
    assert len(contents(answer_to(responder, "blue.proglog", "SRV"))) == 2


def test_a_newer_listing_is_what_is_told_of(responder: Responder) -> None:
    responder.listing = responder_of([MEMBERS[0]]).listing
    assert contents(answer_to(responder, "blue.proglog")) == {"10.0.0.1"}


# -- how much ----------------------------------------------------------------------------------------------------------


def many(count: int) -> Responder:
    return responder_of(
        member(f"node-{number}", f"10.1.{number // 256}.{number % 256}:8400") for number in range(count)
    )


def test_the_order_is_random_and_the_generators() -> None:
    def order() -> list[str]:
        return [str(each) for each in answer_to(ten, "blue.proglog").answer[0]]

    ten = many(10)
    orders = [order() for _ in range(20)]
    assert len({tuple(each) for each in orders}) > 15
    ten.rng = random.Random(1)
    assert [order() for _ in range(20)] == orders


@pytest.mark.parametrize(("payload", "room"), [(None, 512), (100, 512), (600, 600), (1232, 1232), (65_000, 1232)])
@pytest.mark.parametrize("kind", ["A", "SRV"])
def test_a_packet_has_as_many_bytes_as_the_client_takes(payload: int | None, room: int, kind: str) -> None:
    responder = many(500)
    options = {} if payload is None else {"use_edns": 0, "payload": payload}
    answer = responder.answer(asked("blue.proglog", kind, **options), by_stream=False)
    assert answer is not None
    message = dns.message.from_wire(answer)
    assert is_cut(message)
    assert room - 60 < len(answer) <= room
    assert message.edns == (-1 if payload is None else 0)
    assert responder.counters.truncated == 1


@pytest.mark.parametrize("kind", ["A", "SRV"])
@pytest.mark.parametrize("count", [40, MAX_RECORDS, 8000])
def test_a_stream_has_room_for_all_that_are_told(kind: str, count: int) -> None:
    message = answer_to(many(count), "blue.proglog", kind, by_stream=True)
    assert not is_cut(message)
    assert len(contents(message)) == min(count, MAX_RECORDS)
    if kind == "SRV":
        assert len(texts(message.additional)) == min(count, MAX_RECORDS)


def test_records_have_a_bound_whatever_hosts_stand_for() -> None:
    hosts = {f"h{number}.example": [f"10.0.{number}.{last}" for last in range(8)] for number in range(60)}
    responder = responder_of((member(f"n{number}", f"h{number}.example:1") for number in range(60)), hosts)
    assert len(contents(answer_to(responder, "blue.proglog", by_stream=True))) == MAX_RECORDS
    servers = answer_to(responder, "blue.proglog", "SRV", by_stream=True)
    assert len(contents(servers)) == 60
    # of whole nodes
    assert len(texts(servers.additional)) == MAX_RECORDS // 8 * 8


@pytest.mark.parametrize("name", ["x.{zone}", "{zone}"])
@pytest.mark.parametrize("kind", ["TXT", "SOA", "NS"])
def test_the_zone_is_written_once_whatever_its_case(responder: Responder, name: str, kind: str) -> None:
    sizes = {
        len(responder.answer(asked(name.format(zone=zone), kind), by_stream=False) or b"")
        for zone in ("blue.proglog", "BLUE.PROGLOG", "bLuE.pRoGlOg")
    }
    assert len(sizes) == 1


def test_additional_records_without_room_are_left_out_and_nothing_is_cut() -> None:
    message = answer_to(many(9), "blue.proglog", "SRV")
    assert not is_cut(message)
    assert len(contents(message)) == 9
    assert 0 < len(texts(message.additional)) < 9


@pytest.mark.parametrize("kind", ["A", "AAAA", "SRV", "SOA", "NS", "ANY", "TXT"])
def test_the_longest_names_have_room_for_their_answers(kind: str) -> None:
    # in the other case than the zone's, so that no name can be written shorter for being there already
    cluster = ".".join(["C" * 31] * 4)
    node = ".".join(["n" * 36] * 2)
    host = responder_of([member(node)], cluster=cluster)
    name = f"{node}.node.{cluster}.PROGLOG"
    for each in (name, f"x{name[1:]}", f"{cluster}.PROGLOG"):
        answer = host.answer(asked(each, kind), by_stream=False)
        assert answer is not None
        message = dns.message.from_wire(answer)
        assert len(answer) <= LEAST_PACKET_BYTES
        assert not is_cut(message)
        assert message.answer or message.authority


# -- what comes in -----------------------------------------------------------------------------------------------------


def test_what_is_no_question_gets_no_answer(responder: Responder) -> None:
    an_answer = responder.answer(asked("blue.proglog"), by_stream=False)
    assert an_answer is not None
    for message in (b"", b"\0" * 11, an_answer, b"\xff" * 12, b"\x80\0" * 20):
        assert responder.answer(message, by_stream=False) is None
    assert responder.counters.ignored == 5


@pytest.mark.parametrize("opcode", [1, 2, 4, 5, 6, 15])
def test_what_is_no_query_is_not_implemented(responder: Responder, opcode: int) -> None:
    query = bytearray(asked("blue.proglog"))
    query[2] |= opcode << 3
    answer = responder.answer(bytes(query), by_stream=False)
    assert answer is not None
    assert answer[:2] == query[:2]
    assert answer[2] >> 3 & 15 == opcode
    assert answer[3] & 15 == 4
    assert len(answer) == 12
    assert responder.counters.not_implemented == 1


@pytest.mark.parametrize(
    "message",
    [
        b"\1\2\0\0" + b"\0\1" + bytes(6),
        b"\1\2\0\0" + b"\0\0" + bytes(6),
        b"\1\2\0\0" + b"\0\2" + bytes(6) + b"\0\0\1\0\1" * 2,
        b"\1\2\0\0" + b"\0\1\0\1" + bytes(4) + b"\0\0\1\0\1" + b"\0\0\1\0\1\0\0\0\0\0\0",
        b"\1\2\0\0" + b"\xff\xff" * 4 + b"\0\0\1\0\1",
        b"\1\2\0\0" + b"\0\1" + bytes(6) + b"\xc0\x0c\0\1\0\1",
        b"\1\2\0\0" + b"\0\1" + bytes(6) + b"\x3f" + b"x" * 10,
        b"\1\2\0\0" + b"\0\1" + bytes(6) + b"\x40" + b"x" * 64 + b"\0\0\1\0\1",
        b"\1\2\0\0" + b"\0\1" + bytes(6) + b"\1x" * 140 + b"\0\0\1\0\1",
        b"\1\2\0\0" + b"\0\1" + bytes(6) + b"\1\xff\0\0\1\0\1",
        b"\1\2\0\0" + b"\0\1" + bytes(6) + b"\0\0\1",
        asked("blue.proglog", use_edns=0) + b"x" * MAX_QUESTION_BYTES,
        # three records that would be passed over if they were two
        b"\1\2\0\0" + b"\0\1\0\0\0\0\0\3" + b"\0\0\1\0\1" + (b"\0\0\1\0\1" + bytes(6)) * 3,
        # two OPT records, and one that is not the root's
        b"\1\2\0\0" + b"\0\1\0\0\0\0\0\2" + b"\0\0\1\0\1" + (b"\0\0\x29\2\0" + bytes(6)) * 2,
        b"\1\2\0\0" + b"\0\1\0\0\0\0\0\1" + b"\0\0\1\0\1" + (b"\1x\0\0\x29\2\0" + bytes(6)),
        b"\1\2\0\0" + b"\0\1\0\0\0\0\0\1" + b"\0\0\1\0\1" + (b"\0\0\x29\2\0" + bytes(4) + b"\1\0"),
    ],
)
def test_what_cannot_be_read_is_formerr(responder: Responder, message: bytes) -> None:
    answer = responder.answer(message, by_stream=False)
    assert answer is not None
    assert code(dns.message.from_wire(answer)) == "FORMERR"
    assert (answer[:2], len(answer)) == (message[:2], 12)
    assert responder.counters.malformed == 1


def test_a_later_edns_is_told_so(responder: Responder) -> None:
    message = answer_to(responder, "blue.proglog", use_edns=1)
    assert (code(message), message.edns) == ("BADVERS", 0)
    assert responder.counters.not_implemented == 1


def test_what_comes_with_a_question_is_passed_over(responder: Responder) -> None:
    options = [
        dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"cookie12"),
        dns.edns.GenericOption("PADDING", bytes(300)),
    ]
    message = answer_to(responder, "a.node.blue.proglog", use_edns=0, options=options, want_dnssec=True)
    assert contents(message) == {"10.0.0.1"}
    assert (message.edns, message.payload) == (0, MAX_PACKET_BYTES)


def test_two_records_that_mean_nothing_are_passed_over(responder: Responder) -> None:
    message = b"\1\2\0\0" + b"\0\1\0\0\0\0\0\2" + b"\0\0\1\0\1" + (b"\0\0\1\0\1" + bytes(6)) * 2
    answer = responder.answer(message, by_stream=False)
    assert answer is not None
    assert code(dns.message.from_wire(answer)) == "REFUSED"


def test_the_question_is_repeated_as_it_came(responder: Responder) -> None:
    # resolvers mix the case of letters, and take no answer that does not (0x20)
    query = asked("a.NoDe.bLuE.pRoGlOg")
    answer = responder.answer(query, by_stream=False)
    assert answer is not None
    assert answer[12 : len(query)] == query[12:]


SEEDS = [
    asked("a.node.blue.proglog", use_edns=0),
    asked("_grpc._tcp.blue.proglog", "SRV"),
    asked("blue.proglog", "ANY", use_edns=0, payload=4096),
    asked("role-db.blue.proglog", "AAAA"),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A question, some bytes of which are others, are gone or are there twice."""
    message = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(message) - 1))
        match draw(st.sampled_from(["set", "insert", "cut", "double"])):
            case "set":
                message[place] = draw(st.integers(0, 255))
            case "insert":
                message[place:place] = draw(st.binary(max_size=8))
            case "cut":
                del message[place : place + draw(st.integers(0, 4))]
            case _:
                message[place:place] = message[place:]
        if not message:
            return b""
    return bytes(message)


@given(st.binary(max_size=1400) | mutated(), st.booleans())
@example(b"\1\2\0\0\0\1\0\0\0\0\0\2\0\0\1\0\1" + b"\0\0\x01\0\x01\0\0\0\0\4\0" + b"\xc0\x1c" * 512 + b"\xc4\x1a", True)
def test_whatever_comes_in_an_answer_comes_out_or_nothing(message: bytes, by_stream: bool) -> None:
    responder = responder_of(MEMBERS, FOUND)
    answer = responder.answer(message, by_stream=by_stream)
    if answer is None:
        assert responder.counters.ignored == 1
        return
    read = dns.message.from_wire(answer)
    assert read.id == int.from_bytes(message[:2], "big")
    assert read.flags & dns.flags.QR
    assert by_stream or len(answer) <= MAX_PACKET_BYTES
    # nothing that a server would take for a question
    assert responder.answer(answer, by_stream=by_stream) is None
