"""Which layout a run has: checked where it is given, chosen where it is ``auto``.

Runs on: driver (pure).
Takes:   the model's facts, recipe and platform, the ``Room`` there is.
Gives:   ``Choice``: the layout, the table of candidates it was chosen from, the reason; or an error that says what to
         change.

The rule: the fewest segments that fit a rank's memory, the rest of the slots as replicas. Predicted times rank the
candidates for people to see; they do not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.config.numbers import divisors, nearest_multiples, one_of
from pipelines.config.platform import AUTO, Layout
from pipelines.config.recipe import Recipe
from pipelines.errors import ConfigError, ResourceError, SparkringError
from pipelines.feed.lanes import samples_per_lane, steps_per_epoch
from pipelines.plan.memory import FeedFacts, rank_bytes
from pipelines.plan.model_facts import FLOAT_BYTES, ModelFacts
from pipelines.plan.split_plan import SplitPlan, cut_by_cost, num_parts

RANK_FLOPS = 40e9  # of one rank on one core; only the ratios of predicted times mean something
WIRE_BYTES_PER_S = 1.25e9  # 10 Gbit/s Ethernet


@dataclass(frozen=True)
class Room:
    """What an automatic layout has to do with."""

    slots: int
    memory_bytes: int  # of the rank on each
    most_replicas: int  # as many as can find each other


@dataclass(frozen=True)
class Candidate:
    """One row of the table that a choice is made from."""

    layout: Layout
    memory_bytes: int  # of the rank that needs most
    bubble: float  # share of a step in which ranks wait for other segments
    wire_bytes: int  # sent by one rank in a step
    step_s: float  # predicted
    run_s: float  # all steps, predicted
    verdict: str  # "chosen", or why not


@dataclass(frozen=True)
class Choice:
    """A layout with what it was chosen from."""

    layout: Layout
    candidates: tuple[Candidate, ...]
    reason: str

    def lines(self) -> list[str]:
        """The candidates as a table, and the reason."""
        rows = [("replicas", "segments", "micro-batch", "memory", "bubble", "wire/step", "step", "run", "")]
        for each in self.candidates:
            layout = each.layout
            rows.append((str(layout.num_replicas), str(layout.num_segments), str(layout.micro_batch_samples),
                         _gib(each.memory_bytes), f"{each.bubble:.0%}", f"{each.wire_bytes / 2**20:,.1f} MiB",
                         f"{each.step_s:.3g} s", f"{each.run_s / 60:.3g} min", each.verdict))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        table = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row[:-1], widths, strict=False)) + f"  {row[-1]}"
                 for row in rows]
        return [f"layout: {self.reason}", *table]

    @staticmethod
    def of_json(content: dict[str, Any]) -> Choice:
        candidates = tuple(Candidate(**{**each, "layout": Layout.model_validate(each["layout"])})
                           for each in content["candidates"])
        return Choice(Layout.model_validate(content["layout"]), candidates, content["reason"])


def choose_layout(facts: ModelFacts, feed: FeedFacts, recipe: Recipe, layout: Layout, room: Room) -> Choice:
    """The layout for as many ranks as there is room for; numbers that are given stay.

    Args:
        feed: of a dataset with rows; a replica that none is left for would only compute padding.

    Raises:
        ResourceError: the model does not fit even when split as far as it can be.
        ConfigError: the given numbers contradict the model or the recipe.
    """
    check_lane_groups(facts, recipe)
    lanes, slots, memory_bytes = recipe.data.num_lanes, room.slots, room.memory_bytes
    most_segments = min(len(facts.layers), slots)
    candidates = []
    for segments in [layout.num_segments] if layout.num_segments != AUTO else range(1, most_segments + 1):
        given = layout.num_replicas != AUTO
        replicas = layout.num_replicas if given else max(
            (n for n in range(1, min(slots // segments, feed.rows, room.most_replicas) + 1) if lanes % n == 0), default=0)
        if replicas == 0 or replicas * segments > slots:
            continue
        candidates.append(_candidate(facts, feed, recipe, layout, replicas, segments, memory_bytes))
    if not candidates:
        raise ResourceError("layout", f"{layout.num_replicas or 1} x {layout.num_segments or 1} ranks need more than the "
                            f"{slots} slots there are", "give Spark more slots, or set smaller numbers")
    fitting = [c for c in candidates if not c.verdict]
    if not fitting:
        least = min(candidates, key=lambda c: c.memory_bytes)
        raise ResourceError(
            "layout", f"the model needs {_gib(least.memory_bytes)} on a rank even with {least.layout.num_segments} "
            f"segments, a rank has {_gib(memory_bytes)}",
            "give slots more memory (spark.executor.memoryOverhead; or say layout.memory_per_rank_bytes), more slots, or lower "
            "reader.read_ahead_bytes, prepare.sequence_length or the model's sizes")
    chosen = fitting[0]
    shown = tuple(Candidate(**{**c.__dict__, "verdict": c.verdict or ("chosen" if c is chosen else "more segments than needed")})
                  for c in candidates)
    kind = {(False, True): "data parallel: the model fits one rank",
            (True, False): "layer split: the model does not fit one rank",
            (True, True): "hybrid: the model does not fit one rank, and there are slots for more replicas",
            (False, False): "one rank"}[chosen.layout.num_segments > 1, chosen.layout.num_replicas > 1]
    check_split(facts, recipe, chosen.layout)
    return Choice(chosen.layout, shown, kind)


def _candidate(facts: ModelFacts, feed: FeedFacts, recipe: Recipe, layout: Layout, replicas: int, segments: int,
               memory_bytes: int) -> Candidate:
    """With the largest micro-batches whose bubble is below the bound and that fit the memory."""
    share = recipe.train.global_batch_samples // replicas
    sizes = [layout.micro_batch_samples]
    if layout.micro_batch_samples == AUTO:
        sizes = [n for n in range(share, 0, -1) if share % n == n % facts.group_samples == 0]
    tried = []
    for size in sizes:
        at = layout.model_copy(update={"num_replicas": replicas, "num_segments": segments, "micro_batch_samples": size})
        split = planned_split(facts, recipe, at)
        tried.append((at, split, max(rank_bytes(facts, feed, split, recipe.optimizer)), split.bubble))
    quiet = [each for each in tried if each[3] <= layout.max_bubble and each[1].accepted] or tried[-1:]
    at, split, needed, waiting = next((each for each in quiet if each[2] <= memory_bytes), quiet[-1])
    verdict = ""
    if needed > memory_bytes:
        verdict = f"needs {_gib(needed)} of {_gib(memory_bytes)}"
    elif not split.accepted:
        verdict = f"{split.micro_batches} micro-batches do not suit the schedule {split.schedule}"
    elif waiting > layout.max_bubble:
        verdict = f"bubble above {layout.max_bubble:.0%}"
    step_s = predicted_step_s(facts, recipe, split)
    return Candidate(at, needed, waiting, wire_bytes(facts, recipe, split), step_s, step_s * planned_steps(recipe, feed.rows),
                     verdict)


def planned_steps(recipe: Recipe, num_rows: int) -> int:
    """Steps of the whole run."""
    per_epoch = steps_per_epoch(num_rows, recipe.data.num_lanes, recipe.train.global_batch_samples)
    return recipe.train.steps or (recipe.train.epochs or 1) * per_epoch


def planned_split(facts: ModelFacts, recipe: Recipe, layout: Layout) -> SplitPlan:
    """How the layout would run; cut by the layers' counted work where the ranks are to measure what each costs."""
    if layout.num_segments == 1:
        counts: tuple[int, ...] = (len(facts.layers),)
    elif isinstance(layout.cut, tuple):
        counts = layout.cut
    else:
        by = [float(layer.parameters + layer.tied_parameters) if layout.cut == "parameters" else layer.flops_per_sample
              for layer in facts.layers]
        counts = tuple(cut_by_cost(by, min(num_parts(layout), len(by))))
    return SplitPlan.of(layout, counts, recipe.train.global_batch_samples)


