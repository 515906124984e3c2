"""One step of a split model: which rank computed what when, and how long the ranks waited for each other.

Runs on: driver.
Takes:   the ``timeline`` and ``cut`` records of a run's ranks.
Gives:   plain JSON values for the summary; None where the model was not split or no timeline was recorded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.lake.paths import RunFolder
from pipelines.lake.runs import RunState
from pipelines.plan.split_plan import bubble_share

KINDS = ("forward", "loss", "backward", "weights")


def split_step_of(run: RunFolder, state: RunState) -> dict[str, Any] | None:
    """The timeline of the first replica, and its bubble: the share of its ranks' time in which they computed nothing.

    What a schedule cannot do without is ``bubble_theoretical``.
    """
    for attempt in reversed(state.attempts):
        files = run.live(attempt.number).records()
        found = [_records(files[rank]) for rank in range(attempt.num_segments) if rank in files]
        if attempt.num_segments == len(found) > 1 and all("timeline" in records for records in found):
            return _summary(found, attempt.num_segments)
    return None


def _records(path: Path) -> dict[str, dict[str, Any]]:
    """The newest record of the kinds that are looked for; lines that are not whole records are none."""
    found = {}
    with open(path, "rb") as file:
        for line in file:
            if (b'"timeline"' in line or b'"cut"' in line) and line.endswith(b"\n"):
                try:
                    record = json.loads(line)
                    found[record["kind"]] = record
                except (KeyError, TypeError, ValueError):
                    continue
    return found


def _summary(records: list[dict[str, dict[str, Any]]], num_segments: int) -> dict[str, Any] | None:
    try:
        zero = min(each["timeline"]["began_s"] for each in records)
        segments = []
        for each in records:
            shift = each["timeline"]["began_s"] - zero
            segments.append([{"kind": kind, "part": part, "micro_batch": micro_batch, "begin_s": begin + shift,
                              "end_s": end + shift}
                             for kind, part, micro_batch, begin, end in each["timeline"]["work"] if kind in KINDS])
        parts = records[0]["cut"]["parts"]
        schedule = records[0]["cut"]["schedule"]
    except (KeyError, TypeError, ValueError):
        return None
    work = [one for segment in segments for one in segment]
    if not work:
        return None
    first, last = min(one["begin_s"] for one in work), max(one["end_s"] for one in work)
    busy = sum(one["end_s"] - one["begin_s"] for one in work)
    micro_batches = 1 + max(one["micro_batch"] for one in work)
    return {"step": records[0]["timeline"]["step"], "schedule": schedule, "parts": parts, "micro_batches": micro_batches,
            "seconds": last - first, "bubble": 1.0 - busy / (num_segments * (last - first)),
            "bubble_theoretical": bubble_share(num_segments, len(parts) // num_segments, micro_batches),
            "segments": segments}
