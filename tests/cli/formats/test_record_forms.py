import base64
import contextlib
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.cli.consume import RecordWriter
from proglog_trio.cli.exit_codes import CommandError, ExitCode
from proglog_trio.cli.formats.form_choice import chosen_form
from proglog_trio.cli.formats.given_fields import Given, record_bytes
from proglog_trio.cli.formats.record_forms import Base64Form, JsonForm, RawForm, RecordForm, record_form
from proglog_trio.cli.formats.record_options import MAX_DELIMITER_BYTES, parse_delimiter
from proglog_trio.cli.records.lines import LineSplitter
from proglog_trio.client import ConsumedBatch, Record
from proglog_trio.log.format.frame import FrameHeader
from proglog_trio.log.format.origin import Origin
from proglog_trio.log.format.position import Position
from proglog_trio.log.format.record import pack_records

# what forms and delimiters are made of comes up more often than by chance
DATA = st.binary(max_size=40) | st.text(max_size=20).map(str.encode) | st.sampled_from([b"", b"\0", b"\n", b":="])
RECORDS = st.builds(
    Record,
    DATA,
    st.none() | DATA,
    st.none() | st.dictionaries(st.text(max_size=10), DATA, max_size=4),
    st.none() | st.integers(-(2**63), 2**63 - 1),
).filter(lambda record: bool(record.value or record.key is not None or record.headers))


def consumed(records: list[Record]) -> ConsumedBatch:
    payload = pack_records(records)
    header = FrameHeader(Origin(bytes(16)), 0, len(records), 1, len(payload), 0)
    return ConsumedBatch(header, payload, 10, 0, len(records), Position.empty(), node="127.0.0.1:1")


def there_and_back(form: RecordForm, delimiter: bytes, records: list[Record]) -> list[Record]:
    """What produce reads of what consume writes, in pieces of any size."""
    text = RecordWriter(form, delimiter).text(consumed(records))
    splitter = LineSplitter(1 << 20, delimiter)
    lines = [line for start in range(0, len(text), 7) for line in splitter.feed(text[start : start + 7])]
    return [form.read(line.text) for line in lines + splitter.finish()]


def normal(record: Record) -> tuple[object, ...]:
    """No headers are no headers, however that is said."""
    return record.value, record.key, dict(record.headers or {}), record.timestamp


@given(st.lists(RECORDS, min_size=1, max_size=8), st.sampled_from([b"\n", b"\0", b"\r\n", b"\x1e"]))
def test_json_carries_everything(records: list[Record], delimiter: bytes) -> None:
    found = there_and_back(JsonForm(), delimiter, records)
    assert list(map(normal, found)) == list(map(normal, records))


@given(
    st.lists(st.builds(Record, DATA, st.none() | DATA), min_size=1).map(
        lambda records: [each for each in records if each.value or each.key is not None] or [Record(b"x")]
    ),
    st.sampled_from([b"\n", b"\0"]),
    st.sampled_from([b":", b"\t", b" -- "]),
)
def test_base64_carries_values_and_keys(records: list[Record], delimiter: bytes, separator: bytes) -> None:
    assert there_and_back(Base64Form(separator), delimiter, records) == records


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1), st.sampled_from([b"\n", b"\0"]))
def test_base64_carries_values(values: list[bytes], delimiter: bytes) -> None:
    assert there_and_back(Base64Form(), delimiter, list(map(Record, values))) == list(map(Record, values))


@given(
    st.lists(st.binary(min_size=1, max_size=20), min_size=1), st.sampled_from([b"\n", b"\0", b"ab", b"\r\n"]), st.data()
)
def test_raw_carries_values_without_the_delimiter(values: list[bytes], delimiter: bytes, data: st.DataObject) -> None:
    # also none that is made where a value ends and the delimiter begins
    kept = [value for value in values if (value + delimiter).find(delimiter) == len(value)] or [b"x"]
    assert there_and_back(RawForm(), delimiter, list(map(Record, kept))) == list(map(Record, kept))


def test_raw_says_where_it_could_not_keep_values_apart() -> None:
    writer = RecordWriter(RawForm(), b"\n")
    writer.text(consumed([Record(b"one"), Record(b"two")]))
    assert writer.unclear_from is None
    assert writer.text(consumed([Record(b"one"), Record(b"t\nwo")])) == b"one\nt\nwo\n"
    assert writer.unclear_from == 10


def test_without_a_delimiter_values_stand_together() -> None:
    assert RecordWriter(RawForm(), b"").text(consumed([Record(b"a\n"), Record(b"b")])) == b"a\nb"


def test_raw_with_keys() -> None:
    records = [Record(b"v", b"k"), Record(b"alone"), Record(b"", b"k")]
    assert RecordWriter(RawForm(b"="), b"\n").text(consumed(records)) == b"k=v\nalone\nk=\n"
    assert there_and_back(RawForm(b"="), b"\n", records) == records


