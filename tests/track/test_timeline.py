"""The timeline of a split model's step: what is waited, and what the page shows."""

from __future__ import annotations

import pytest

from pipelines.lake.rank_records import RecordWriter
from pipelines.track import load_run, summarize, write_report

# two segments, two micro-batches: forward 1 s, backward 2 s; perfect but for the schedule's own bubble
WORK = {0: [["forward", 0, 0, 0.0, 1.0], ["forward", 0, 1, 1.0, 2.0], ["backward", 0, 0, 4.0, 6.0], ["backward", 0, 1, 7.0, 9.0]],
        1: [["forward", 1, 0, 1.0, 2.0], ["backward", 1, 0, 2.0, 4.0], ["forward", 1, 1, 4.0, 5.0], ["backward", 1, 1, 5.0, 7.0]]}


def split_run(lake, write_run, work=WORK):
    state = write_run(num_replicas=1, num_segments=2)
    for rank, own in work.items():
        with RecordWriter(lake.run(state.run_id).live(0).record(rank), rank, 0) as records:
            records.write("cut", schedule="1f1b", parts=["embedding to <b>", "block_1 to head"])
            records.write("timeline", step=5, began_s=1000.0 + rank * 0.25, work=[
                [kind, part, micro, begin - rank * 0.25, end - rank * 0.25] for kind, part, micro, begin, end in own])
    load_run(lake, state.run_id)
    return state


def test_the_bubble_is_the_share_of_time_in_which_nothing_was_computed(lake, write_run):
    pipeline = summarize(lake, split_run(lake, write_run).run_id)["split_step"]
    assert (pipeline["step"], pipeline["micro_batches"], pipeline["seconds"]) == (5, 2, pytest.approx(9.0))
    assert pipeline["bubble"] == pytest.approx(1 - 12 / 18)  # clocks that began at different times are aligned
    assert pipeline["bubble_theoretical"] == pytest.approx(1 / 3)


def test_the_page_draws_every_piece_of_work_and_escapes_names(lake, write_run):
    write_report(lake, split_run(lake, write_run).run_id)
    page = lake.store.read(lake.run("run-1").report).decode()
    assert page.count('<rect class="work ') == 3 * 8  # at three widths
    assert "segment 0: backward 1, 2e+03 ms" in page
    assert "<b>" not in page
    assert "Waiting 33.3 %" in page


def test_a_run_that_was_not_split_or_left_no_timeline_has_none(lake, write_run):
    assert summarize(lake, write_run("whole").run_id)["split_step"] is None
    state = write_run("early", num_replicas=1, num_segments=2)
    assert summarize(lake, state.run_id)["split_step"] is None
    assert summarize(lake, split_run(lake, lambda **facts: write_run("half", **facts), {0: WORK[0]}).run_id)["split_step"] is None
