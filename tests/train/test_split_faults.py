"""A rank of a hybrid layout that dies takes the others with it, soon and with one clear error, without anyone's help."""

import random
import time

import pytest

from pipelines.errors import RankFailedError
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordTail
from pipelines.launch.local import prepare_run, started
from tests.support.example_data import example_config, publish_example

pytestmark = pytest.mark.processes

BOUND_S = 30  # from the death to the end of the last rank


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved_1f1b"])
@pytest.mark.parametrize("victim", range(4))
def test_when_any_rank_of_2x2_is_killed_all_ranks_end(tmp_path, victim, schedule):
    lake = Lake.at(tmp_path)
    config = example_config(layout__num_replicas=2, layout__num_segments=2, layout__micro_batch_samples=2,
                            layout__schedule=schedule, model__num_layers=4, train__steps=100_000,
                            train__evaluate_every_steps=50)
    run = prepare_run(lake, config, publish_example(lake))
    with started(run) as processes:
        tail, steps = RecordTail(run.live(0).record(victim)), 0
        began = time.monotonic()
        while steps < 3 and time.monotonic() - began < 60:
            steps += sum(record["kind"] == "step" for record in tail.new_records())
            time.sleep(0.02)
        assert steps >= 3
        time.sleep(random.uniform(0.0, 0.3))  # anywhere in a step, an evaluation or a save
        processes[victim].kill()
        killed = time.monotonic()
        for process in processes:
            process.wait(timeout=max(0.1, BOUND_S - (time.monotonic() - killed)))
    for rank in set(range(4)) - {victim}:
        assert processes[rank].returncode == RankFailedError.exit_code, run.live(0).log(rank).read_text()
