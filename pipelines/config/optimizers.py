"""The recipe's sections ``optimizer`` and ``schedule``, one class per kind.

Runs on: driver and ranks.
Takes:   the mappings under ``optimizer`` and ``schedule``; without ``kind`` they are AdamW and cosine.
Gives:   ``Optimizer`` and ``Schedule``, the section of any kind; ``OPTIMIZER_SECTIONS``, ``SCHEDULE_SECTIONS``.

What becomes of them is in ``pipelines/train/optimizer.py``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from pipelines.config.section import Count, KindedSection, Whole, kind_of
from pipelines.errors import SparkringError

LearningRate = Annotated[float, Field(gt=0.0, le=1e30)]
Decay = Annotated[float, Field(ge=0.0, le=1e30)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class OptimizerSection(KindedSection):
    """What the sections of all kinds have. Weight decay acts on matrices, kernels and embeddings, not on biases and gains."""

    learning_rate: LearningRate

    def values_kept(self, parameters: int, matrix_parameters: int) -> int:
        """Beside parameters and their gradients.

        Args:
            matrix_parameters: of the parameters, those in matrices (``models/matrices.py``).
        """
        return 0


class AdamW(OptimizerSection):
    """Source: Loshchilov & Hutter 2019."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: LearningRate = 1e-3
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    epsilon: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-8
    weight_decay: Decay = 0.1

    def values_kept(self, parameters: int, matrix_parameters: int) -> int:
        return 2 * parameters  # their moments


class Sgd(OptimizerSection):
    """Stochastic gradient descent. Source: Sutskever et al. 2013 (momentum, Nesterov)."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: LearningRate = 1e-2
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9
    nesterov: bool = False
    weight_decay: Decay = 0.0

    def values_kept(self, parameters: int, matrix_parameters: int) -> int:
        return parameters if self.momentum else 0

    def contradictions(self) -> list[SparkringError]:
        if not self.nesterov or self.momentum:
            return []
        return [SparkringError("optimizer.nesterov", "true: there is no momentum to look ahead with",
                               "set optimizer.momentum above 0, such as 0.9")]


class Muon(OptimizerSection):
    """Of the matrices inside the model; embeddings, the head, kernels, biases and gains are AdamW's, with the same learning rate
    and weight decay. Source: Jordan et al. 2024; Liu et al. 2025 (Moonlight)."""

    kind: Literal["muon"] = "muon"
    learning_rate: LearningRate = 2e-3
    momentum: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95  # of matrices
    beta1: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.9  # of AdamW
    beta2: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.95
    epsilon: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-8
    weight_decay: Decay = 0.1

    def values_kept(self, parameters: int, matrix_parameters: int) -> int:
        return 2 * parameters - matrix_parameters


class ScheduleSection(KindedSection):
    """What the sections of all kinds have: the learning rate of each step, relative to ``optimizer.learning_rate``."""

    warmup_steps: Annotated[Whole, Field(ge=0, le=2**31 - 1)]  # from 0 to the highest, in a straight line


class CosineSchedule(ScheduleSection):
    """Down to a fraction in half a wave, to the end of training. Source: Loshchilov & Hutter 2017."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 100
    final_fraction: Share = 0.1  # of the peak learning rate, at the last step


class ConstantSchedule(ScheduleSection):
    """Stays where it is."""

    kind: Literal["constant"] = "constant"
    warmup_steps: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 100
    final_fraction: Share = 0.1  # means nothing here; part of the ids of earlier runs


class LinearSchedule(ScheduleSection):
    """Down to a fraction in a straight line, to the end of training."""

    kind: Literal["linear"] = "linear"
    warmup_steps: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 100
    final_fraction: Share = 0.0  # of the peak learning rate, at the last step


class WsdSchedule(ScheduleSection):
    """Warm-up, stable, decay: stays, then goes down in a straight line, over the last share of the steps.

    Source: Hu et al. 2024.
    """

    kind: Literal["wsd"] = "wsd"
    warmup_steps: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 100
    decay_fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.2  # of all steps
    final_fraction: Share = 0.0  # of the peak learning rate, at the last step


class StepSchedule(ScheduleSection):
    """Down by a factor at regular steps."""

    kind: Literal["step"] = "step"
    warmup_steps: Annotated[Whole, Field(ge=0, le=2**31 - 1)] = 0
    every_steps: Count
    factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1


class OneCycleSchedule(ScheduleSection):
    """Up in half a wave, then down in another. Source: Smith & Topin 2018; momentum stays as it is."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup_steps: Annotated[Whole, Field(ge=0, le=0)] = 0  # the rise is one
    rise_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3  # of all steps
    first_fraction: Share = 0.04  # of the peak learning rate, at the first step
    final_fraction: Share = 4e-6  # at the last one


OPTIMIZER_SECTIONS: dict[str, type[OptimizerSection]] = {"adamw": AdamW, "sgd": Sgd, "muon": Muon}
SCHEDULE_SECTIONS: dict[str, type[ScheduleSection]] = {
    "cosine": CosineSchedule, "constant": ConstantSchedule, "linear": LinearSchedule, "wsd": WsdSchedule, "step": StepSchedule,
    "one_cycle": OneCycleSchedule}

Optimizer = Annotated[Annotated[AdamW, Tag("adamw")] | Annotated[Sgd, Tag("sgd")] | Annotated[Muon, Tag("muon")],
                      Discriminator(kind_of("adamw"))]
Schedule = Annotated[Annotated[CosineSchedule, Tag("cosine")] | Annotated[ConstantSchedule, Tag("constant")]
                     | Annotated[LinearSchedule, Tag("linear")] | Annotated[WsdSchedule, Tag("wsd")]
                     | Annotated[StepSchedule, Tag("step")] | Annotated[OneCycleSchedule, Tag("one_cycle")],
                     Discriminator(kind_of("cosine"))]
