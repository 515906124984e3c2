"""Which layout a run has: checked where it is given, chosen where it is ``auto``.

Runs on: driver (pure).
Takes:   the model's facts, recipe and platform, the slots and the memory of one.
Gives:   ``Choice``: the layout, the table of candidates it was chosen from, the reason; or an error that says what to
         change.

The rule: the fewest segments that fit a rank's memory, the rest of the slots as replicas. Predicted times rank the
candidates for people to see; they do not decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.config.platform import AUTO, Layout
from pipelines.config.recipe import Recipe
from pipelines.errors import ConfigError, ResourceError, SparkringError
from pipelines.feed.lanes import steps_per_epoch
from pipelines.plan.memory import FeedFacts, Way, rank_bytes
from pipelines.plan.model_facts import FLOAT_BYTES, ModelFacts
from pipelines.plan.split_plan import cut_by_cost

RANK_FLOPS = 40e9  # of one rank on one core; only the ratios of predicted times mean something
WIRE_BYTES_PER_S = 1.25e9  # 10 Gbit/s Ethernet


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
    layout: Layout
    candidates: tuple[Candidate, ...]
    reason: str


def choose_layout(facts: ModelFacts, feed: FeedFacts, recipe: Recipe, layout: Layout, slots: int, memory_bytes: int, *,
                  max_replicas: int) -> Choice:
    """The layout for ``slots`` ranks of ``memory_bytes`` each; numbers that are given stay.

    Args:
        feed: of a dataset with rows; a replica that none is left for would only compute padding.
        max_replicas: as many as can find each other.

    Raises:
        ResourceError: the model does not fit even when split as far as it can be.
        ConfigError: the given numbers contradict the model or the recipe.
    """
    lanes, most_segments = recipe.data.num_lanes, min(len(facts.layers), slots)
    candidates = []
    for segments in [layout.num_segments] if layout.num_segments != AUTO else range(1, most_segments + 1):
        given = layout.num_replicas != AUTO
        replicas = layout.num_replicas if given else max(
            (n for n in range(1, min(slots // segments, feed.rows, max_replicas) + 1) if lanes % n == 0), default=0)
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
    sizes = [n for n in range(share, 0, -1) if share % n == 0] if layout.micro_batch_samples == AUTO else [
        layout.micro_batch_samples]
    tried = []
    for size in sizes:
        at = layout.model_copy(update={"num_replicas": replicas, "num_segments": segments, "micro_batch_samples": size})
        way = planned_way(facts, recipe, at)
        tried.append((at, way, max(rank_bytes(facts, feed, way)), bubble(way)))
    quiet = [each for each in tried if each[3] <= layout.max_bubble and schedule_accepts(each[1])] or tried[-1:]
    at, way, needed, waiting = next((each for each in quiet if each[2] <= memory_bytes), quiet[-1])
    verdict = ""
    if needed > memory_bytes:
        verdict = f"needs {_gib(needed)} of {_gib(memory_bytes)}"
    elif not schedule_accepts(way):
        verdict = f"{way.micro_batches} micro-batches do not suit the schedule {way.schedule}"
    elif waiting > layout.max_bubble:
        verdict = f"bubble above {layout.max_bubble:.0%}"
    step_s = predicted_step_s(facts, recipe, way)
    return Candidate(at, needed, waiting, wire_bytes(facts, recipe, way), step_s, step_s * planned_steps(recipe, feed.rows),
                     verdict)


def planned_steps(recipe: Recipe, num_rows: int) -> int:
    """Steps of the whole run."""
    per_epoch = steps_per_epoch(num_rows, recipe.data.num_lanes, recipe.train.global_batch_samples)
    return recipe.train.steps or (recipe.train.epochs or 1) * per_epoch


def planned_way(facts: ModelFacts, recipe: Recipe, layout: Layout) -> Way:
    """How the layout would run; cut by the layers' counted work where the costs are not measured yet."""
    share = recipe.train.global_batch_samples // layout.num_replicas
    if layout.num_segments == 1:
        counts: tuple[int, ...] = (len(facts.layers),)
    elif isinstance(layout.cut, tuple):
        counts = layout.cut
    else:
        by = [float(layer.parameters) if layout.cut == "parameters" else layer.flops_per_sample for layer in facts.layers]
        counts = tuple(cut_by_cost(by, min(layout.num_parts, len(by))))
    return Way(layout.num_replicas, layout.num_segments, layout.schedule, counts,
               -(-share // layout.micro_batch_samples), min(layout.micro_batch_samples, share))


def bubble(way: Way) -> float:
    """Share of a step that a rank waits: (p - 1) / (m + p - 1); with v parts per rank, (p - 1) / (v m + p - 1)."""
    waiting = way.num_segments - 1
    return waiting / (way.micro_batches * (len(way.counts) // way.num_segments) + waiting) if waiting else 0.0


def wire_bytes(facts: ModelFacts, recipe: Recipe, way: Way) -> int:
    """Bytes that one rank sends in a step: its share of the gradients' ring, activations and their gradients."""
    gradients = FLOAT_BYTES * facts.parameters // way.num_segments
    ring = 2 * (way.num_replicas - 1) * gradients // way.num_replicas
    crossing = 0
    if way.num_segments > 1:
        ends, at = [], 0
        for count in way.counts[:-1]:
            at += count
            ends.append(facts.layers[at - 1].output_bytes_per_sample)
        crossing = 2 * sum(ends) * way.micro_batches * way.micro_batch_samples // way.num_segments
    return ring + crossing


def predicted_step_s(facts: ModelFacts, recipe: Recipe, way: Way) -> float:
    """Compute of the slowest part, stretched by the bubble, and what is sent."""
    at, costs = 0, []
    for count in way.counts:
        costs.append(sum(layer.flops_per_sample for layer in facts.layers[at : at + count]))
        at += count
    per_segment = [sum(costs[segment :: way.num_segments]) for segment in range(way.num_segments)]
    compute = max(per_segment) * way.micro_batches * way.micro_batch_samples / RANK_FLOPS
    return compute / (1.0 - bubble(way)) + wire_bytes(facts, recipe, way) / WIRE_BYTES_PER_S


def schedule_accepts(way: Way) -> bool:
    """What torch's schedules ask for: 1f1b as many micro-batches as segments; those of several parts whole rounds."""
    if way.num_segments == 1 or way.schedule == "gpipe":
        return True
    if way.schedule == "1f1b":
        return way.micro_batches >= way.num_segments
    return way.micro_batches % max(1, way.micro_batches // way.num_segments) == 0


def check_split(facts: ModelFacts, recipe: Recipe, layout: Layout) -> None:
    """Raises ConfigError for a layout that the model or its schedule cannot have; every fault at once."""
    if layout.num_segments == 1:
        return
    faults = []
    num_layers, num_parts = len(facts.layers), layout.num_parts
    if num_parts > num_layers:
        parts = f"{layout.num_segments} segments" if num_parts == layout.num_segments else (
            f"{layout.num_segments} segments of {layout.parts_per_rank} parts")
        most = max(1, num_layers // (num_parts // layout.num_segments))
        faults.append(SparkringError("layout.num_segments", f"{parts} need {num_parts} layers, the model has {num_layers} "
                                     f"({_names(facts)})", f"use at most {most}"))
    elif isinstance(layout.cut, tuple) and (len(layout.cut) != num_parts or sum(layout.cut) != num_layers):
        faults.append(SparkringError("layout.cut", f"{list(layout.cut)} is not {num_parts} counts that add up to {num_layers} "
                                     f"layers ({_names(facts)})", f"for example {cut_by_cost([1.0] * num_layers, num_parts)}"))
    if facts.unsplittable:
        faults.append(SparkringError("layout.num_segments", f"{layout.num_segments}: {facts.unsplittable}"))
    if not faults and not schedule_accepts(way := planned_way(facts, recipe, layout)):
        share = recipe.train.global_batch_samples // layout.num_replicas
        good = [size for size in range(1, share + 1) if schedule_accepts(
            planned_way(facts, recipe, layout.model_copy(update={"micro_batch_samples": size})))]
        faults.append(SparkringError(
            "layout.micro_batch_samples", f"{layout.micro_batch_samples} makes {way.micro_batches} micro-batches of a replica's "
            f"{share} samples, which the schedule {layout.schedule} cannot run over {layout.num_segments} segments",
            f"use {_some(good)}" if good else "use the schedule gpipe, or a larger train.global_batch_samples"))
    if faults:
        raise ConfigError(faults)


def _names(facts: ModelFacts) -> str:
    names = [layer.name for layer in facts.layers]
    return ", ".join(names if len(names) <= 6 else [*names[:3], "...", names[-1]])


def _some(numbers: Sequence[int]) -> str:
    return " or ".join(str(number) for number in (numbers if len(numbers) <= 4 else [*numbers[:3], numbers[-1]]))


def _gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"
