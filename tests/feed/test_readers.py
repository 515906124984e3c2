"""Both readers: the same tables in the order asked; what is wrong with a shard is said, never traced."""

import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import ConfigError, DataError
from pipelines.feed.checked_shards import ShardFiles
from pipelines.feed.readers import open_reader, read_in_order
from pipelines.lake.manifest import row_group_runs
from pipelines.lake.store import FolderStore
from tests.support.shard_files import (
    SEQUENCE_LENGTH,
    described,
    length_of,
    manifest_of,
    publish,
    table_of,
    tokens_of,
    write_shard,
)

KINDS = ["arrow", "petastorm"]
WIDTH = SEQUENCE_LENGTH + 1


def shard_files(folder, manifest):
    return ShardFiles(FolderStore(folder), manifest.shards("train"), manifest.task.columns)


def read_all(kind, folder, manifest, order=None):
    shards = shard_files(folder, manifest)
    numbers = range(shards.num_row_groups) if order is None else order
    with closing(read_in_order(open_reader(kind, shards), shards, numbers)) as samples:
        return list(samples)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", [[3, 0, 5, 1], [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 2, 0, 2], [4], []])
def test_row_groups_come_in_the_order_asked(tmp_path, kind, order):
    manifest = publish(tmp_path / "mit Leerzeichen ü #1", [4, 3], [5], [2, 7, 1])
    read = read_all(kind, tmp_path / "mit Leerzeichen ü #1", manifest, order)
    first_rows = [0, 4, 7, 12, 14, 21, 22]
    rows = [list(range(first_rows[number], first_rows[number + 1])) for number in order]
    assert [samples.sample_ids_B.tolist() for samples in read] == rows
    assert [samples.columns["tokens"].tolist() for samples in read] == [[tokens_of(row) for row in group] for group in rows]
    assert [samples.columns["length"].tolist() for samples in read] == [[length_of(row) for row in group] for group in rows]
    assert {samples.columns["tokens"].dtype for samples in read} <= {np.dtype(np.int32)}


