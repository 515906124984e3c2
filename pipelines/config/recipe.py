"""The recipe: everything that decides what is learned.

Runs on: driver and ranks.
Takes:   the mapping read from ``conf/recipes/*.yaml`` (see ``load.py``).
Gives:   ``Recipe``, a frozen typed model; unknown keys are refused.

A recipe never says where or how fast: that is the platform (``platform.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from pipelines.config.datasets import PREPARE_SECTIONS, USUAL_KIND, Prepare, TextPrepare
from pipelines.config.models import MODEL_SECTIONS, USUAL_MODEL, Model
from pipelines.config.optimizers import (
    OPTIMIZER_SECTIONS,
    SCHEDULE_SECTIONS,
    AdamW,
    CosineSchedule,
    Optimizer,
    Schedule,
)
from pipelines.config.section import Count, KindedSection, Section, Whole, kind_of
from pipelines.config.tasks import TASK_SECTIONS, LanguageTask, TaskOfRecipe


class Augment(Section):
    """What happens to a picture before it is trained with; drawn anew for each sample in each epoch."""

    mirror: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0  # how likely left and right change places
    shift_pixels: Annotated[Whole, Field(ge=0, le=2**15)] = 0  # at most, up or down and left or right
    least_kept: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0  # of height and width, cut out and made as large as before
    contrast: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0  # stretched or flattened by this share, at most
    brightness: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0  # lighter or darker by this share of white, at most
    cover_pixels: Annotated[Whole, Field(ge=0, le=2**15)] = 0  # side of a square that is covered


class Data(Section):
    """How the dataset is read: the order of samples, on any layout."""

    num_lanes: Annotated[Whole, Field(ge=1, le=2**16)] = 16
    window_row_groups: Count = 4  # rows are shuffled in a window of this many row groups
    shuffle: bool = True
    augment: Augment | None = None  # of images, as they are trained with; null: as they are


class Train(Section):
    """How the model is trained: give ``steps`` or ``epochs``, not both."""

    global_batch_samples: Count = 64
    steps: Count | None = None
    epochs: Count | None = None
    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = 1337
    # true: a model whose result would depend on the layout, because it draws random numbers as it trains or mixes samples,
    # is refused; false: it is trained, and the same command gives the same result only on the same layout
    same_on_any_layout: bool = True
    precision: Literal["fp32", "bf16"] = "fp32"
    gradient_wire: Literal["fp32", "fp16", "bf16"] = "fp32"  # what travels in the allreduce
    clip_norm: Annotated[float, Field(gt=0.0, le=1e30)] | None = 1.0
    evaluate_every_steps: Count = 100  # and always after the last step
    evaluation_rows: Count | None = None  # read by an evaluation: the first of the validation split; null: all
    best_by: str = "loss"  # the metric of the validation split by which a model is the best; prepare.kind says which there are
    early_stop_evaluations: Count | None = None  # stop after so many evaluations in a row without a new best; null: never


class Recipe(Section):
    """The whole recipe. ``name`` names the dataset and the runs made from it."""

    model_config = ConfigDict(defer_build=True)  # until the first is read: the kinds of models import this package

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    prepare: Prepare
    task: TaskOfRecipe = LanguageTask()  # without a kind it is the task of the data
    data: Data = Data()
    model: Model = Field(default_factory=lambda: MODEL_SECTIONS[USUAL_MODEL].model_validate({}))
    optimizer: Optimizer = AdamW()
    schedule: Schedule = CosineSchedule()
    train: Train = Train()

    def with_model(self, section: Mapping[str, Any]) -> Recipe:
        """The same with another section ``model``."""
        return Recipe.model_validate({**self.model_dump(mode="json"), "model": section})

    @model_validator(mode="before")
    @classmethod
    def _task_of_the_data(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("task", {}), dict):
            return given
        prepare = PREPARE_SECTIONS.get(kind_of(USUAL_KIND)(given.get("prepare")), TextPrepare)  # another kind is refused there
        return {**given, "task": {"kind": prepare.task, **given.get("task", {})}}


# the classes of each section that comes in several kinds
SECTION_KINDS: dict[str, Mapping[str, type[KindedSection]]] = {
    "prepare": PREPARE_SECTIONS, "task": TASK_SECTIONS, "model": MODEL_SECTIONS, "optimizer": OPTIMIZER_SECTIONS,
    "schedule": SCHEDULE_SECTIONS}
