import base64
import json
import random
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proglog_trio.membership.wire.errors import DecodingError
from tests.membership.wire.at_once import compress, decompress

CASES = json.loads((Path(__file__).parent / "data" / "lzw.json").read_bytes())


def pack(codes: list[tuple[int, int]]) -> bytes:
    """Return codes, given with their widths, as bytes."""
    held = bits = 0
    for code, width in codes:
        held |= code << bits
        bits += width
    return held.to_bytes((bits + 7) // 8, "little")


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_is_what_go_makes(case: dict[str, str]) -> None:
    plain = base64.b64decode(case["plain_base64"])
    compressed = base64.b64decode(case["lzw_base64"])
    assert decompress(compressed) == plain
    assert compress(plain) == compressed


@given(
    st.one_of(st.binary(max_size=2000), st.lists(st.sampled_from((b"a", b"ab", b"node-")), max_size=900).map(b"".join))
)
def test_round_trip(data: bytes) -> None:
    assert decompress(compress(data)) == data


@given(
    st.integers(0, 2**32), st.sampled_from((1, 2, 3, 17, 256)), st.sampled_from((254, 255, 256, 257, 3800, 3900, 9000))
)
def test_round_trip_around_changes_of_width_and_clears(seed: int, alphabet: int, around: int) -> None:
    generator = random.Random(seed)
    data = bytes(generator.randrange(alphabet) for _ in range(around + generator.randrange(600)))
    assert decompress(compress(data)) == data


def test_every_length_over_a_clear() -> None:
    data = random.Random(7).randbytes(4200)
    for length in [*range(250, 262), *range(765, 772), *range(3830, 3845)]:
        assert decompress(compress(data[:length])) == data[:length]


def test_a_table_that_is_never_cleared_stays_as_it_is() -> None:
    codes = [(256, 9)]
    known = 258
    width = 9
    generator = random.Random(3)
    expected = bytearray()
    for number in range(9000):
        literal = generator.randrange(256)
        codes.append((literal, width))
        expected.append(literal)
        if number and known < 4096:
            known += 1
            if known == 1 << width and width < 12:
                width += 1
    codes += [(4095, 12), (257, 12)]
    expected += decompress(pack([*codes[:3840], (4095, 12), (257, 12)]))[-2:]
    assert decompress(pack(codes)) == expected


def test_bytes_after_the_end_are_not_looked_at() -> None:
    assert decompress(compress(b"end") + b"\xff\xff") == b"end"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "no end code"),
        (compress(b"abcdefgh")[:-2], "no end code"),
        (pack([(256, 9), (97, 9), (300, 9), (257, 9)]), "code 300 stands for nothing yet"),
        (pack([(256, 9), (258, 9), (257, 9)]), "code 258 stands for nothing yet"),
        (pack([(256, 9), (97, 9), (98, 9), (256, 9), (258, 9), (257, 9)]), "code 258 stands for nothing yet"),
    ],
)
def test_refuses(data: bytes, problem: str) -> None:
    with pytest.raises(DecodingError, match=problem):
        decompress(data)


def test_a_bomb_is_refused_before_it_is_put_together() -> None:
    bomb = compress(bytes(6 * 1024 * 1024))
    assert len(decompress(bomb, 6 * 1024 * 1024)) == 6 * 1024 * 1024
    tracemalloc.start()
    try:
        with pytest.raises(DecodingError, match="more than 65536 bytes"):
            decompress(bomb, 65536)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the table of a full cycle has strings of up to 3,838 bytes, but is only begun here
    assert peak < 1024 * 1024


@given(st.binary(max_size=200))
def test_any_bytes_give_bytes_or_the_error(data: bytes) -> None:
    try:
        plain = decompress(data, 4096)
    except DecodingError:
        return
    assert len(plain) <= 4096