@pytest.mark.parametrize("kind", KINDS)
def test_an_order_longer_than_one_request_is_read_without_a_gap(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("pipelines.feed.readers.ROW_GROUPS_PER_REQUEST", 3)
    manifest = publish(tmp_path, [1] * 8)
    order = [7, 1, 3, 0, 2, 6, 5, 4]
    read = read_all(kind, tmp_path, manifest, order)
    assert [samples.sample_ids_B.tolist() for samples in read] == [[number] for number in order]


@pytest.mark.parametrize("kind", KINDS)
def test_equal_neighbours_are_read_once(tmp_path, kind):
    manifest = publish(tmp_path, [3, 2])
    shards = shard_files(tmp_path, manifest)
    asked = []

    class Counting:
        reads_ahead, reader = False, open_reader(kind, shards)

        def read(self, numbers):
            asked.extend(numbers)
            return self.reader.read(numbers)

        def close(self):
            self.reader.close()

    assert len(list(read_in_order(Counting(), shards, [0, 0, 0, 1, 0]))) == 5
    assert asked == [0, 1, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reader_left_in_the_middle_leaves_no_thread_and_no_open_file(tmp_path, kind):
    manifest = publish(tmp_path, [2] * 20, [2] * 20)
    shards = shard_files(tmp_path, manifest)
    reader = open_reader(kind, shards)
    with closing(read_in_order(reader, shards, range(40))) as samples:
        next(samples)
        next(samples)
    assert [thread for thread in threading.enumerate() if thread is not threading.main_thread()] == []
    open_files = [file.path for file in psutil.Process().open_files()]
    assert [path for path in open_files if path.startswith(str(tmp_path))] == []


@pytest.mark.processes
def test_the_arrow_reader_does_not_need_petastorm(tmp_path):
    publish(tmp_path, [2]).save(FolderStore(tmp_path))
    program = f"""
import sys
sys.modules.update(petastorm=None, pyspark=None)
from pathlib import Path
from pipelines.config.platform import Reader
from pipelines.config.recipe import Data
from pipelines.feed.batches import SampleOrder, Share, TrainingFeed
from pipelines.lake.store import FolderStore
from tests.support.shard_files import manifest_in
folder = Path({str(tmp_path)!r})
with TrainingFeed(FolderStore(folder), manifest_in(folder), Reader(kind="arrow"),
                  SampleOrder(Data(num_lanes=1), 0, 2), Share(2)) as feed:
    print(next(feed).samples)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (ran.stdout, ran.returncode) == ("2\n", 0), ran.stderr


def test_a_missing_petastorm_is_said_with_the_setting(tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.feed.readers.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"reader.kind: petastorm.*set reader.kind: arrow"):
        open_reader("petastorm", shard_files(tmp_path, publish(tmp_path, [1])))


def pair_table(tokens, lengths, kind=None):
    """A table of these values in the published types, or with another type of token."""
    return pa.table({"tokens": pa.array(tokens, pa.list_(kind or pa.int32())), "length": pa.array(lengths, pa.int32())})


def refusal(kind, folder, manifest):
    """The message; it names the file and what to do."""
    with pytest.raises(DataError) as caught:
        read_all(kind, folder, manifest)
    message = str(caught.value)
    assert message.startswith(str(folder / "train-00000.parquet"))
    assert "prepare" in caught.value.remedy
    assert "\n" not in message
    return caught.value.problem


@pytest.mark.parametrize("kind", KINDS)
class TestAShardThatIs:
    def test_missing(self, tmp_path, kind):
        manifest = publish(tmp_path, [4, 3])
        (tmp_path / "train-00000.parquet").unlink()
        assert refusal(kind, tmp_path, manifest) == "is missing"

    def test_a_folder(self, tmp_path, kind):
        manifest = publish(tmp_path, [4, 3])
        (tmp_path / "train-00000.parquet").unlink()
        (tmp_path / "train-00000.parquet").mkdir()
        refusal(kind, tmp_path, manifest)

    def test_truncated(self, tmp_path, kind):
        manifest = publish(tmp_path, [4, 3])
        path = tmp_path / "train-00000.parquet"
        path.write_bytes(path.read_bytes()[:-100])
        assert "were published" in refusal(kind, tmp_path, manifest)

    def test_changed_in_one_bit(self, tmp_path, kind):
        manifest = publish(tmp_path, [4, 3])
        path = tmp_path / "train-00000.parquet"
        content = bytearray(path.read_bytes())
        content[40] ^= 1
        path.write_bytes(content)
        assert "has changed since it was published" in refusal(kind, tmp_path, manifest)

    @pytest.mark.parametrize("content", [b"", b"no Parquet file at all, but long enough to be one" * 9])
    def test_no_parquet_file(self, tmp_path, kind, content):
        path = tmp_path / "train-00000.parquet"
        path.write_bytes(content)
        assert "cannot be read" in refusal(kind, tmp_path, manifest_of([described(path, [4])]))

    def test_corrupt_inside_a_page(self, tmp_path, kind):
        path = tmp_path / "train-00000.parquet"
        write_shard(path, table_of(range(400)), [400])
        content = bytearray(path.read_bytes())
        content[8:600] = bytes(592)
        path.write_bytes(content)
        refusal(kind, tmp_path, manifest_of([described(path, [400])]))

    def test_of_another_column_type(self, tmp_path, kind):
        path = tmp_path / "train-00000.parquet"
        table = pair_table([[1] * WIDTH], [WIDTH], pa.int64())
        problem = refusal(kind, tmp_path, manifest_of([write_shard(path, table, [1])]))
        assert problem == "column tokens is list<element: int64>, not list<item: int32>"

    def test_without_a_column(self, tmp_path, kind):
        path = tmp_path / "train-00000.parquet"
        shard = write_shard(path, table_of(range(3)).select(["tokens"]), [3])
        assert refusal(kind, tmp_path, manifest_of([shard])) == "column length is missing, not int32"

    def test_of_another_row_length(self, tmp_path, kind):
        path = tmp_path / "train-00000.parquet"
        shard = write_shard(path, table_of(range(3), SEQUENCE_LENGTH - 1), [3])
        assert refusal(kind, tmp_path, manifest_of([shard])) == f"row group 0 is not 3 rows of {WIDTH} values in column tokens"

    def test_of_rows_that_only_on_average_have_the_length(self, tmp_path, kind):
        path = tmp_path / "train-00000.parquet"
        table = pair_table([[1] * (WIDTH - 1), [1] * (WIDTH + 1)], [3, 3])
        assert "is not 2 rows of" in refusal(kind, tmp_path, manifest_of([write_shard(path, table, [2])]))

    @pytest.mark.parametrize("row", [None, [None] * WIDTH])
    def test_with_nulls(self, tmp_path, kind, row):
        path = tmp_path / "train-00000.parquet"
        table = pair_table([[1] * WIDTH, row], [3, 3])
        assert "is not 2 rows of" in refusal(kind, tmp_path, manifest_of([write_shard(path, table, [2])]))

    @pytest.mark.parametrize("length", [1, WIDTH + 1])
    def test_with_an_impossible_length(self, tmp_path, kind, length):
        path = tmp_path / "train-00000.parquet"
        table = pair_table([[1] * WIDTH], [length])
        problem = refusal(kind, tmp_path, manifest_of([write_shard(path, table, [1])]))
        assert problem == f"row group 0 has a length outside 2..{WIDTH}"

    def test_of_other_row_groups_than_the_manifest_says(self, tmp_path, kind):
        manifest = publish(tmp_path, [4, 3])
        shard = replace(manifest.splits["train"][0], row_groups=row_group_runs([3, 4]))
        assert "the manifest says 2 with 7" in refusal(kind, tmp_path, manifest_of([shard]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_as_spark_writes_it_is_read(tmp_path, kind):
    path = tmp_path / "train-00000.parquet"
    element = pa.field("element", pa.int32(), nullable=True)
    schema = pa.schema([pa.field("tokens", pa.list_(element)), pa.field("length", pa.int32())])
    pq.write_table(pa.table({"tokens": [tokens_of(1)], "length": [length_of(1)]}, schema=schema), path)
    assert read_all(kind, tmp_path, manifest_of([described(path, [1])]))[0].columns["tokens"].tolist() == [tokens_of(1)]


def test_a_shard_is_checked_once(tmp_path, monkeypatch):
    manifest = publish(tmp_path, [4, 3], [2])
    hashed = []
    monkeypatch.setattr("pipelines.lake.store.file_sha256",
                        lambda path: hashed.append(path.name) or manifest.splits["train"][len(hashed) - 1].sha256)
    shards = shard_files(tmp_path, manifest)
    for _ in range(3):
        list(read_in_order(open_reader("arrow", shards), shards, [0, 1, 2]))
    assert hashed == ["train-00000.parquet", "train-00001.parquet"]
