"""Compressed input is read as its content, whatever it is called, and cannot fill memory or disk."""

from __future__ import annotations

import bz2
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.errors import DataError
from pipelines.prepare import compressed
from pipelines.prepare.compressed import codec_of
from pipelines.prepare.inputs import list_files
from pipelines.prepare.text import local_documents
from pipelines.prepare.text.input_records import Record
from pipelines.prepare.text.local_documents import cut_into_pieces, read_piece
from tests.prepare.conftest import make_recipe, make_text


def zstd(raw: bytes) -> bytes:
    packed: bytes = pa.Codec("zstd").compress(raw, asbytes=True)
    return packed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "bz2": bz2.compress, "zst": zstd}
TEXTS = [make_text(seed) for seed in range(20)]
LINES = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS).encode()


def read(path: Path, **source: object) -> Iterator[Record]:
    prepare = make_recipe({"path": str(path), **source}, max_document_bytes=1000).prepare
    pieces = cut_into_pieces(list_files(prepare.inputs, Path("/nowhere")), prepare.inputs)
    return (record for piece in pieces for record in read_piece(piece, prepare))


@pytest.mark.parametrize("ending", COMPRESS)
def test_each_format_is_read_from_compressed_files_whatever_they_are_called(
        tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compress = COMPRESS[ending]
    monkeypatch.setattr(local_documents, "PIECE_BYTES", 100)  # plain files would be read in many pieces
    (tmp_path / f"rows.jsonl.{ending}").write_bytes(compress(LINES))
    (tmp_path / "rows.jsonl").write_bytes(compress(LINES))
    (tmp_path / "cut.txt").write_bytes(compress("\n--\n".join(TEXTS).encode()))
    (tmp_path / "one").write_bytes(compress(TEXTS[0].encode()))
    for name in (f"rows.jsonl.{ending}", "rows.jsonl"):
        rows = list(read(tmp_path / name, format="jsonl"))
        assert [(row.content or b"").decode() for row in rows] == TEXTS
        assert [row.position for row in rows[:2]] == [0, LINES.index(b"\n") + 1]  # in the content
    assert [(row.content or b"").decode() for row in read(tmp_path / "cut.txt", delimiter="\n--\n")] == TEXTS
    assert [row.content for row in read(tmp_path / "one")] == [TEXTS[0].encode()]


@pytest.mark.parametrize("ending", COMPRESS)
def test_archives_behind_one_another_are_one_file(tmp_path: Path, ending: str) -> None:
    half = LINES.index(b"\n", len(LINES) // 2) + 1
    (tmp_path / "x").write_bytes(COMPRESS[ending](LINES[:half]) + COMPRESS[ending](LINES[half:]))
    assert len(list(read(tmp_path / "x", format="jsonl"))) == 20


def test_plain_text_with_the_ending_of_an_archive_is_plain_text(tmp_path: Path) -> None:
    for name, raw in (("a.gz", b"BZh is how it begins"), ("b.zst", LINES[:200]), ("c.bz2", b"")):
        (tmp_path / name).write_bytes(raw)
    assert [(record.content, record.reason) for record in read(tmp_path)] == [
        (b"BZh is how it begins", None), (LINES[:200], None), (None, "empty")]


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("format", ["text", "jsonl"])
def test_an_archive_that_is_cut_off_or_damaged_is_an_error_with_its_place(
        tmp_path: Path, ending: str, format: str) -> None:
    raw = COMPRESS[ending](LINES[:900])  # not too long: a document that is, is not read to its end
    for name, damaged in (("cut-off", raw[:-5]), ("damaged", raw[:-3] + bytes([raw[-3] ^ 255]) + b"xx")):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=rf"prepare\.inputs\.0\.path: .*/{name} cannot be read \("):
            list(read(tmp_path / name, format=format))


@pytest.mark.parametrize("ending", COMPRESS)
def test_an_archive_that_grows_beyond_reason_is_stopped(
        tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "SMALL_BYTES", 1024**2)
    (tmp_path / "bomb").write_bytes(COMPRESS[ending](b"\n" * 8 * 1024**2))
    given = 0
    with pytest.raises(DataError, match=r"bomb cannot be read \(its content is more than 100 times as long"):
        for _ in read(tmp_path / "bomb", format="jsonl"):
            given += 1
    assert given <= 2 * 1024**2


def test_too_long_content_is_a_counted_record_and_is_not_decompressed_to_its_end(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "SMALL_BYTES", 2000)
    (tmp_path / "long.gz").write_bytes(gzip.compress(b"x" * 1024**2))
    (record,) = read(tmp_path / "long.gz")
    assert (record.reason, record.content) == ("oversized", None)


def test_no_utf8_text_looks_compressed() -> None:
    for raw in (b"", b"B", b"BZh", b"BZh9", b"BZh9 is a name", b"(\xc2\xb5/", b"\x1f\x8b"):
        assert codec_of(raw) is None
    assert codec_of(io.BytesIO(bz2.compress(b"")).read(10)) == "bz2"
