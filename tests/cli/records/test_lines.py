import os

import trio
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.cli.records.lines import Line, LineSplitter, read_lines


def split(pieces: list[bytes], longest: int = 1 << 20) -> list[Line]:
    splitter = LineSplitter(longest)
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    return lines + splitter.finish()


def test_numbers_lines_from_1() -> None:
    assert split([b"a\n\nb\n"]) == [Line(1, b"a"), Line(2, b""), Line(3, b"b")]


def test_last_line_needs_no_end() -> None:
    assert split([b"a\nb"]) == [Line(1, b"a"), Line(2, b"b")]


def test_long_line_is_counted_and_not_kept() -> None:
    assert split([b"aaaa\nbb", b"bbb", b"b\ncccc"], longest=4) == [
        Line(1, b"aaaa"),
        Line(2, b"", length=6),
        Line(3, b"cccc"),
    ]


def test_long_line_holds_no_memory() -> None:
    splitter = LineSplitter(10)
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
    assert splitter._kept == b""
    assert splitter.finish() == [Line(1, b"", length=1_000_000)]


@given(
    st.lists(st.binary(max_size=6).map(lambda data: bytes(b"ab"[each % 2] for each in data))),
    st.binary(min_size=1, max_size=4).map(lambda data: bytes(b"ab"[each % 2] for each in data)),
)
def test_a_line_may_end_with_any_bytes(pieces: list[bytes], end: bytes) -> None:
    expected = b"".join(pieces).split(end)
    if not expected[-1]:
        expected.pop()
    splitter = LineSplitter(1 << 20, end)
    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.finish()
    assert [line.text for line in lines] == expected


def test_without_an_end_all_is_one_line() -> None:
    splitter = LineSplitter(10, b"")
    assert splitter.feed(b"one\n") == splitter.feed(b"two\n") == []
    assert splitter.finish() == [Line(1, b"one\ntwo\n")]
    assert splitter.finish() == []


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"x", b"\n"))))
def test_how_the_input_is_cut_does_not_matter(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line.text for line in split(pieces)] == expected


async def test_reads_what_there_is_and_then_to_the_end() -> None:
    reading, writing = os.pipe()
    try:
        lines = read_lines(reading, 100)
        os.write(writing, b"one\ntw")
        assert await anext(lines) == ([Line(1, b"one")], 6)
        os.write(writing, b"o\nthree")
        assert await anext(lines) == ([Line(2, b"two")], 7)
        os.close(writing)
        assert await anext(lines) == ([Line(3, b"three")], 0)
        await lines.aclose()
    finally:
        os.close(reading)


async def test_reading_can_be_cancelled_while_there_is_nothing() -> None:
    reading, writing = os.pipe()
    lines = read_lines(reading, 100)
    with trio.move_on_after(0.01) as scope:
        await anext(lines)
    assert scope.cancelled_caught
    os.close(writing)  # lets the abandoned thread end
    await lines.aclose()
