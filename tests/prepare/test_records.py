"""Raw bytes become records, and nothing in them can stop or fool the reader."""

from __future__ import annotations

import io
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.prepare import records
from pipelines.prepare.records import cut, json_record, text_record, value_record


@given(content=st.text(alphabet="ab\n", max_size=60),
       delimiter=st.sampled_from(["\n", "\n\n", "ab", "aba", "aa", "a\na"]),
       cuts=st.lists(st.integers(0, 60), max_size=5), limit=st.integers(0, 20), block=st.integers(1, 7))
def test_ranges_that_tile_a_file_give_each_piece_once(content: str, delimiter: str, cuts: list[int], limit: int,
                                                      block: int) -> None:
    raw, mark = content.encode(), delimiter.encode()
    bounds = sorted({0, len(raw), *(at for at in cuts if at < len(raw))})
    blocks, records.BLOCK_BYTES = records.BLOCK_BYTES, block
    try:
        found = [piece for start, end in itertools.pairwise(bounds)
                 for piece in cut(io.BytesIO(raw), start, end, mark, limit)]
    finally:
        records.BLOCK_BYTES = blocks
    whole = raw.split(mark)
    whole = whole[:-1] if not whole[-1] else whole
    assert [size for _, _, size in found] == [len(piece) for piece in whole]
    assert [piece for _, piece, _ in found] == [piece if len(piece) <= limit else None for piece in whole]
    assert all(raw[at:at + size] == piece for (at, _, size), piece in zip(found, whole, strict=True))


@pytest.mark.parametrize(("raw", "reason"), [
    (b"text", None), (b"", "empty"), (b" \n\t", "empty"), (b"\xff\xfe", "undecodable"), (b"123456789", "oversized"),
    ("é".encode()[:1], "undecodable"), (b"\0", None)])
def test_a_text_is_kept_or_refused_with_a_reason(raw: bytes, reason: str | None) -> None:
    record = text_record("file", 0, raw, max_bytes=8)
    assert (record.reason, record.content, record.bytes) == (reason, raw if reason is None else None, len(raw))


@pytest.mark.parametrize(("line", "reason"), [
    (b'{"text": "hello", "id": 1}', None), (b'{"text": "hel', "malformed"), (b"[1]", "malformed"),
    (b'"text"', "malformed"),
    (b'{"other": "x"}', "malformed"), (b'{"text": 5}', "malformed"), (b'{"text": ["x"]}', "malformed"), (b"", "empty"),
    (b'{"text": ""}', "empty"), (b'{"text": null}', "empty"), (b'{"text": "\xff"}', "undecodable"),
    (b'{"text": "\\ud800"}', "undecodable"), (b'{"text": "' + b"x" * 99 + b'"}', "oversized"),
    (b"[" * 100_000, "malformed"),
    (b'{"text": "a", "n": ' + b"9" * 9999 + b"}", "malformed")])
def test_a_json_line_is_kept_or_refused_with_a_reason(line: bytes, reason: str | None) -> None:
    record = json_record("file", 7, line, "text", max_bytes=50)
    assert record.reason == reason
    assert (record.content is not None) == (reason is None)


def test_a_byte_order_mark_before_the_first_json_line_is_not_content() -> None:
    assert json_record("file", 0, b'\xef\xbb\xbf{"text": "a"}', "text", 50).content == b"a"


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text() | st.binary(), st.lists, max_leaves=4))
def test_any_value_of_a_column_becomes_a_record(value: object) -> None:
    record = value_record("file", 3, value, "text", max_bytes=20)
    assert (record.content is None) == (record.reason is not None)


@given(st.binary())
def test_any_line_becomes_a_record(line: bytes) -> None:
    record = json_record("file", 3, line, "text", max_bytes=20)
    assert (record.content is None) == (record.reason is not None)


@given(st.text(min_size=1).filter(lambda text: not text.isspace()))
def test_text_survives_json(text: str) -> None:
    content = json_record("file", 3, json.dumps({"text": text}).encode(), "text", max_bytes=10**6).content
    assert content == text.encode()
