import dns.message
from dnslib import RD, RR, DNSLabel

from proglog_trio.dns.answer import AnswerWriter, Code, Section
from proglog_trio.dns.question import read_question
from tests.dns.support import asked, texts

A = 1


def record(name: str, last: int) -> RR:
    return RR(DNSLabel(name), A, ttl=1, rdata=RD(bytes((10, 0, 0, last))))


def test_records_that_have_no_room_leave_nothing_behind() -> None:
    question = read_question(asked("a.example"))
    writer = AnswerWriter(question, max_bytes=70)
    assert writer.add(Section.ANSWER, [record("a.example", 1)])
    # all or none: the first would have had room
    assert not writer.add(Section.ADDITIONAL, [record("b.example", 2), record("c.example", 3)])
    assert writer.add(Section.ADDITIONAL, [record("b.example", 4)])
    answer = writer.finish(Code.ANSWERED, is_ours=True)
    assert len(answer) <= 70
    # the name that was taken back is written anew, and refers to nothing behind it
    message = dns.message.from_wire(answer)
    assert texts(message.answer) == {"a.example. A 10.0.0.1"}
    assert texts(message.additional) == {"b.example. A 10.0.0.4"}


def test_room_is_kept_for_what_edns_says() -> None:
    question = read_question(asked("a.example", use_edns=0))
    whole = AnswerWriter(question, max_bytes=27 + 16 + 11)
    assert whole.add(Section.ANSWER, [record("a.example", 1)])
    assert len(whole.finish(Code.ANSWERED, is_ours=True)) == 54
    assert not AnswerWriter(question, max_bytes=53).add(Section.ANSWER, [record("a.example", 1)])
