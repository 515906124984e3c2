"""A rank's end is recorded as soon as its work is done, before anything that takes time or may go wrong."""

import subprocess
import sys

import pytest

from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import end_record
from pipelines.launch.local import prepare_run
from pipelines.launch.rank_process import rank_arguments
from tests.support.example_data import example_config, publish_example

pytestmark = pytest.mark.processes

DIES_AS_IT_LEAVES = """
import os, sys
from pipelines.parallel.ring import Ring
from pipelines.train.worker import main
Ring.leave = lambda self: os._exit(77)
main(sys.argv[1:])
"""


def test_a_rank_that_dies_as_it_leaves_the_ring_has_recorded_its_end(tmp_path):
    lake = Lake.at(tmp_path)
    config = example_config(layout__num_replicas=1, train__steps=3, train__evaluate_every_steps=3)
    run = prepare_run(lake, config, publish_example(lake))
    ended = subprocess.run([sys.executable, "-c", DIES_AS_IT_LEAVES, *rank_arguments(run, 0)], capture_output=True, text=True,
                           timeout=120)
    assert ended.returncode == 77, ended.stderr
    assert end_record(run.live(0).record(0))["status"] == "completed"
    assert (lake.root / lake.model(run.run_id, "last") / "model.safetensors").exists()
