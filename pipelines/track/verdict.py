"""What the model came to, in numbers: one headline and one sentence, from a summary.

Runs on: driver.
Takes:   the dict that ``summarize`` gives.
Gives:   ``Verdict``: a level for the colour, a headline, a sentence with the numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Verdict:
    level: Literal["good", "unclear", "bad"]
    headline: str
    detail: str


def verdict(summary: dict[str, Any]) -> Verdict:
    """Compares the model with one that guesses, one that knows token frequencies, and one that knows one token back."""
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
    """How far the loss is below (or above) that of models which know next to nothing; what was learned, nobody can say."""
    loss = summary["loss"]
    reached, name = loss["validation_last"], "Validation loss"
    if reached is None:
        reached, name = loss["train_last"], "Train loss"
    if reached is None:
        return Verdict("unclear", "No loss has been recorded", "")
    uniform, unigram, bigram = loss["uniform"], loss["unigram"], loss["bigram"]
    found = f"{name} is {reached:.3f} nats per token (perplexity {_perplexity(reached)})"
    if uniform is None or unigram is None:
        first = loss["train_first"]
        since = "" if first is None else f"; the first train loss was {first:.3f}"
        fell = first is not None and reached < first
        return Verdict("unclear", "The loss fell" if fell else "The loss did not fall",
                       f"{found}{since}. There are no baselines to compare with.{_risen(loss)}")
    others = [f"{bigram:.3f} by a bigram model"] if bigram is not None else []
    detail = f"{found}. For comparison: {', '.join([*others, f'{unigram:.3f} by token frequencies'])}, {uniform:.3f} by guessing."
    detail += _risen(loss)
    if reached >= uniform:
        return Verdict("bad", f"No better than guessing: {_nats(reached - uniform)} above", detail)
    if reached >= unigram:
        return Verdict("unclear", f"No better than token frequencies: {_nats(reached - unigram)} above", detail)
    if bigram is None:
        return Verdict("good", f"Better than token frequencies by {_nats(unigram - reached)}", detail)
    if reached < bigram:
        return Verdict("good", f"Better than a bigram model by {_nats(bigram - reached)}", detail)
    return Verdict("unclear", f"Better than token frequencies by {_nats(unigram - reached)}; a bigram model is better still, "
                   f"by {reached - bigram:.2f}", detail)


def _nats(difference: float) -> str:
    return f"{difference:.2f} nats per token"


def _perplexity(loss: float) -> str:
    return f"{math.exp(loss):,.1f}" if loss < 5 else f"{math.exp(loss):,.0f}" if loss < 20 else "beyond 10^8"


def _risen(loss: dict[str, Any]) -> str:
    best, last = loss["validation_best"], loss["validation_last"]
    if best is not None and last > best * 1.02:
        return f" It was better at step {loss['validation_best_step']:,} ({best:.3f}); that model is kept as well."
    return ""