@given(DATA.filter(bool), DATA)
def test_json_is_read_as_anybody_writes_it(value: bytes, header: bytes) -> None:
    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    # all in base64, also what is text; null where nothing is
    fields = {"value_base64": encoded(value), "key": None, "headers_base64": {"h": encoded(header)}, "headers": None}
    text = json.dumps(fields, indent=1).encode()
    assert JsonForm().read(text) == Record(value, None, {"h": header}, None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "it is no JSON: Expecting value at column 1"),
        (b"[1]", "it is no JSON object"),
        (b"\xff", "it is no UTF-8 text"),
        (b"[" * 100_000, "it is nested too deep"),
        (b'{"value": "a", "keey": "b"}', "'keey' is no field of a record: those are value, "),
        (b'{"value": "a", "value": "b"}', "it has 'value' twice"),
        (b'{"value": "a", "value_base64": "YQ=="}', "it has both value and value_base64: one says all"),
        (b'{"value": 5}', "its value must be text"),
        (b'{"value": "\\ud800"}', "its value has a surrogate that is half of a character"),
        (b'{"value_base64": "YQ"}', "its value_base64 is no base64: Incorrect padding"),
        (b'{"value_base64": "\xc3\xa4"}', "its value_base64 is no base64"),
        (b'{"value_base64": "Y!Q=="}', "its value_base64 is no base64"),
        (b'{"value_base64": 5}', "its value_base64 must be text in base64"),
        (b'{"headers": []}', "its headers must be an object"),
        (b'{"headers": {"a": 5}}', "its header 'a' must be text"),
        (b'{"headers": {"\\udcff": "a"}}', "has a surrogate"),
        (b'{"headers": {"a": "b"}, "headers_base64": {"a": ""}}', "the header 'a' stands in headers and in"),
        (b'{"value": "a", "timestamp": "now"}', "its timestamp must be a whole number of milliseconds"),
        (b'{"value": "a", "timestamp": true}', "its timestamp must be a whole number of milliseconds"),
        (b'{"value": "a", "timestamp": 9223372036854775808}', "its timestamp must be a whole number of milliseconds"),
        (b'{"timestamp": 5, "value": ""}', "it is empty"),
        (b'{"' + b"x" * 1000 + b'": 1}', f"'{'x' * 40}…' is no field"),
    ],
)
def test_what_is_no_record_is_told(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        JsonForm().read(text)


@pytest.mark.parametrize("text", [b"", b"YQ", b"Y!Q==", b":YQ==", b"YQ==:Y Q=="])
def test_what_is_no_base64_is_told(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"it is empty|is no base64"):
        Base64Form().read(text)
    if text != b":YQ==":
        with pytest.raises(ValueError, match=r"it is empty|its (value|key) is no base64"):
            Base64Form(b":").read(text)


def test_what_a_log_is_dumped_as_is_read_too() -> None:
    text = b'{"kind": "record", "offset": 1, "origin": "ab", "sequence": 1, "log_time": 5, "value": "v"}'
    assert JsonForm().read(text) == Record(b"v")


@given(st.binary(max_size=60))
def test_whatever_is_read_is_a_record_or_an_error(text: bytes) -> None:
    for form in (JsonForm(), Base64Form(), Base64Form(b":"), RawForm(b":")):
        with contextlib.suppress(ValueError):
            pack_records([form.read(text)])


@given(RECORDS)
def test_a_text_is_no_longer_than_its_form_says(record: Record) -> None:
    for form in (JsonForm(), Base64Form(b":"), RawForm(b":")):
        (text,) = form.texts(consumed([record]))
        if form != JsonForm():
            assert len(text) <= form.longest(record_bytes(record) + 1)
        else:
            # but for its place
            assert len(text) <= form.longest(record_bytes(record) + 20)
    assert len(pack_records([record])) <= record_bytes(record) + 64


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [("\n", b"\n"), ("", b""), (r"\0", b"\0"), (r"\r\n", b"\r\n"), (r"\\0", b"\\0"), (r"a\x00ä", b"a\0\xc3\xa4")],
)
def test_delimiters(text: str, delimiter: bytes) -> None:
    assert parse_delimiter(text) == delimiter


@pytest.mark.parametrize("text", ["\\", r"\q", r"\x0", r"\xzz", "a" * (MAX_DELIMITER_BYTES + 1)])
def test_delimiters_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no escape|has at most"):
        parse_delimiter(text)


@pytest.mark.parametrize(
    ("name", "delimiter", "separator", "problem"),
    [
        ("json", b"", None, "needs a --delimiter of control characters"),
        ("base64", b"A", None, "needs a --delimiter of control characters"),
        ("json", b"\n", ":", "is not for --format json"),
        ("base64", b"\n", "=", "nothing that stands in base64"),
        ("raw", b"\n", "a\n", "has what --delimiter says ends a record"),
        ("raw", b"\n", "", "must not be empty"),
    ],
)
def test_options_that_do_not_go_together(name: str, delimiter: bytes, separator: str | None, problem: str) -> None:
    with pytest.raises(CommandError, match=problem) as raised:
        chosen_form(name, delimiter, separator)  # type: ignore[arg-type]  # the names are those of the forms
    assert raised.value.code == ExitCode.USAGE
    assert record_form("raw", b"", None) == RawForm()


def test_given_fields_stand_in_for_what_a_record_has_not() -> None:
    given_fields = Given(key=b"k", headers=(("a", b"1"), ("b", b"2")), timestamp=5)
    assert given_fields.add_to(Record(b"v")) == Record(b"v", b"k", {"a": b"1", "b": b"2"}, 5)
    own = Record(b"v", b"", {"b": b"3"}, 0)
    assert given_fields.add_to(own) == Record(b"v", b"", {"a": b"1", "b": b"3"}, 0)
    assert Given().add_to(own) == own
    now = Given(timestamp="now").add_to(Record(b"v")).timestamp
    assert now is not None
    assert now > 1_700_000_000_000
