"""One page that stands alone, stays small, and shows text as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import StorageError
from pipelines.lake.exhibits import BarsExhibit, MatrixExhibit, Picture, PicturesExhibit, TableExhibit, as_json
from pipelines.lake.paths import Lake
from pipelines.lake.rank_records import RecordWriter
from pipelines.launch.identity import claim_run
from pipelines.track.carried import RANK_SUMS
from pipelines.track.figures import RankFigures, StepFigures
from pipelines.track.report.charts import Chart, Series, line_chart, nice_ticks, smoothed, stacked_bar
from pipelines.track.report.page import longest_computing_first, render, write_report
from pipelines.track.summary import Measured, summarize
from pipelines.track.tables import load_run
from tests.support.example_data import example_config
from tests.track.conftest import WriteRun, save_state, write_steps

VOID = {"meta", "link", "br", "hr", "img", "input"}
SVG_LEAVES = {"path", "rect", "circle"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; refuses tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.elements, self.text, self.open = [], [], [], "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        self.elements.append(attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def report(lake: Lake, run_id: str = "run-1") -> str:
    load_run(lake, run_id)
    write_report(lake, run_id)
    return lake.store.read(lake.run(run_id).report).decode()


def test_the_page_stands_alone_and_runs_its_own_script_only(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    html = report(lake)
    page = Page(html)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not {name for name, _ in page.attributes} & {"src", "href", "srcset", "xlink:href", "onload", "style"}
    assert not re.search(r"https?://|url\(|@import", html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{digest}'") in page.attributes
    assert "innerHTML" not in script and "eval" not in script


def test_the_page_shows_what_one_wants_to_know(lake: Lake, write_run: WriteRun) -> None:
    write_run(command="python jobs/train.py --recipe 'my recipe.yaml'", environment={"commit": "abc123 and changes"})
    page = Page(report(lake))
    for said in ("Better than token frequencies by 0.50", "8.000", "8.500", "9.000", "400", "70.0 %", "20.0 %", "10.0 %",
                 "undecodable", "rank 1", "host-b", "the end", "python jobs/train.py --recipe 'my recipe.yaml'", "completed",
                 "60.0 s", "912", "spark.read.parquet(", "abc123 and changes"):
        assert said in page.text, said
    assert page.tags.count("svg") == 3 + 2 * 4 + 2


def test_every_value_of_a_curve_can_be_read(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    charts = {dict(attributes)["data-title"]: json.loads(dict(attributes)["data-points"] or "")
              for attributes in Page(report(lake)).elements if "data-points" in dict(attributes)}
    losses = charts["Loss by step: train, validation, and the baselines"]
    assert [step for step, _ in losses] == list(range(1, 21))
    assert losses[0][1] == "step 1: train 9.900"
    assert losses[9][1] == "step 10: train 9.000, validation 7.500"
    assert losses[10][1] == "step 11: train 8.900, validation 7.500 at step 10"
    assert charts["Memory of the ranks by step"][19] == [20, "step 20: fullest rank 1020.00 B, median rank 1020.00 B"]
    assert charts["Learning rate by step"][4] == [5, "step 5: learning rate 0.001"]
    assert charts["Throughput by step"][4] == [5, "step 5: tokens/s 400"]


def test_the_settings_that_differ_from_the_defaults_come_first(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    config = example_config(train__steps=77, optimizer__learning_rate=3e-4, spark__conf={"spark.ui.enabled": "<b>"})
    lake.store.put(lake.run("run-1").config(0), config.to_json())
    load_run(lake, "run-1")
    settings = summarize(lake, "run-1")["settings"]
    assert settings["headline"] == {
        "train.global_batch_samples": 8, "optimizer.kind": "adamw", "optimizer.learning_rate": 3e-4, "train.seed": 1337,
        "train.precision": "fp32"}
    assert settings["changed"]["train.steps"] == {"value": 77, "default": None}
    assert settings["changed"]["model.width"] == {"value": 16, "default": 128}
    assert settings["changed"]["spark.conf.spark.ui.enabled"] == {"value": "<b>", "default": None}
    assert settings["unchanged"]["optimizer.beta1"] == 0.9 and settings["unchanged"]["layout.num_replicas"] == 2
    assert not settings["changed"].keys() & settings["unchanged"].keys()
    page = Page(report(lake))
    assert page.text.index("optimizer.learning_rate") < page.text.index("as by default") < page.text.index("optimizer.beta1")
    lake.store.put(lake.run("run-1").config(0), "{")
    assert summarize(lake, "run-1")["settings"] is None and "as by default" not in Page(report(lake)).text


def test_that_the_model_shows_nothing_is_explained(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    with RecordWriter(lake.run("run-1").live(0).record(0), 0, 0) as records:
        records.write("exhibits", step=20, shown=[], reason="the model takes \x1b[2J only")
    assert "Nothing: the model takes \\x1b[2J only" in Page(report(lake)).text


def test_every_kind_of_exhibit_is_drawn(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    mistakes = Picture("iVBORw0KGgo=", "cat, said dog", marked=True), Picture("iVBO", "\x1b[2J")
    shown = [TableExhibit("By class", ("class", "recall"), (("<b>ok</b>", 0.5), ("bad", None))),
             MatrixExhibit("What was said", ("cat", "dog"), ("cat", "dog"), ((7, 1), (0, 1234)), "true", "said"),
             PicturesExhibit("Worst mistakes", mistakes)]
    data = [BarsExhibit("Balance", (("<i>few</i>", 1), ("many", 4000)), "3 are not shown"),
            PicturesExhibit("Changed", mistakes, in_a_row=2), BarsExhibit("None", (("a", 0),))]
    older = {name: value for name, value in as_json(shown[2]).items() if name != "in_a_row"}
    with RecordWriter(lake.run("run-1").live(0).record(0), 0, 0) as records:
        records.write("exhibits", step=20, reason=None, shown=[*map(as_json, shown[:2]), older],
                      data=[as_json(exhibit) for exhibit in data])
    page = Page(report(lake))
    for text in ("By class", "<b>ok</b>", "0.5", "none", "true \\ said", "1,234", "Worst mistakes", "cat, said dog", "\\x1b[2J",
                 "Balance", "<i>few</i>", "4,000", "3 are not shown", "Changed"):
        assert text in page.text
    assert page.text.count("after step 20") == len(shown)  # the data is what it was before
    assert ("title", "<i>few</i>") in page.attributes
    assert page.attributes.count(("style", "--share: 0.0")) == 1  # in the matrix; of none there is no bar
    assert ("style", "--share: 0.0003") in page.attributes and ("style", "--share: 1.0") in page.attributes
    assert ("style", "grid-template-columns: repeat(2, minmax(0, 130px))") in page.attributes
    assert ("src", "data:image/png;base64,iVBORw0KGgo=") in page.attributes
    assert ("class", "marked") in page.attributes and ("class", "n diagonal") in page.attributes


@pytest.mark.parametrize("text", [
    "<script>alert(1)</script>", "</pre><img src=x onerror=alert(1)>", "&amp; \" ' `", "{{ 7 * 7 }}{% raw %}",
    "<!-- é 漢字 🙂 "])
def test_text_from_models_and_data_is_shown_and_never_run(lake: Lake, write_run: WriteRun, text: str) -> None:
    write_run(text=text, error=text, command=text, environment={text: text}, placement=(text, text), recipe_name=text)
    page = Page(report(lake))
    assert page.text.count(text) >= 6
    assert page.tags.count("script") == 1 and "img" not in page.tags


def test_control_characters_and_lone_surrogates_are_spelled_out(lake: Lake, write_run: WriteRun) -> None:
    write_run(text="a\x00b\x1b[31mc\ud800d\u202ee")
    assert r"a\x00b\x1b[31mc\ud800d\u202ee" in Page(report(lake)).text


def test_a_long_run_of_many_ranks_and_much_text_stays_small(lake: Lake, write_run: WriteRun) -> None:
    write_run(num_steps=3, text="x" * 3_000_000)
    load_run(lake, "run-1")
    summary = summarize(lake, "run-1")
    summary["ranks"] = [{**summary["ranks"][0], "rank": rank} for rank in range(512)]
    summary["evaluations"] = [{**summary["evaluations"][0], "step": step} for step in range(1, 100_001, 10)]
    count = 100_000
    noise = np.random.default_rng(0).normal(5, 1, count)
    steps, ranks = StepFigures({}), RankFigures()
    steps.add(pa.table({"attempt": np.zeros(count, int), "step": np.arange(1, count + 1), "loss": noise, "learning_rate": noise,
                        "gradient_norm": noise, "units": np.full(count, 10), "seconds": np.abs(noise),
                        "time": pa.array(np.zeros(count, int), pa.timestamp("us", tz="UTC"))}))
    ranks.add(pa.table({"rank": np.arange(count) % 512, "step": np.arange(1, count + 1), "memory_bytes": np.abs(noise) * 1e9,
                        **{name: np.ones(count) for name in RANK_SUMS}}))
    html = render(Measured(summary, steps, ranks))
    assert len(html.encode()) < 1_000_000
    assert "64 of 512 ranks" in Page(html).text


def test_of_many_ranks_those_that_the_others_wait_for_come_first() -> None:
    ranks = [{"rank": rank, "compute_s": 1.0 + (rank in (17, 40))} for rank in range(64)]
    shown = [rank["rank"] for rank in longest_computing_first(ranks)]
    assert shown[:3] == [17, 40, 0] and sorted(shown) == list(range(64))
    assert longest_computing_first(ranks[10:18]) == ranks[10:18]  # few enough to be seen at once


def test_a_failed_run_has_a_page_with_its_error(lake: Lake) -> None:
    save_state(lake, "run-1", status="failed", exit_code=6, error="rank 1 on host-b: out of memory\nsecond line")
    write_steps(lake, "run-1", 0, 0, range(1, 8))
    page = Page(report(lake))
    for said in ("The run failed after step 7 of 20", "second line", "exit code 6"):
        assert said in page.text


def test_a_run_without_a_step_has_a_page(lake: Lake) -> None:
    save_state(lake, "run-1")
    with claim_run(lake.run("run-1"), "run-1"):
        page = Page(report(lake))
    assert "No step has been recorded" in page.text and "svg" not in page.tags


def test_a_single_step_has_a_page(lake: Lake, write_run: WriteRun) -> None:
    write_run(num_steps=1, num_ranks=1)
    assert "circle" in Page(report(lake)).tags


def test_restarts_are_marked(lake: Lake) -> None:
    save_state(lake, "run-1", (0, 4))
    write_steps(lake, "run-1", 0, 0, range(1, 7))
    write_steps(lake, "run-1", 1, 0, range(5, 9))
    html = report(lake)
    assert html.count('class="mark"') == 3 and "2 attempts" in html


def test_a_page_that_shows_all_already_is_not_written_again(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    assert [write_report(lake, "run-1")[1] for _ in range(2)] == [True, False]
    save_state(lake, "run-1", status="failed")
    assert [write_report(lake, "run-1")[1] for _ in range(2)] == [True, False]


def test_a_page_that_cannot_be_written_is_a_storage_error_and_the_old_one_stays(lake: Lake, write_run: WriteRun,
                                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    write_run()
    old = report(lake)
    save_state(lake, "run-1", status="failed")  # another page

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"report\.html.*No space left"):
        write_report(lake, "run-1")
    assert lake.store.read(lake.run("run-1").report).decode() == old
    assert not list((lake.root / lake.run("run-1").key).glob(".tmp-*"))


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 10))
def test_ticks_are_few_and_span_the_range(low: float, span: float, count: int) -> None:
    ticks = nice_ticks(low, low + span, count)
    flat = span <= 1e-6 * max(abs(low), 1e-6)  # one tick may be all that a flat line has
    assert (1 if flat else 2) <= len(ticks) <= 2 * count + 3
    assert ticks == sorted(ticks)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert ticks[0] <= low + slack and ticks[-1] >= low + span - slack


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(0, 40))
@pytest.mark.processes
def test_smoothing_stays_within_the_values_and_keeps_a_straight_line(values: list[float], window: int) -> None:
    smooth = smoothed(np.array(values), window)
    assert len(smooth) == len(values) and min(values) - 1e-6 <= smooth.min() and smooth.max() <= max(values) + 1e-6
    line = np.arange(len(values), dtype=float)
    np.testing.assert_allclose(smoothed(line, window), line, atol=1e-9)


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(-1e9, 1e9)), min_size=1, max_size=30), st.booleans())
def test_curves_stay_inside_their_chart(points: list[tuple[float, float]], from_zero: bool) -> None:
    points = sorted(points)
    if from_zero:
        points = [(x, abs(y)) for x, y in points]
    series = Series("train", "train", [x for x, _ in points], [y for _, y in points], dots=True)
    svg = line_chart(Chart("c", [series], from_zero=from_zero), 340, 260)
    for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', svg):
        assert 0 <= float(x) <= 340 and 0 <= float(y) <= 260


def test_a_bar_is_full_and_its_title_is_escaped() -> None:
    svg = stacked_bar([("compute", 0.75), ("other", 0.25)], 'a "<b>"')
    assert re.findall(r'width="([\d.]+)"', svg) == ["75.000", "25.000"] and "<b>" not in svg
