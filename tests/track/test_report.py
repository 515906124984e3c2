"""One page that stands alone, stays small, and shows text as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import StorageError
from pipelines.launch.runs import claim_run
from pipelines.tables.paths import Lake
from pipelines.track.charts import Chart, Series, line_chart, nice_ticks, smoothed, stacked_bar
from pipelines.track.figures import Steps
from pipelines.track.load import load_run
from pipelines.track.report import render, write_report
from pipelines.track.summary import summarize
from tests.track.conftest import START_S, WriteRun, state_of, write_steps

VOID = {"meta", "link", "br", "hr", "img", "input"}
SVG_LEAVES = {"path", "rect", "circle"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; refuses tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text, self.open = [], [], "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
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
    return write_report(lake, run_id).read_text(encoding="utf-8")


def test_the_page_stands_alone(lake: Lake, write_run: WriteRun) -> None:
    write_run()
    html = report(lake)
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not {name for name, _ in page.attributes} & {"src", "href", "srcset", "xlink:href", "onload", "style"}
    assert not re.search(r"https?://|url\(|@import", html)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_the_page_shows_what_one_wants_to_know(lake: Lake, write_run: WriteRun) -> None:
    write_run(command="python jobs/train.py --recipe 'my recipe.yaml'")
    page = Page(report(lake))
    for said in ("The model learned", "8.000", "8.500", "9.000", "400", "70.0 %", "20.0 %", "10.0 %", "undecodable",
                 "rank 1", "host-b", "the end", "python jobs/train.py --recipe 'my recipe.yaml'", "completed", "60.0 s",
                 "912", "spark.read.parquet("):
        assert said in page.text, said
    assert page.tags.count("svg") == 3 + 3 + 2


@pytest.mark.parametrize("text", [
    "<script>alert(1)</script>", "</pre><img src=x onerror=alert(1)>", "&amp; \" ' `", "{{ 7 * 7 }}{% raw %}",
    "<!-- é 漢字 🙂 "])
def test_text_from_models_and_data_is_shown_and_never_run(lake: Lake, write_run: WriteRun, text: str) -> None:
    write_run(text=text, error=text, command=text, environment={text: text}, placement=(text, text), recipe_name=text)
    page = Page(report(lake))
    assert page.text.count(text) >= 6
    assert not {"script", "img"} & set(page.tags)


def test_control_characters_and_lone_surrogates_do_not_break_the_page(lake: Lake, write_run: WriteRun) -> None:
    write_run(text="a\x00b\x1b[31mc\ud800d")
    assert "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}[31mc?d" in Page(report(lake)).text


def test_a_long_run_of_many_ranks_and_much_text_stays_small(lake: Lake, write_run: WriteRun) -> None:
    write_run(num_steps=3, text="x" * 3_000_000)
    load_run(lake, "run-1")
    summary = summarize(lake, "run-1")
    summary["ranks"] = [{**summary["ranks"][0], "rank": rank} for rank in range(512)]
    summary["evaluations"] = [{**summary["evaluations"][0], "step": step} for step in range(1, 100_001, 10)]
    count = 100_000
    noise = np.random.default_rng(0).normal(5, 1, count)
    steps = Steps(np.zeros(count, dtype=int), np.arange(1, count + 1), noise, noise, noise, noise, np.abs(noise) + 1,
                  START_S)
    html = render(summary, steps)
    assert len(html.encode()) < 500_000
    assert "The first 32 of 512 ranks" in Page(html).text


def test_a_failed_run_has_a_page_with_its_error(lake: Lake) -> None:
    state_of("run-1", status="failed", exit_code=6, error="rank 1 on host-b: out of memory\nsecond line").save(
        lake.run("run-1").state)
    write_steps(lake, "run-1", 0, 0, range(1, 8))
    page = Page(report(lake))
    for said in ("The run failed after step 7 of 20", "second line", "exit code 6"):
        assert said in page.text


def test_a_run_without_a_step_has_a_page(lake: Lake) -> None:
    state_of("run-1").save(lake.run("run-1").state)
    with claim_run(lake.run("run-1"), "run-1"):
        page = Page(report(lake))
    assert "No step has been recorded" in page.text and "svg" not in page.tags


def test_a_single_step_has_a_page(lake: Lake, write_run: WriteRun) -> None:
    write_run(num_steps=1, num_ranks=1)
    assert "circle" in Page(report(lake)).tags


def test_restarts_are_marked(lake: Lake) -> None:
    state_of("run-1", attempt=1, attempt_start_steps=(0, 4)).save(lake.run("run-1").state)
    write_steps(lake, "run-1", 0, 0, range(1, 7))
    write_steps(lake, "run-1", 1, 0, range(5, 9))
    html = report(lake)
    assert html.count('class="mark"') == 3 and "2 attempts" in html


def test_a_page_that_cannot_be_written_is_a_storage_error_and_the_old_one_stays(lake: Lake, write_run: WriteRun,
                                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    write_run()
    old = report(lake)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"report\.html.*No space left"):
        write_report(lake, "run-1")
    assert lake.run("run-1").report.read_text(encoding="utf-8") == old
    assert not list(Path(lake.run("run-1").path).glob(".tmp-*"))


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.integers(2, 10))
def test_ticks_are_few_and_span_the_range(low: float, span: float, count: int) -> None:
    ticks = nice_ticks(low, low + span, count)
    flat = span <= 1e-6 * max(abs(low), 1e-6)  # one tick may be all that a flat line has
    assert (1 if flat else 2) <= len(ticks) <= 2 * count + 3
    assert ticks == sorted(ticks)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert ticks[0] <= low + slack and ticks[-1] >= low + span - slack


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.integers(0, 40))
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
    series = Series("train", [x for x, _ in points], [y for _, y in points], dots=True)
    svg = line_chart(Chart("c", [series], from_zero=from_zero), 340, 260)
    for x, y in re.findall(r'cx="([-\d.]+)" cy="([-\d.]+)"', svg):
        assert 0 <= float(x) <= 340 and 0 <= float(y) <= 260


def test_a_bar_is_full_and_its_title_is_escaped() -> None:
    svg = stacked_bar([("compute", 0.75), ("other", 0.25)], 'a "<b>"')
    assert re.findall(r'width="([\d.]+)"', svg) == ["75.000", "25.000"] and "<b>" not in svg
