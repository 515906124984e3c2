"""Did it learn? One headline and one sentence, from a summary.

Runs on: driver.
Takes:   the dict that ``summarize`` gives.
Gives:   ``Verdict``: a level for the colour, a headline, a sentence with the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Verdict:
    level: Literal["good", "unclear", "bad"]
    headline: str
    detail: str


def verdict(summary: dict[str, Any]) -> Verdict:
    """Compares the model with one that guesses uniformly and one that knows only how often each token occurs."""
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
    loss = summary["loss"]
    reached, name = loss["validation_last"], "Validation loss"
    if reached is None:
        reached, name = loss["train_last"], "Train loss"
    if reached is None:
        return Verdict("unclear", "No loss has been recorded", "")
    uniform, unigram = loss["uniform"], loss["unigram"]
    if uniform is None or unigram is None:
        first = loss["train_first"]
        fell = first is not None and reached < first
        return Verdict("unclear", "The loss fell" if fell else "The loss did not fall",
                       f"{name} is {reached:.3f}; the first train loss was {first:.3f}. "
                       "There are no baselines to compare with.")
    against = f"guessing by token frequency gives {unigram:.3f}, guessing blindly {uniform:.3f}."
    if reached < unigram:
        return Verdict("good", "The model learned", f"{name} is {reached:.3f} nats per token; {against}{_risen(loss)}")
    if reached < uniform:
        return Verdict("unclear", "The model learned little",
                       f"{name} is {reached:.3f} nats per token, no better than token frequencies alone: {against}")
    return Verdict("bad", "The model has not learned", f"{name} is {reached:.3f} nats per token: {against}")


def _risen(loss: dict[str, Any]) -> str:
    best, last = loss["validation_best"], loss["validation_last"]
    if best is not None and last > best * 1.02:
        return f" It was better at step {loss['validation_best_step']:,} ({best:.3f}); that model is kept as well."
    return ""
