"""What takes long tells of its progress; what hangs does not."""

import subprocess
import sys
import time

import pytest
import torch

from pipelines.lake.rank_records import RecordTail, RecordWriter
from pipelines.train.progress import Progress


def told_by(path, act, stall_timeout_s):
    """Progress records of ``act(progress)``, as (phase, done, total)."""
    with RecordWriter(path, rank=0, attempt=0) as records:
        act(Progress(records, stall_timeout_s))
    found = RecordTail(path).new_records()
    assert {record["kind"] for record in found} <= {"progress"}
    return [(record["phase"], record["done"], record["total"]) for record in found]


@pytest.mark.parametrize(("stall_timeout_s", "expected"), [(1e-9, [0, 0, 1, 2]), (600, [0])])
def test_what_is_counted_tells_as_it_begins_and_then_now_and_then(tmp_path, stall_timeout_s, expected):
    seen = []
    told = told_by(tmp_path / "r", lambda progress: seen.extend(progress.counted("evaluating", "abc", 3)), stall_timeout_s)
    assert seen == ["a", "b", "c"]
    assert told == [("evaluating", done, 3) for done in expected]


def test_what_is_empty_tells_that_it_began(tmp_path):
    assert told_by(tmp_path / "r", lambda progress: list(progress.counted("saving", [], 7)), 600) == [("saving", 0, 7)]


SPIN = "import time; until = time.monotonic() + 2.0\nwhile time.monotonic() < until: pass"
DURING_COMPILATION = {  # what it does, whether that is work
    "works": (lambda: exec(SPIN, {}), True),
    "waits for a process that works": (lambda: subprocess.run([sys.executable, "-c", SPIN], check=True), True),
    "hangs": (lambda: time.sleep(2.0), False)}


@pytest.mark.parametrize("does", DURING_COMPILATION)
@pytest.mark.processes
def test_a_compilation_tells_of_its_progress_while_it_works_and_not_when_it_hangs(tmp_path, does):
    act, is_work = DURING_COMPILATION[does]
    times_s = []

    def backend(graph, _):
        times_s.append(time.time())
        act()
        times_s.append(time.time())
        return graph.forward

    torch._dynamo.reset()
    with RecordWriter(tmp_path / "r", rank=0, attempt=0) as records:
        with Progress(records, stall_timeout_s=2.0).compilations():  # every half second
            assert torch.compile(lambda x: x + 1, backend=backend)(torch.ones(1)).item() == 2
        torch.compile(lambda x: x + 2, backend=backend)(torch.ones(1))  # outside: told to nobody
    found = RecordTail(tmp_path / "r").new_records()
    assert {(record["kind"], record["phase"], record["done"]) for record in found} <= {("progress", "compiling", None)}
    began_s, ended_s, outside_s, _ = times_s
    # what torch did before may be told a moment into the act
    assert any(began_s + 0.9 < record["time_s"] < ended_s for record in found) == is_work
    assert all(record["time_s"] < outside_s for record in found)
