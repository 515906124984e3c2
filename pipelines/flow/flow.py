"""The map: the stages in order, from raw input to report, and which of them each job does.

Runs on: driver.
Takes:   a ``Job`` and the names of its stages.
Gives:   a published dataset, a completed run, loaded tables, a report; what is complete already is skipped, and Spark
         is only started when a stage needs it.
"""

from __future__ import annotations

from typing import Any

from pipelines.errors import DataError
from pipelines.flow.evaluate_stage import plan_evaluation_of, run_evaluation
from pipelines.flow.export_stage import check_export, plan_export, write_export
from pipelines.flow.model_export_stage import plan_model_export, write_model_export
from pipelines.flow.predict_stage import check_predictions, make_predictions, plan_predictions
from pipelines.flow.prepare_stage import check_build, make_dataset, plan_dataset
from pipelines.flow.report_stage import plan_page, write_page
from pipelines.flow.stage import Job, Planned, Stage
from pipelines.flow.train_stage import admit_ranks, check_ranks, check_training, plan_run_of, train_run

STAGES = (
    Stage("prepare", (), plan_dataset, make_dataset, check=check_build),
    Stage("export", ("prepare",), plan_export, write_export, check=check_export),
    Stage("train", ("prepare",), plan_run_of, train_run, check=check_training, admit=admit_ranks),
    Stage("report", ("train",), plan_page, write_page),
    Stage("evaluate", (), plan_evaluation_of, run_evaluation, check=check_ranks),  # of a run that is there, as the next
    Stage("predict", (), plan_predictions, make_predictions, check=check_predictions),
    Stage("model export", (), plan_model_export, write_model_export),
)
JOBS = {"prepare": ("prepare",), "export": ("prepare", "export"), "train": ("train", "report"),
        "pipeline": ("prepare", "train", "report"), "evaluate": ("evaluate",), "predict": ("predict",),
        "model export": ("model export",)}


class Flow:
    """One execution of the wanted stages: ``plan``, ``check``, ``run``, in this order."""

    def __init__(self, job: Job, wanted: tuple[str, ...]) -> None:
        self.job, self.wanted = job, wanted
        self.planned: dict[str, Planned] = {}
        self._results: dict[str, Any] = {}

    def plan(self, *, begin: bool = False) -> None:
        """Plans what can be planned: looks at the lake, starts nothing and writes nothing.

        Args:
            begin: the run follows, so that Spark may start as soon as it is known that a dataset has to be built.
        """
        if self.job.run_id is not None:
            self.job.lake.run(self.job.run_id)  # refuses what is no name, before the input is listed
        self.job.build_begins = self._begin if begin and "prepare" in self.wanted else None
        for stage in self._involved():
            if all(need in self._results for need in stage.needs):
                self._plan(stage)

    def check(self) -> None:
        """Refuses, before anything is started, what the wanted stages cannot do; for the run and for ``--dry-run``.

        Raises:
            ConfigError, ResourceError: see the stages. DataError: what a stage needs is neither there nor wanted.
        """
        missing = []
        for stage in STAGES:
            if stage.name in self.wanted and stage.name not in self._results:
                stage.check(self.job)
                missing += [need for need in stage.needs if need not in self._results and need not in self.wanted]
        if missing:
            raise DataError(self.job.lake.store.place(), f"holds no complete result of stage {missing[0]} for this recipe and "
                            "input", f"run the {missing[0]} job first")

    def run(self) -> dict[str, Any]:
        """What each wanted stage gives, by its name."""
        waiting = [stage for stage in STAGES if stage.name in self.wanted and stage.name not in self.planned]
        for stage in waiting:
            stage.admit(self.job)
        for stage in STAGES:
            if stage.name in self.wanted:
                planned = self.planned.get(stage.name) or self._plan(stage)
                if planned.result is None:
                    self._results[stage.name] = stage.run(self.job, planned.content)
                else:
                    self.job.say(f"{stage.name}: {planned.done} is complete, nothing to do")
        return {name: self._results[name] for name in self.wanted}

    def shown(self) -> dict[str, str]:
        """The lines of ``--dry-run``."""
        lines: dict[str, str] = {}
        for stage in STAGES:
            if stage.name in self.planned:
                lines |= self.planned[stage.name].shown
            elif stage.name in self.wanted:
                lines[stage.name] = f"follows from {' and '.join(stage.needs)}"
        return lines

    def _involved(self) -> list[Stage]:
        """The wanted stages and those whose results they need, in order."""
        names = set(self.wanted)
        for stage in reversed(STAGES):
            names |= set(stage.needs) if stage.name in names else set()
        return [stage for stage in STAGES if stage.name in names]

    def _plan(self, stage: Stage) -> Planned:
        planned = stage.plan(self.job, *(self._results[need] for need in stage.needs))
        if planned.result is not None:
            self._results[stage.name] = planned.result
        self.planned[stage.name] = planned
        return planned

    def _begin(self) -> None:
        """Spark starts while the input is read, unless what follows could not."""
        self.check()
        self.job.start_spark()
