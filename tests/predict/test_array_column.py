"""Arrays that workers read themselves are those that Spark would give."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import DataError
from pipelines.predict import array_column
from pipelines.predict.array_column import ArrayColumn, file_path
from pipelines.prepare.images.decoding import ImageRule, ImageShape
from pipelines.prepare.images.image_values import fitted_pixels, numbers_of, stacked_pixels

VALUES = [[i, i + 1, i + 2] for i in range(23)]


def write(folder, name="a b.parquet", values=VALUES, column="image"):
    pq.write_table(pa.table({column: pa.array(values, pa.list_(pa.int16())), "other": list(range(len(values)))}), folder / name,
                   row_group_size=5)
    return (folder / name).as_uri()


@pytest.mark.parametrize("read_rows", [1, 3, 256])
@pytest.mark.parametrize("rows", [range(23), range(7, 12), [22], [0, 5, 4, 4, 20]])
def test_rows_are_found_by_their_number_wherever_reading_begins(tmp_path, monkeypatch, read_rows, rows):
    monkeypatch.setattr(array_column, "READ_ROWS", read_rows)
    file = write(tmp_path)
    found = ArrayColumn("--input", "image").of([(file, row) for row in rows])
    assert [value.tolist() for value in found] == [VALUES[row] for row in rows]


def test_files_follow_each_other_and_one_without_the_column_has_none(tmp_path):
    first, second, third = write(tmp_path, "1"), write(tmp_path, "2", column="label"), write(tmp_path, "3", [[9], None, [7, 8]])
    column = ArrayColumn("--input", "image")
    found = column.of([(first, 22), (second, 0), (second, 1), (third, 0), (third, 1), (third, 2)])
    assert [None if value is None else value.tolist() for value in found] == [VALUES[22], None, None, [9], None, [7, 8]]


def test_a_file_that_is_gone_shorter_or_none_any_more_is_an_error_of_the_input(tmp_path):
    file = write(tmp_path)
    for content in (VALUES[:3], None):
        write(tmp_path, values=content) if content else (tmp_path / "a b.parquet").write_bytes(b"PAR1 no more")
        with pytest.raises(DataError, match=r"^--input: .*a b\.parquet cannot be read"):
            ArrayColumn("--input", "image").of([(file, 20)])
    (tmp_path / "a b.parquet").unlink()
    with pytest.raises(DataError, match="No such file"):
        ArrayColumn("--input", "image").of([(file, 0)])


def test_a_local_files_path_is_read_from_sparks_names():
    assert file_path("file:///a/b%20c") == file_path("file:/a/b%20c") == "/a/b c"


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, bool])
def test_arrays_checked_together_are_what_each_of_them_is(dtype):
    shape = ImageShape(3, 2, 4)
    values = list(np.random.default_rng(0).integers(0, 2 if dtype is bool else 256, (5, shape.values)).astype(dtype))
    rule = ImageRule(shape, True, True, "crop", 10**6, "")
    found = stacked_pixels(values, shape)
    assert [row.tobytes() for row in found] == [fitted_pixels(value, rule) for value in values]


@pytest.mark.parametrize("other", [np.zeros(23), np.full(24, 256), np.full(24, -1), np.full(24, 0.5), np.full(24, np.nan),
                                   np.zeros((4, 6)), [0] * 24, b"\x89PNG", None])
def test_one_that_is_no_array_of_the_models_pixels_leaves_all_to_the_careful_way(other):
    assert stacked_pixels([np.zeros(24), other], ImageShape(3, 2, 4)) is None
    assert stacked_pixels([], ImageShape(3, 2, 4)) is None


@pytest.mark.parametrize("values", [[[1, 2], [3, 4]], [[1, 2], [3]], [[1, 2], None], [[1, None], [3, 4]], [], [[], []]])
def test_numbers_of_a_column_are_its_rows_whether_they_are_alike_or_not(values):
    column = pa.array([[0, 0], *values], pa.list_(pa.int16()))[1:]
    found = numbers_of(column)
    assert [None if row is None else [None if value != value else value for value in row.tolist()] for row in found] == values
