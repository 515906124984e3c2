"""Tables: what a month of steps at 64 ranks costs those who load what is new, and those who look at the run.

Runs on: driver; ``python -m benchmarks.tables load|report ROOT`` in a process of its own.
Takes:   nothing; 15 GB of disk for a few minutes.
Gives:   ``measure``: seconds of one load of new records, and of a report, against what is allowed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from benchmarks.results import Figure, show
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordWriter
from pipelines.lake.runs import AttemptState, RunState
from pipelines.lake.schemas import arrow_schema
from pipelines.track import load_run, write_report
from pipelines.track.carried import CARRIED_PARTS, RankSums, StepCurves
from pipelines.track.parts import NO_LIMIT, Cursor, next_key, put_part
from pipelines.track.totals import AttemptTotals, RankStepTotals, StepTotals
from pipelines.train.loop import peak_memory_bytes

STEPS, RANKS = 2_600_000, 64  # at a step a second, 30 days
LOADED_STEPS = 600  # that a load of so long a run finds, and a part has: see track/live.py
LOAD_S, REPORT_S = 2.0, 20.0
RUN, START_S = "month", 1_790_000_000
SECONDS = ("seconds", "data_wait_s", "compute_s", "communication_s", "averaging_s")


def columns(table: str, step_N: np.ndarray, rank_N: np.ndarray, random: np.random.Generator) -> pa.Table:
    """Rows as ranks record them: times that no two steps share."""
    count = len(step_N)
    values: dict[str, Any] = {
        "run_id": pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), [RUN]), "attempt": np.zeros(count, int),
        "step": step_N, "rank": rank_N, "replica_index": rank_N, "time": (START_S + step_N) * 1_000_000,
        "units": np.full(count, 4096), "samples": np.full(count, 8), "memory_bytes": 10**9 + step_N // 1000 * 4096,
        **{name: random.gamma(9.0, 0.1, count) for name in (*SECONDS, "loss", "gradient_norm")}}
    schema = arrow_schema(table)
    return pa.table([pa.array(values.get(each.name, np.zeros(count, int))).cast(each.type) for each in schema], schema=schema)


def publish_month(lake: Lake) -> None:
    """The tables and record files of such a run, as many loads would have left them."""
    run = lake.run(RUN)
    attempt = AttemptState(0, RANKS, 1, "cpu", started_s=START_S, placement=("host",) * RANKS)
    run.live(0).make()
    attempt.save(run)
    RunState(RUN, attempts=(attempt,), recipe_name=RUN, recipe_hash="", dataset_name=RUN, dataset_version="v1", unit="tokens",
             precision="fp32", planned_steps=2 * STEPS, parameters=1).save(run)
    for rank in range(RANKS):
        with RecordWriter(run.live(0).record(rank), rank, 0) as records:
            records.write("start", replica_index=rank, segment_index=0)
    cursor = {path.name: path.stat().st_size for path in run.live(0).records().values()}
    of_rank_0 = {name: size for name, size in cursor.items() if name.startswith("rank-00000")}
    publish_parts(lake, StepTotals(), StepCurves(), 1, of_rank_0)
    publish_parts(lake, RankStepTotals(), RankSums(), RANKS, cursor)
    for rank in range(RANKS):
        with RecordWriter(run.live(0).record(rank), rank, 0) as records:
            for step in range(STEPS + 1, STEPS + LOADED_STEPS + 1):
                records.write("step", step=step, epoch=0, loss=1.0, learning_rate=1e-3, gradient_norm=1.0, global_units=4096,
                              global_samples=8, units=64, samples=8, memory_bytes=10**9, pipeline_wait_s=0.0,
                              **dict.fromkeys(SECONDS, 0.5))


def publish_parts(lake: Lake, totals: AttemptTotals, carried: AttemptTotals, num_ranks: int, cursor: Cursor) -> None:
    """The run's parts of one table."""
    random, keys = np.random.default_rng(num_ranks), list[str]()
    for first in range(1, STEPS + 1, LOADED_STEPS):
        step_N = np.arange(first, min(first + LOADED_STEPS, STEPS + 1))
        rows = columns(totals.TABLE, step_N.repeat(num_ranks), np.tile(np.arange(num_ranks), len(step_N)), random)
        totals.add(rows)
        carried.add(rows)
        keys.append(next_key(lake, totals.TABLE, RUN, 0, keys, NO_LIMIT))
        put_part(lake.store, keys[-1], rows, cursor, totals.content(),
                 carried.content() if len(keys) % CARRIED_PARTS == 0 else None)


def timed(what: str, root: str) -> Iterator[float]:
    """Seconds, then bytes at the peak."""
    lake, began = Lake.at(root), time.perf_counter()
    if what == "load":
        load_run(lake, RUN)
    else:
        write_report(lake, RUN)
    yield time.perf_counter() - began
    yield peak_memory_bytes(torch.device("cpu"))


def measure() -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        publish_month(Lake.at(folder))
        for what, name, allowed_s in (("load", "one load of new records", LOAD_S), ("report", "report", REPORT_S)):
            done = subprocess.run([sys.executable, "-m", "benchmarks.tables", what, folder], check=True, capture_output=True,
                                  text=True)
            seconds, peak = json.loads(done.stdout)
            print(f"{name}: {seconds:.2f} s, {peak / 2**20:,.0f} MiB", flush=True)
            note = f"{STEPS:,} steps; peak {peak / 2**20:,.0f} MiB with torch loaded; the other side is what is allowed"
            figures.append(Figure(f"{name} of a month at {RANKS} ranks", seconds, allowed_s, "s", 1.0,
                                  "python -m benchmarks tables", higher_is_better=False, note=note))
    return figures


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(list(timed(*sys.argv[1:]))))
    else:
        show(measure())
