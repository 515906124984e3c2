"""The training loop: steps, evaluations, the best and the last model, one record for everything that happens.

Runs on: ranks, all in the same order.
Takes:   its parts ready made (``training.py`` wires them).
Gives:   records in the rank's file; on rank 0 the models.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import torch

from pipelines.config.recipe import Recipe
from pipelines.errors import RankFailedError
from pipelines.feed.batches import Batch
from pipelines.lake.metric_facts import is_better
from pipelines.lake.rank_records import RecordWriter
from pipelines.parallel.agreement.agreement import Agreement
from pipelines.train.evaluate import Evaluation
from pipelines.train.optimizer import learning_rate_at

TIMELINE_STEP = 5  # whose work is recorded in full where the model is split: caches are warm by then


@dataclass(frozen=True)
class StepInput:
    """This replica's share of one step."""

    epoch: int
    micro_batches: list[Batch]  # without fields on a rank that needs neither inputs nor targets
    data_wait_s: float


@dataclass
class TrainingLoop:
    """One run's loop on one rank."""

    recipe: Recipe
    total_steps: int
    agreement: Agreement
    records: RecordWriter
    evaluate: Callable[[], Evaluation]
    save: Callable[[str, int, float], None]  # ("best" or "last", step, validation loss)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def run(self, inputs: Iterable[StepInput]) -> int:
        """Trains to the last step, or until evaluations stay without a new best for too long; returns the step reached.

        Raises:
            RankFailedError: a loss or gradient that is not finite, with step and rank; a lost peer.
        """
        best_by = self.recipe.train.best_by
        best: float | None = None
        without_best = 0
        stream: Iterator[StepInput] = iter(inputs)
        for step in range(1, self.total_steps + 1):
            self._train_step(step, stream)
            if step % self.recipe.train.evaluate_every_steps and step < self.total_steps:
                continue
            evaluation = self._evaluate(step)  # the same on all ranks, and so is what follows from it
            value = evaluation.of(best_by)
            without_best += 1
            if best is None or (value is not None and is_better(best_by, value, best)):
                best, without_best = value, 0
                self.save("best", step, evaluation.loss)
            if step == self.total_steps or without_best == self.recipe.train.early_stop_evaluations:
                self.save("last", step, evaluation.loss)
                return step
        return 0

    def _train_step(self, step: int, stream: Iterator[StepInput]) -> None:
        began = time.perf_counter()
        step_input = next(stream, None)
        if step_input is None:
            raise RankFailedError(f"step {step}, rank {self.agreement.place.rank}", "there are no more samples",
                                  "are the dataset's files the same on all hosts?")
        learning_rate = learning_rate_at(step, self.total_steps, self.recipe.optimizer.learning_rate,
                                         self.recipe.schedule)
        outcome = self.agreement.step(step_input.micro_batches, learning_rate, step_input.epoch)
        if not outcome.finite:
            rank, what = outcome.first_bad_rank, "gradient" if outcome.first_bad_rank is None else "loss"
            self._refuse(step, self.agreement.place.rank if rank is None else rank, what)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # else the clock would stop before the work does
        seconds = time.perf_counter() - began
        waited_s = outcome.pipeline_wait_s + outcome.averaging_s
        self.records.write(
            "step", step=step, epoch=step_input.epoch, loss=outcome.loss, learning_rate=learning_rate,
            gradient_norm=outcome.gradient_norm, global_units=outcome.global_units,
            global_samples=outcome.global_samples, units=outcome.units, samples=outcome.samples,
            seconds=round(seconds, 6), data_wait_s=round(step_input.data_wait_s, 6),
            compute_s=round(max(0.0, seconds - step_input.data_wait_s - waited_s), 6),
            communication_s=round(waited_s, 6), pipeline_wait_s=round(outcome.pipeline_wait_s, 6),
            averaging_s=round(outcome.averaging_s, 6), memory_bytes=peak_memory_bytes(self.device))
        if outcome.timeline and step == min(TIMELINE_STEP, self.total_steps):
            self.records.write("timeline", step=step, began_s=outcome.began_s, work=[
                [work.kind, work.part, work.micro_batch, round(work.begin_s, 6), round(work.end_s, 6)]
                for work in outcome.timeline])

    def _refuse(self, step: int, rank: int | None, what: str) -> NoReturn:
        """``rank``: whose fault it is, where it is one's."""
        raise RankFailedError(f"step {step}" + (f", rank {rank}" if rank is not None else ""),
                              f"the {what} is not finite (NaN or Inf)",
                              "lower optimizer.learning_rate, raise schedule.warmup_steps, set train.clip_norm or "
                              "train.precision: fp32")

    def _evaluate(self, step: int) -> Evaluation:
        evaluation = self.evaluate()
        if not math.isfinite(evaluation.loss):  # the step before it was, its update was too much
            self._refuse(step, None, "validation loss")
        if self.agreement.place.rank == 0:
            self.records.write("evaluation", step=step, split="validation", **evaluation.facts())
        return evaluation


def peak_memory_bytes(device: torch.device) -> int:
    """Most memory this rank has held: resident on the CPU, allocated on a GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # not ru_maxrss: on Linux a process inherits it from the one that started it
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024
