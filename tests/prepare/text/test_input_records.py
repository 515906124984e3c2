"""Raw bytes become records, and nothing in them can stop or fool the reader."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipelines.prepare.text import input_records
from pipelines.prepare.text.input_records import cut, cut_stream, json_record, text_record, value_record


@given(content=st.text(alphabet="ab\n", max_size=30), block=st.integers(1, 7), limit=st.integers(0, 20),
       delimiter=st.sampled_from(["\n", "\n\n", "ab", "aba", "aa", "a\na"]))
@example(content="a\n\n\n\n\nb\n", block=1, limit=20, delimiter="\n\n")
@example(content="ab" * 8, block=2, limit=3, delimiter="aba")
def test_ranges_that_tile_a_file_give_each_piece_once(content: str, block: int, limit: int, delimiter: str) -> None:
    raw, mark = content.encode(), delimiter.encode()
    whole = raw.split(mark)
    whole = whole[:-1] if not whole[-1] else whole
    blocks, input_records.BLOCK_BYTES = input_records.BLOCK_BYTES, block
    try:
        for size in range(1, len(raw) + 1):
            found = [piece for start in range(0, len(raw), size)
                     for piece in cut(io.BytesIO(raw), start, min(start + size, len(raw)), mark, limit)]
            assert [length for _, _, length in found] == [len(piece) for piece in whole]
            assert [piece for _, piece, _ in found] == [piece if len(piece) <= limit else None for piece in whole]
            assert all(raw[at:at + len(piece)] == piece for (at, _, _), piece in zip(found, whole, strict=True))
            assert list(cut_stream(io.BytesIO(raw), mark, limit)) == found
    finally:
        input_records.BLOCK_BYTES = blocks


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