def wire_bytes(facts: ModelFacts, recipe: Recipe, split: SplitPlan) -> int:
    """Bytes that one rank sends in a step: its share of the gradients' ring, activations and their gradients."""
    gradients = FLOAT_BYTES * facts.parameters // split.num_segments
    ring = 2 * (split.num_replicas - 1) * gradients // split.num_replicas
    crossing = 0
    if split.num_segments > 1:
        ends = sum(facts.layers[part.stop - 1].output_bytes_per_sample for part in split.ranges[:-1])
        crossing = 2 * ends * split.micro_batches * split.micro_batch_samples // split.num_segments
    return ring + crossing


def predicted_step_s(facts: ModelFacts, recipe: Recipe, split: SplitPlan) -> float:
    """Compute of the slowest part, stretched by the bubble, and what is sent."""
    costs = [sum(facts.layers[i].flops_per_sample for i in part) for part in split.ranges]
    per_segment = [sum(costs[segment :: split.num_segments]) for segment in range(split.num_segments)]
    compute = max(per_segment) * split.micro_batches * split.micro_batch_samples / RANK_FLOPS
    return compute / (1.0 - split.bubble) + wire_bytes(facts, recipe, split) / WIRE_BYTES_PER_S


def check_split(facts: ModelFacts, recipe: Recipe, layout: Layout) -> None:
    """Raises ConfigError for a layout that the model or its schedule cannot have; every fault at once."""
    faults = _parted_groups(facts, recipe, layout)
    if layout.num_segments == 1:
        if faults:
            raise ConfigError(faults)
        return
    num_layers, needed = len(facts.layers), num_parts(layout)
    if needed > num_layers:
        parts = f"{layout.num_segments} segments" if needed == layout.num_segments else (
            f"{layout.num_segments} segments of {layout.parts_per_rank} parts")
        most = max(1, num_layers // (needed // layout.num_segments))
        faults.append(SparkringError("layout.num_segments", f"{parts} need {needed} layers, the model has {num_layers} "
                                     f"({_names(facts)})", f"use at most {most}"))
    elif isinstance(layout.cut, tuple) and (len(layout.cut) != needed or sum(layout.cut) != num_layers):
        faults.append(SparkringError("layout.cut", f"{list(layout.cut)} is not {needed} counts that add up to {num_layers} "
                                     f"layers ({_names(facts)})", f"for example {cut_by_cost([1.0] * num_layers, needed)}"))
    if facts.unsplittable:
        faults.append(SparkringError("layout.num_segments", f"{layout.num_segments}: {facts.unsplittable}"))
    if faults := faults or schedule_faults(recipe, layout):
        raise ConfigError(faults)


def schedule_faults(recipe: Recipe, layout: Layout) -> list[SparkringError]:
    """Whether the schedule can run as many micro-batches as there will be, whatever the model; of a layout that is given."""
    batch_samples = recipe.train.global_batch_samples

    def split_of(size: int) -> SplitPlan:
        return SplitPlan.of(layout.model_copy(update={"micro_batch_samples": size}), (1,) * num_parts(layout), batch_samples)

    if (split := split_of(layout.micro_batch_samples)).accepted:
        return []
    share = batch_samples // layout.num_replicas
    good = [size for size in range(1, share + 1) if split_of(size).accepted]
    return [SparkringError(
        "layout.micro_batch_samples", f"{layout.micro_batch_samples} makes {split.micro_batches} micro-batches of a "
        f"replica's {share} samples, which the schedule {layout.schedule} cannot run over {layout.num_segments} segments",
        f"use {_some(good)}" if good else "use the schedule gpipe, or a larger train.global_batch_samples")]


def check_lane_groups(facts: ModelFacts, recipe: Recipe) -> None:
    """Raises ConfigError where a lane's samples of a step are no whole groups."""
    per_lane = samples_per_lane(recipe.data.num_lanes, recipe.train.global_batch_samples)
    if per_lane % facts.group_samples:
        fitting = [size for size in divisors(per_lane) if size > 1]
        raise ConfigError(SparkringError(
            "model.norm_samples", f"{facts.group_samples} does not divide the {per_lane} samples that a step takes of each lane "
            f"(train.global_batch_samples {recipe.train.global_batch_samples} / data.num_lanes {recipe.data.num_lanes})",
            f"use {one_of(fitting)}" if fitting else "use fewer lanes, a larger global batch, or model.normalisation: group"))


def _parted_groups(facts: ModelFacts, recipe: Recipe, layout: Layout) -> list[SparkringError]:
    check_lane_groups(facts, recipe)
    size = min(layout.micro_batch_samples, recipe.train.global_batch_samples // layout.num_replicas)
    if size % facts.group_samples == 0:
        return []
    return [SparkringError("layout.micro_batch_samples", f"{size} samples end within a group of {facts.group_samples} that are "
                           "normalised together (model.norm_samples)",
                           f"use {nearest_multiples(size, facts.group_samples)}")]


def _names(facts: ModelFacts) -> str:
    names = [layer.name for layer in facts.layers]
    return ", ".join(names if len(names) <= 6 else [*names[:3], "...", names[-1]])


def _some(numbers: Sequence[int]) -> str:
    return " or ".join(str(number) for number in (numbers if len(numbers) <= 4 else [*numbers[:3], numbers[-1]]))


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
