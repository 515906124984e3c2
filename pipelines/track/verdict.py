"""What the model came to, in numbers: one headline and one sentence, from a summary.

Runs on: driver.
Takes:   the dict that ``summarize`` gives.
Gives:   ``Verdict``: a level for the colour, a headline, a sentence with the numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["good", "unclear", "bad"]


@dataclass(frozen=True)
class Verdict:
    level: Level
    headline: str
    detail: str


def verdict(summary: dict[str, Any]) -> Verdict:
    """Compares the model with the dataset's baselines, which know next to nothing."""
    status, done, planned = summary["status"], summary["steps"]["done"], summary["steps"]["planned"]
    learned = _learned(summary)
    if status in ("failed", "lost"):
        what = "failed" if status == "failed" else "was lost"
        after = f"after step {done:,} of {planned:,}" if done else "before its first step was done"
        return Verdict("bad", f"The run {what} {after}", learned.detail if done else "")
    if not done:
        wait = "Its ranks are starting." if status == "running" else "There is nothing to show but how it was started."
        return Verdict("unclear", "No step has been recorded", wait)
    if status == "interrupted":
        return Verdict("unclear", f"Interrupted at step {done:,} of {planned:,}", learned.detail)
    if status == "running":
        return Verdict(learned.level, f"Running: step {done:,} of {planned:,}", learned.detail)
    return learned


def _learned(summary: dict[str, Any]) -> Verdict:
    """How far the loss is below (or above) those of the baselines; what was learned, nobody can say."""
    loss, baselines, dataset = summary["loss"], summary["baselines"], summary["dataset"]
    reached, name = loss["validation_last"], "Validation loss"
    if reached is None:
        reached, name = loss["train_last"], "Train loss"
    if reached is None:
        return Verdict("unclear", "No loss has been recorded", "")
    found = f"{name} is {reached:.3f} {dataset['loss_unit']}"
    if dataset["loss_exponential"]:
        found += f" ({dataset['loss_exponential']} {_exponential(reached)})"
    if not baselines:
        first = loss["train_first"]
        since = "" if first is None else f"; the first train loss was {first:.3f}"
        fell = first is not None and reached < first
        return Verdict("unclear", "The loss fell" if fell else "The loss did not fall",
                       f"{found}{since}. There are no baselines to compare with.{_risen(loss)}")
    others = ", ".join(f"{baseline['loss']:.3f} by {baseline['name']}" for baseline in reversed(baselines))
    level, headline = _compared(reached, baselines, dataset["loss_unit"])
    return Verdict(level, headline, f"{found}. For comparison: {others}.{_risen(loss)}")


def _compared(reached: float, baselines: list[dict[str, Any]], unit: str) -> tuple[Level, str]:
    """To be better than the weakest baseline alone, of several, says little; good is what is better than all."""
    beaten = [baseline for baseline in baselines if reached < baseline["loss"]]
    missed = [baseline for baseline in baselines if reached >= baseline["loss"]]
    if not missed:
        return "good", f"Better than {beaten[-1]['name']} by {beaten[-1]['loss'] - reached:.2f} {unit}"
    above = reached - missed[0]["loss"]
    if len(beaten) < 2:
        return "unclear" if beaten else "bad", f"No better than {missed[0]['name']}: {above:.2f} {unit} above"
    return "unclear", (f"Better than {beaten[-1]['name']} by {beaten[-1]['loss'] - reached:.2f} {unit}; {missed[0]['name']} is "
                       f"better still, by {above:.2f}")


def _exponential(loss: float) -> str:
    return f"{math.exp(loss):,.1f}" if loss < 5 else f"{math.exp(loss):,.0f}" if loss < 20 else "beyond 10^8"


def _risen(loss: dict[str, Any]) -> str:
    best, last = loss["validation_best"], loss["validation_last"]
    if best is not None and last > best * 1.02:
        return f" It was better at step {loss['validation_best_step']:,} ({best:.3f}); that model is kept as well."
    return ""
