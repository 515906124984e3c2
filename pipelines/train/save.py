"""The trained model, saved while training goes on.

Runs on: ranks: rank 0 writes, the others of its replica send what they hold.
Takes:   the agreement, the task, the plan.
Gives:   ``saving_of``: what the loop calls to save.
"""

from __future__ import annotations

from collections.abc import Callable

from pipelines.config.load import Config
from pipelines.errors import DataError
from pipelines.models.architectures import described_by
from pipelines.models.export import save_model
from pipelines.parallel.agreement.agreement import Agreement
from pipelines.plan.run_plan import RunPlan
from pipelines.tasks.task import Task
from pipelines.train.progress import Progress


def saving_of(config: Config, plan: RunPlan, task: Task, agreement: Agreement, progress: Progress
              ) -> Callable[[str, int, float], None]:
    """The loop's ``save``: (``best`` or ``last``, step, validation loss); all ranks call it at the same time.

    Raises:
        DataError: a file of the dataset that a model needs cannot be read.
    """
    lake, dataset = plan.lake, plan.lake.store.below(plan.dataset)
    section = described_by(config.recipe.model)  # now: a folder that it comes from may be gone when the model is saved
    files: dict[str, bytes] = {}
    for name in task.exported_files if agreement.place.rank == 0 else ():
        try:
            files[name] = dataset.read(name)
        except OSError as error:
            raise DataError(dataset.place(name), f"cannot be read: {error.strerror or error}",
                            "restore the file, or remove the dataset's version and prepare again") from error

    lineage = {"dataset": f"{config.recipe.name}, version {plan.dataset.rpartition('/')[2]}",
               "optimizer": f"{config.recipe.optimizer.kind}, learning rate {config.recipe.optimizer.learning_rate:g}, "
                            f"{config.recipe.train.global_batch_samples} samples a step"}

    def save(which: str, step: int, loss: float) -> None:
        state = progress.counted("saving", agreement.whole_state(), len(agreement.specs))
        if agreement.place.rank == 0:
            save_model(lake.store.below(lake.model(plan.run_id, which)), state, agreement.specs, section,
                       task=task.facts, files=files,
                       lineage=lineage, notes={"step": str(step), "validation_loss": repr(loss), "run_id": plan.run_id})
        else:
            for _ in state:  # sends this rank's parameters to rank 0
                pass

    return save
