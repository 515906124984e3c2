"""Every thing of the lake lies below its root."""

from __future__ import annotations

import pytest

from pipelines.errors import ConfigError
from pipelines.lake.paths import Lake


@pytest.mark.parametrize("run_id", ["../../evil", "/tmp/evil", "a/b", "a b", ".hidden", "..", "", "x\n", "a" * 101, "ä"])
def test_a_run_id_that_is_no_plain_name_is_refused(tmp_path, run_id):
    with pytest.raises(ConfigError, match="is not a name that files and tables can have"):
        Lake.at(tmp_path).run(run_id)


@pytest.mark.parametrize("run_id", ["a", "gpt-demo-0f3a", "2026-11-24_x.y", "a" * 100])
def test_a_plain_name_is_a_folder_below_runs(tmp_path, run_id):
    assert Lake.at(tmp_path).run(run_id).path == tmp_path / "runs" / run_id
