"""The metrics that tasks give of an evaluation: their names, and which way is better.

Runs on: driver and ranks.
Takes:   nothing.
Gives:   ``HIGHER_IS_BETTER`` of each, ``METRIC_NAMES``, ``is_better``; how people are told of them. A task gives some of them
         (``pipelines/tasks``); each is a column of table ``evaluations`` (``schemas.py``), null where the task has it not.

    loss               mean over the units, in nats
    perplexity         language: e to the power of the loss
    bits_per_byte      language: of the split's text, so that it compares over tokenizers
    accuracy           share of the units (tokens, samples) whose likeliest answer is the true one
    top5_accuracy      classification of more than five classes: the true one is among the five likeliest
    macro_precision    classification: mean over the classes that are there or were said; 0 for one that was never said
    macro_recall       the same, of the samples of each class; 0 for one of which there is none
    macro_f1           the same, of the harmonic mean of both
    calibration_error  classification: expected calibration error, of the probability of what is said, in 15 equal bins

Source: Guo et al. 2017 (expected calibration error).
"""

from __future__ import annotations

HIGHER_IS_BETTER = {
    "loss": False, "perplexity": False, "bits_per_byte": False, "accuracy": True, "top5_accuracy": True,
    "macro_precision": True, "macro_recall": True, "macro_f1": True, "calibration_error": False}
METRIC_NAMES = tuple(name for name in HIGHER_IS_BETTER if name != "loss")
Metrics = dict[str, float | None]  # by name; None: cannot be told


_SHARES = {"accuracy", "top5_accuracy", "macro_precision", "macro_recall", "macro_f1", "calibration_error"}


def metric_title(metric: str) -> str:
    return {"top5_accuracy": "top-5 accuracy", "macro_f1": "macro F1"}.get(metric, metric.replace("_", " "))


def metric_text(metric: str, value: float | None) -> str:
    """The value, for people."""
    if value is None:
        return "–"
    return f"{value:.1%}" if metric in _SHARES else f"{value:,.1f}" if metric == "perplexity" and value >= 100 else f"{value:.4f}"


def is_better(metric: str, value: float, than: float) -> bool:
    return value > than if HIGHER_IS_BETTER[metric] else value < than
