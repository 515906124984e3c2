"""What is exported is what petastorm itself reads: every row, once, as it was prepared."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pyspark.sql import SparkSession

from pipelines.cli import main
from pipelines.errors import ConfigError, DataError, StorageError
from pipelines.lake.manifest import MANIFEST_NAME, Shard, row_group_runs
from pipelines.lake.store import FolderStore, file_sha256
from pipelines.lake.task_facts import IMAGE_FILE, VALUE_BYTES, Column
from pipelines.prepare import petastorm_export
from pipelines.prepare.petastorm_export import export_petastorm, exported_version
from pipelines.prepare.prepare import prepare
from tests.conftest import ROOT
from tests.prepare.conftest import make_recipe, streams, write_texts
from tests.prepare.images.conftest import image_recipe, lake, write_pictures  # noqa: F401 - a fixture
from tests.support.readme import block

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from petastorm import make_reader
    from petastorm.pytorch import DataLoader

pytestmark = pytest.mark.processes

Report = Callable[[str], None]


def png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.effect_noise((width, height), 50).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def silent() -> Report:
    return lambda message: None


@pytest.mark.parametrize("storage", ["pixels", "encoded"])
def test_images_are_read_by_petastorm_and_its_loader(
        spark: SparkSession, lake, tmp_path: Path, silent: Report, storage: str) -> None:  # noqa: F811
    classes_of = write_pictures(tmp_path / "in", {"cat": 30, "dog": 27}, 5, 4, 3)
    split = {"validation_fraction": 0.2, "test_fraction": 0.2}
    recipe = image_recipe(tmp_path / "in", storage=storage, shard_bytes=1500, split=split)
    manifest = prepare(spark, recipe, lake, silent)
    assert len(manifest.shards("train")) > 1
    folder = tmp_path / "an export"
    assert exported_version(folder) is None
    export_petastorm(lambda: spark, manifest, lake, folder)
    assert exported_version(folder) == f"pictures {manifest.version}"
    found: Counter[tuple[bytes, str]] = Counter()
    for split in ("train", "validation", "test"):
        with make_reader(f"file://{folder / split}", num_epochs=1, shuffle_row_groups=False, reader_pool_type="dummy") as reader:
            read = [(row.image.tobytes(), manifest.task.facts["classes"][row.label]) for row in reader]
        assert len(read) == manifest.rows(split)
        found.update(read)
    assert found == Counter(classes_of.items())
    # as README has it, but for petastorm's threads: on a busy machine its reader may find itself done before they have begun
    text = block("For Petastorm", 0).text.replace("/FOLDER", str(folder))
    text = text.replace("num_epochs=1", 'num_epochs=1, reader_pool_type="dummy"')
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    exec(text + "        seen.append((images, labels))\n", {"seen": seen})
    images, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    assert images.shape == (manifest.rows("train"), 3, 5, 4) and images.dtype == torch.uint8
    assert labels.dtype == torch.int32 and len(labels) == manifest.rows("train")


def test_text_is_read_by_petastorm_and_its_loader(spark: SparkSession, lake, tmp_path: Path, silent: Report) -> None:  # noqa: F811
    write_texts(tmp_path / "in", 20)
    manifest = prepare(spark, make_recipe(tmp_path / "in"), lake, silent)
    export_petastorm(lambda: spark, manifest, lake, tmp_path / "out")
    for split in ("train", "validation"):
        with DataLoader(make_reader((tmp_path / "out" / split).as_uri(), num_epochs=1, shuffle_row_groups=False,
                                    reader_pool_type="dummy"), batch_size=7) as batches:
            read = [(tokens.numpy(), int(length)) for batch in batches
                    for tokens, length in zip(batch["tokens"], batch["length"], strict=True)]
        assert len(read) == manifest.rows(split)
        assert sum(length - 1 for _, length in read) == manifest.units[split]
        (stream,) = streams(lake, manifest, split)
        joined = np.concatenate([tokens[1:length] for tokens, length in read])
        assert joined.tolist() == stream[1:]


def test_an_export_is_whole_and_never_over_another(spark: SparkSession, lake, tmp_path: Path, silent: Report) -> None:  # noqa: F811
    write_texts(tmp_path / "in", 20)
    manifest = prepare(spark, make_recipe(tmp_path / "in"), lake, silent)
    shard = lake.root / lake.dataset("test", manifest.version) / manifest.shards("train")[0].path
    content = shard.read_bytes()
    one_byte = content[:9] + bytes([content[9] ^ 1]) + content[10:]
    for damage, said in ((content[:-9], "has changed since"), (one_byte, "has changed since"), (None, "is missing")):
        shard.unlink() if damage is None else shard.write_bytes(damage)
        with pytest.raises(DataError, match=f"train-00000.parquet: {said}.*; restore the file, or delete the dataset version"):
            export_petastorm(lambda: spark, manifest, lake, tmp_path / "exports" / "one")
        assert not list((tmp_path / "exports").iterdir())
    shard.write_bytes(content)
    mine = tmp_path / "mine"
    mine.mkdir()
    assert exported_version(mine) is None
    export_petastorm(lambda: spark, manifest, lake, mine)  # into an empty folder
    assert exported_version(mine) == f"test {manifest.version}"
    with pytest.raises(StorageError, match="mine: "):
        export_petastorm(lambda: spark, manifest, lake, mine)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(ConfigError, match="exists, and is not an export; name a folder that is empty or does not exist"):
        exported_version(tmp_path / "other")
    with pytest.raises(ConfigError, match="is not a folder that can be read"):
        exported_version(tmp_path / "other" / "notes.txt")


@pytest.mark.parametrize(("files", "said"), [
    ([b"no image"], "cannot be read: cannot identify image file"),
    ([png(5, 4)[:-30]], "cannot be read: .*truncated"),
    ([png(4, 5)], r"an image is ImageShape\(channels=1, height=4, width=5\), not \(1, 5, 4\)")])
def test_a_published_shard_with_what_is_no_image_is_told_with_its_place(tmp_path: Path, files: list[bytes], said: str) -> None:
    path = tmp_path / "train-00000.parquet"
    pq.write_table(pa.table({"image": pa.array(files, pa.binary())}), path)
    shard = Shard(path.name, row_group_runs([1]), path.stat().st_size, file_sha256(path))
    column = Column("image", "uint8", (1, 5, 4), encoding=IMAGE_FILE)
    fault = petastorm_export._outcome(FolderStore(tmp_path), shard, (column,), tmp_path / "out")["fault"]
    assert fault["kind"] == "storage"  # there is no folder to write to
    (tmp_path / "out").mkdir()
    fault = petastorm_export._outcome(FolderStore(tmp_path), shard, (column,), tmp_path / "out")["fault"]
    assert (fault["kind"], fault["place"]) == ("data", str(path)) and re.search(said, fault["problem"])


@pytest.mark.parametrize("encoding", [None, VALUE_BYTES])
def test_a_row_group_is_one_however_many_arrays_its_bytes_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               encoding: str | None) -> None:
    column = Column("image", "uint8", (1, 2, 3), encoding=encoding)
    images = np.random.default_rng(0).integers(0, 256, (23, 6), dtype=np.uint8)
    path = tmp_path / "train-00000.parquet"
    held = [image.tobytes() if encoding else image.tolist() for image in images]
    pq.write_table(pa.table({"image": pa.array(held, column.arrow_type)}), path, row_group_size=20)
    shard = Shard(path.name, row_group_runs([20, 3]), path.stat().st_size, file_sha256(path))
    monkeypatch.setattr(petastorm_export, "ARRAY_BYTES", 7 * 6)
    (tmp_path / "out").mkdir()
    columns = (column,)
    groups = list(petastorm_export._row_groups(FolderStore(tmp_path), shard, columns))
    assert [[len(chunk) for chunk in image.chunks] for (image,) in groups] == [[7, 7, 6], [3]]
    assert petastorm_export._outcome(FolderStore(tmp_path), shard, columns, tmp_path / "out") == {}
    written = pq.ParquetFile(tmp_path / "out" / path.name)
    assert [written.metadata.row_group(index).num_rows for index in range(written.num_row_groups)] == [20, 3]
    found = [np.load(io.BytesIO(file)) for file in written.read().column("image").to_pylist()]
    assert (np.stack(found) == images.reshape(-1, 1, 2, 3)).all()


def test_the_job_exports_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_texts(tmp_path / "in", 20)
    out = tmp_path / "out"
    options = ["--recipe", str(ROOT / "conf/recipes/gpt-demo.yaml"), "--platform", str(ROOT / "conf/platforms/local.yaml"),
               "--set", f"storage.root={tmp_path / 'lake'}", "--set", f"prepare.inputs=[{{path: {tmp_path / 'in'}}}]",
               "--set", "prepare.tokenizer.kind=bytes", "--set", "prepare.split.validation_fraction=0.3"]
    assert main(["prepare", *options, "--export", "tensorflow", str(out)]) == 2
    assert "--export tensorflow: is not a format that is written; known: petastorm" in capsys.readouterr().err
    assert main(["prepare", *options, "--export", "petastorm", str(out), "--dry-run"]) == 0
    assert not out.exists()
    for said in (f"export: wrote {out}", f"export: export {out} is complete, nothing to do"):
        done = subprocess.run([sys.executable, ROOT / "jobs/prepare.py", *options, "--export", "petastorm", out], timeout=200,
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0 and said in done.stdout + done.stderr, done.stderr
    assert (out / "train" / "_common_metadata").exists() and (out / MANIFEST_NAME).exists()
    content = (out / MANIFEST_NAME).read_text()
    (out / MANIFEST_NAME).write_text(content.replace('"version": "', '"version": "f'))
    assert main(["prepare", *options, "--export", "petastorm", str(out), "--dry-run"]) == 2
    assert "holds dataset gpt-demo f" in capsys.readouterr().err
