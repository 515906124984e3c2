"""What the inputs are, and when they are the same inputs."""

from __future__ import annotations

import glob
import gzip
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import load_config
from pipelines.config.datasets import InputSource
from pipelines.errors import DataError
from pipelines.lake.paths import Lake
from pipelines.prepare import inputs as inputs_module
from pipelines.prepare.inputs import fingerprint, list_files, recipe_hash
from pipelines.prepare.prepare import plan_prepare
from pipelines.prepare.text.local_documents import cut_into_pieces, group_pieces, read_piece
from pipelines.prepare.text.sources import local_mark
from tests.conftest import ROOT
from tests.prepare.conftest import make_recipe, write_texts


def names(*inputs: InputSource, lake: Path = Path("/nowhere")) -> list[str]:
    return [file.name for file in list_files(inputs, lake)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "a täxt [x] folder"
    for name in ("b.py", "__init__.py", ".hidden.py", "notes.md", "sub/c.py", ".git/d.py", "odd [1]*?.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.mark.parametrize("format", ["text", "jsonl", "parquet"])
def test_a_folder_is_read_recursively_without_hidden_names_in_every_format(tree: Path, format: str) -> None:
    for name in ("_private/x.py", "_date=1/y.py", "z.py._COPYING_"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(name)
    assert names(InputSource.model_validate({"path": str(tree), "format": format})) == [
        "_date=1/y.py", "b.py", "notes.md", "odd [1]*?.py", "sub/c.py"]


def test_a_pattern_chooses_file_names(tree: Path) -> None:
    assert names(InputSource(path=str(tree), pattern="*.md")) == ["notes.md"]


def test_excluded_names_of_files_and_folders_are_left_out(tree: Path) -> None:
    assert names(InputSource(path=str(tree), pattern="*.py", exclude=("sub", "odd*"))) == ["b.py"]


def test_a_glob_skips_hidden_names_too(tree: Path) -> None:
    assert names(InputSource(path=f"{glob.escape(str(tree))}/*.py")) == ["b.py", "odd [1]*?.py"]


def test_a_real_name_wins_over_the_glob_that_it_looks_like(tree: Path) -> None:
    assert names(InputSource(path=str(tree / "odd [1]*?.py"))) == ["odd [1]*?.py"]


def test_a_glob_takes_files_and_folders(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert names(InputSource(path="*.md"), InputSource(path="s*")) == ["notes.md", "c.py"]


def test_a_hidden_file_named_itself_is_read(tree: Path) -> None:
    for name in (".hidden.py", "__init__.py"):
        assert names(InputSource(path=str(tree / name))) == [name]


def test_the_lake_is_not_its_own_input(tree: Path) -> None:
    assert "sub/c.py" not in names(InputSource(path=str(tree)), lake=tree / "sub")


@pytest.mark.parametrize("path", ["nothing.txt", "*.nothing", "empty"])
def test_an_input_without_files_is_named(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"prepare\.inputs\.1\.path: "):
        write_texts(tmp_path / "good", 1)
        names(InputSource(path=str(tmp_path / "good")), InputSource(path=str(tmp_path / path)))


def version_of(folder: Path, lake: Lake, **prepare: object) -> str | None:
    return plan_prepare(make_recipe(folder, **prepare), lake).version


def test_moved_and_touched_files_are_the_same_input(tmp_path: Path, lake: Lake) -> None:
    write_texts(tmp_path / "one", 3)
    shutil.copytree(tmp_path / "one", tmp_path / "two", copy_function=shutil.copyfile)
    os.utime(tmp_path / "two" / "0000.txt", (1, 1))
    assert version_of(tmp_path / "one", lake) == version_of(tmp_path / "two", lake)


def test_changed_added_and_renamed_files_are_another_input(tmp_path: Path, lake: Lake) -> None:
    folder = tmp_path / "texts"
    write_texts(folder, 3)
    versions = [version_of(folder, lake)]
    (folder / "0001.txt").write_text("another text of it")
    versions.append(version_of(folder, lake))
    (folder / "more.txt").write_text("more")
    versions.append(version_of(folder, lake))
    (folder / "more.txt").rename(folder / "less.txt")
    versions.append(version_of(folder, lake))
    versions.append(version_of(folder, lake, sequence_length=17))
    assert len(set(versions)) == 5


def version_before(files: list[inputs_module.InputFile]) -> str:
    """The fingerprint of the first release, which read archives and byte-order marks as text."""
    whole = hashlib.sha256()
    for file in files:
        content = hashlib.sha256(Path(file.path).read_bytes()).hexdigest()
        whole.update(repr((file.input_index, file.name, file.bytes, content)).encode())
    return whole.hexdigest()


@pytest.mark.parametrize(("format", "raw", "same"), [
    ("text", b"plain", True), ("jsonl", b'{"text": "a"}', True), ("jsonl", b'\xef\xbb\xbf{"text": "a"}', True),
    ("parquet", b"\x1f\x8b\x08 is no archive", True), ("text", b"\xef\xbb\xbfmarked", False),
    ("text", gzip.compress(b"x"), False), ("jsonl", gzip.compress(b"{}"), False)],
    ids=["plain", "lines", "marked lines", "parquet", "marked", "archive", "archive of lines"])
def test_only_what_is_read_in_another_way_than_before_makes_another_version(
        tmp_path: Path, format: str, raw: bytes, same: bool) -> None:
    (tmp_path / "x").write_bytes(raw)
    prepare = make_recipe({"path": str(tmp_path), "format": format}).prepare
    files = list_files(prepare.inputs, Path("/nowhere"))
    assert (fingerprint(files, lambda file: local_mark(prepare, file)) == version_before(files)) is same


def test_above_the_bound_modification_time_stands_for_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.prepare.inputs.CONTENT_FINGERPRINT_BYTES", 10)
    write_texts(tmp_path / "texts", 2)
    before = fingerprint(list_files((InputSource(path=str(tmp_path / "texts")),), Path("/nowhere")))
    os.utime(tmp_path / "texts" / "0000.txt", (1, 1))
    assert fingerprint(list_files((InputSource(path=str(tmp_path / "texts")),), Path("/nowhere"))) != before


def test_a_file_url_is_the_local_path_that_it_names(tmp_path: Path, lake: Lake) -> None:
    folder = tmp_path / "ein Täxt"
    write_texts(folder, 3)
    version = version_of(folder, lake)
    for url in (folder.as_uri(), f"file://{folder}", f"file:{folder}", f"file://localhost{folder}"):
        assert plan_prepare(make_recipe(url), lake).version == version
    (folder / "a%20b.txt").write_text("x")
    assert names(InputSource(path=f"file://{folder}/a%20b.txt")) == ["a%20b.txt"]


def test_a_plan_writes_nothing_and_knows_no_version_of_urls(tmp_path: Path, lake: Lake) -> None:
    write_texts(tmp_path / "texts", 1)
    assert plan_prepare(make_recipe("s3a://bucket/texts"), lake).version is None
    plan = plan_prepare(make_recipe(tmp_path / "texts"), lake)
    assert (plan.exists, plan.num_files, lake.root.exists()) == (False, 1, False)


def test_a_given_tokenizer_counts_by_its_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("{}")
    def hash_with(name: str) -> str:
        return recipe_hash(make_recipe("x", tokenizer={"path": str(tmp_path / name)}).prepare)

    one, two = hash_with("one"), hash_with("two")
    (tmp_path / "two").write_text("{ }")
    assert one == two != hash_with("two")


def test_a_tokenizer_path_contradicts_another_kind() -> None:
    (fault,) = make_recipe("x", tokenizer={"kind": "bytes", "path": "y"}).prepare.contradictions()
    assert str(fault).startswith("prepare.tokenizer.path: is given, but prepare.tokenizer.kind is 'bytes'")


def test_a_large_file_is_read_by_many_tasks(tmp_path: Path) -> None:
    (tmp_path / "large.jsonl").write_bytes(b"x" * 40 * 1024**2)
    inputs = (InputSource(path=str(tmp_path / "large.jsonl"), format="jsonl"),)
    pieces = cut_into_pieces(list_files(inputs, Path("/nowhere")), inputs)
    assert [piece.start for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    assert [piece for group in group_pieces(pieces) for piece in group] == pieces
    assert len(group_pieces(pieces)) == 5


def grow(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"more\n")


def rewrite(path: Path) -> None:
    """As many bytes as before."""
    raw = path.read_bytes()
    path.write_bytes(raw[::-1])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # whatever the clock of the file system


CHANGES: list[Callable[[Path], None]] = [grow, rewrite, Path.unlink, lambda path: os.truncate(path, 3)]


@pytest.mark.parametrize("change", CHANGES, ids=["grow", "rewrite", "remove", "cut off"])
@pytest.mark.parametrize("kind", ["whole", "cut", "jsonl", "parquet"])
def test_a_file_that_changes_between_listing_and_reading_is_named(
        tmp_path: Path, kind: str, change: Callable[[Path], None]) -> None:
    path = tmp_path / "in"
    if kind == "parquet":
        pq.write_table(pa.table({"text": ["a", "b"]}), path)
    else:
        path.write_bytes(b'{"text": "a"}\n{"text": "b"}\n')
    source = {"path": str(path), "format": kind if kind in ("jsonl", "parquet") else "text",
              "delimiter": "\n" if kind == "cut" else None}
    prepare = make_recipe(source).prepare
    pieces = cut_into_pieces(list_files(prepare.inputs, Path("/nowhere")), prepare.inputs)
    assert [record.reason for piece in pieces for record in read_piece(piece, prepare)] == [None] * (
        1 if kind == "whole" else 2)
    change(path)
    with pytest.raises(DataError, match=r"prepare\.inputs\.0\.path: .*/in: input changed while it was read"):
        list(read_piece(pieces[0], prepare))


def test_a_file_that_grows_while_a_part_of_it_is_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"a\nb\n")
    prepare = make_recipe({"path": str(tmp_path / "in.txt"), "delimiter": "\n"}).prepare
    (piece,) = cut_into_pieces(list_files(prepare.inputs, Path("/nowhere")), prepare.inputs)
    records = read_piece(piece, prepare)
    assert next(records).content == b"a"
    grow(tmp_path / "in.txt")
    with pytest.raises(DataError, match="input changed while it was read"):
        list(records)


def test_a_file_that_changes_while_it_is_hashed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "in", 2)
    hash_of = inputs_module.file_sha256

    def hash_and_grow(path: Path) -> str:
        grow(tmp_path / "in" / "0001.txt")
        return hash_of(path)

    monkeypatch.setattr(inputs_module, "file_sha256", hash_and_grow)
    with pytest.raises(DataError, match=r"0001\.txt: input changed while it was read"):
        fingerprint(list_files((InputSource(path=str(tmp_path / "in")),), Path("/nowhere")))


def test_a_file_that_may_not_be_read_is_named_before_spark_starts(
        tmp_path: Path, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "in", 2)

    def refuse(path: Path) -> str:  # permissions do not stop the user root
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(inputs_module, "file_sha256", refuse)
    with pytest.raises(DataError, match=r"0000\.txt cannot be read \(Permission denied\); .*fix its permissions"):
        version_of(tmp_path / "in", lake)


def contents(*sources: dict[str, object]) -> list[tuple[bytes | None, str | None]]:
    prepare = make_recipe(*sources).prepare
    pieces = cut_into_pieces(list_files(prepare.inputs, Path("/nowhere")), prepare.inputs)
    return [(record.content, record.reason) for piece in pieces for record in read_piece(piece, prepare)]


@pytest.mark.parametrize("delimiter", [None, "\n"])
def test_a_byte_order_mark_is_not_part_of_a_text(tmp_path: Path, delimiter: str | None) -> None:
    for name, raw in (("a", b"\xef\xbb\xbfwith"), ("b", b"\xef\xbb\xbf"), ("c", "utf-16".encode("utf-16"))):
        (tmp_path / name).write_bytes(raw)
    assert contents({"path": str(tmp_path), "delimiter": delimiter}) == [
        (b"with", None), (None, "empty"), (None, "undecodable")]


def test_odd_names_and_links_are_followed_once_or_left_out(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    for name in (b"new\nline.txt", b"not utf8 \xff.txt", b"folder.txt/inner.txt"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(name)
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "dangling.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.txt")
    assert {content for content, _ in contents({"path": str(tmp_path), "pattern": "*.txt"})} == {
        b"new\nline.txt", b"folder.txt/inner.txt", None}  # None: this content is not UTF-8


@pytest.mark.parametrize("name", ["pipe.txt", "zero.txt", "self.txt"])
def test_what_is_not_a_file_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zero.txt").symlink_to("/dev/zero")
    (tmp_path / "self.txt").symlink_to("self.txt")
    for path in (tmp_path / name, tmp_path / f"*{name}"):
        with pytest.raises(DataError, match=rf"{name}' (is neither a file nor a folder|cannot be read)"):
            names(InputSource(path=str(path)))


def test_odd_parquet_files_are_read_or_named(tmp_path: Path) -> None:
    def written(name: str, table: pa.Table) -> dict[str, object]:
        pq.write_table(table, tmp_path / name)
        return {"path": str(tmp_path / name), "format": "parquet"}

    nested = pa.table({"other": [{"text": "x" * 1000}], "text": ["y"]})
    source = written("nested.parquet", nested)
    assert contents(source) == [(b"y", None)]
    inputs = make_recipe(source).prepare.inputs
    (piece,) = cut_into_pieces(list_files(inputs, Path("/nowhere")), inputs)
    assert piece.bytes < 500  # of the column that is read
    assert contents(written("empty.parquet", pa.table({"text": pa.array([], pa.string())}))) == []
    with pytest.raises(DataError, match="'text' of .*struct.parquet is struct"):
        contents(written("struct.parquet", pa.table({"text": [{"a": "x"}]})))
    with pytest.raises(DataError, match="twice.parquet has 2 columns 'text'"):
        contents(written("twice.parquet", pa.table([["a"], ["b"]], names=["text", "text"])))
    (tmp_path / "nested.parquet").rename(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.parquet"))
    with pytest.raises(DataError, match="cannot be read"):
        contents({"path": str(tmp_path), "pattern": "?.parquet", "format": "parquet"})


def test_versions_of_text_are_what_they_were_before_there_was_a_test_split():
    """Recorded from recipes as they were then: a dataset of theirs is found again, and not prepared anew."""
    found = {name: recipe_hash(load_config(ROOT / f"conf/recipes/{name}.yaml", ROOT / "conf/platforms/local.yaml").recipe.prepare)
             for name in ("gpt-demo", "gpt2-124m", "shakespeare-char")}
    assert found == {"gpt-demo": "5906d4b4cc4df49c", "gpt2-124m": "4c7bae29fe6b7aea", "shakespeare-char": "7fd90ae46303028a"}
    with_test = make_recipe("x", split={"test_fraction": 0.1}).prepare
    assert recipe_hash(with_test) != recipe_hash(make_recipe("x", split={}).prepare)
