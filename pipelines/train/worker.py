"""One rank: the only place where a rank's parts are made and put together.

Runs on: ranks, as ``python -m pipelines.train.worker ROOT RUN_ID ATTEMPT`` (the launcher's child, or by hand: without
         ``HOROVOD_*`` in the environment it trains alone).
Takes:   ``config.json`` and ``plan.json`` of the attempt, the dataset they name.
Gives:   this rank's record file; on rank 0 the models, and after the end a sample of what the best one makes (``sample.py``);
         an exit code of ``errors.py``.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from pipelines.train import rank_variables
from pipelines.train.lifeline import die_with_parent

die_with_parent()  # before the slow imports: a launch that is stopped early must leave nothing behind

import torch  # noqa: E402

from pipelines.config.load import Config  # noqa: E402
from pipelines.errors import EXIT_OK, SparkringError  # noqa: E402
from pipelines.feed.batches import EvaluationFeed, SampleOrder, Share, TrainingFeed  # noqa: E402
from pipelines.lake.manifest import Manifest  # noqa: E402
from pipelines.lake.paths import Lake, RunFolder  # noqa: E402
from pipelines.lake.rank_records import RecordWriter  # noqa: E402
from pipelines.lake.store import Store  # noqa: E402
from pipelines.models.build import sketch_model  # noqa: E402
from pipelines.models.export import save_model  # noqa: E402
from pipelines.models.factory.own_code import check_code  # noqa: E402
from pipelines.parallel.agreement.agreement import Agreement  # noqa: E402
from pipelines.parallel.ring import PeerLostError, Ring  # noqa: E402
from pipelines.parallel.segments import SegmentGroup  # noqa: E402
from pipelines.plan.places import Place  # noqa: E402
from pipelines.plan.run_plan import RunPlan  # noqa: E402
from pipelines.tasks.table import task_of  # noqa: E402
from pipelines.train.assembly import Peers, assemble  # noqa: E402
from pipelines.train.device import training_device  # noqa: E402
from pipelines.train.evaluate import Evaluation, evaluate  # noqa: E402
from pipelines.train.loop import StepInput, TrainingLoop  # noqa: E402
from pipelines.train.progress import Progress  # noqa: E402
from pipelines.train.random_state import seed_everything, seed_of_rank  # noqa: E402
from pipelines.train.sample import become_sample  # noqa: E402


def run_worker(run: RunFolder, attempt: int) -> tuple[int, dict[str, Any]] | None:
    """Trains this rank's part of a run, from joining the ring to its end record.

    Returns:
        On rank 0, where a sample of what the trained model makes is wanted: the last step, and what is asked for.
    Raises:
        SparkringError: also written as the end record's error.
    """
    config = Config.from_json(run.store.read(run.config(attempt)).decode())
    plan = RunPlan.load(run, attempt)
    layout = config.platform.layout
    torch.set_num_threads(layout.threads_per_rank)
    ring = Ring.join(layout.num_segments, int(os.environ.get(rank_variables.SEGMENT_INDEX, "0")))
    place = ring.place
    group = None
    if place.num_segments > 1:
        group = SegmentGroup.join(place, run.live(attempt).meeting(place.replica_index), training_device(layout),
                                  meet_timeout_s=config.platform.launch.start_timeout_s,
                                  wait_timeout_s=config.platform.launch.stall_timeout_s)
    peers = Peers(ring, group)
    with RecordWriter(run.live(attempt).record(place.rank), place.rank, attempt) as records:
        records.write("start", replica_index=place.replica_index, segment_index=place.segment_index,
                      num_ranks=place.num_ranks, host=socket.gethostname(), pid=os.getpid(), start_step=0,
                      device=layout.device, threads=layout.threads_per_rank, versions={"torch": torch.__version__})
        try:
            last_step, order = _train(config, plan, peers, records)
            records.write("end", step=last_step, status="completed", error=None)
        except SparkringError as error:
            records.write("end", step=None, status="failed", error={
                "exit_code": error.exit_code, "place": error.place, "problem": error.problem, "remedy": error.remedy,
                "peer_lost": isinstance(error, PeerLostError)})
            raise
        peers.leave()  # behind the end: what is complete must be known as that, whatever happens while ranks leave
    return (last_step, order) if place.rank == 0 and order is not None else None


def _train(config: Config, plan: RunPlan, peers: Peers, records: RecordWriter) -> tuple[int, dict[str, Any] | None]:
    """The last step, and what the model is asked for then."""
    recipe, platform = config.recipe, config.platform
    lake = Lake.at(plan.root)
    dataset = lake.store.below(plan.dataset)
    manifest = Manifest.load(dataset)
    device = training_device(platform.layout)
    task = task_of(manifest.task)
    model = sketch_model(recipe.model, manifest.task.sizes, recipe.train.seed)
    check_code(recipe.model.users_factory, plan.model_code, model)
    specs = model.specs()
    agreement = assemble(config, plan, task, model, peers, device, records)
    del model  # of a split model, each rank keeps its own layers
    place = peers.ring.place
    share = Share(platform.layout.micro_batch_samples, place.replica_index, place.num_replicas)
    files = {name: dataset.read(name) for name in task.exported_files}
    progress = Progress(records, platform.launch.stall_timeout_s)

    def save(which: str, step: int, loss: float) -> None:
        state = progress.counted("saving", agreement.whole_state(), len(specs))
        if place.rank == 0:
            save_model(lake.store.below(lake.model(plan.run_id, which)), state, specs, recipe.model,
                       config=task.exported_config, files=files,
                       facts={"step": str(step), "validation_loss": repr(loss), "run_id": plan.run_id})
        else:
            for _ in state:  # sends this rank's parameters to rank 0
                pass

    order = task.sample_order(recipe)
    loop = TrainingLoop(recipe, plan.steps, agreement, place, records, save=save, device=device,
                        evaluate=evaluation(config, manifest, dataset, agreement, place, share, device, progress))
    seed_everything(seed_of_rank(recipe.train.seed, place.rank))  # where a model may draw: the same in every launch
    with ExitStack() as stack:
        if platform.layout.compile:
            stack.enter_context(progress.compilations())
        if not place.needs_samples:
            return loop.run(StepInput(step // plan.steps_per_epoch, [], 0.0) for step in range(plan.steps)), order
        feed = stack.enter_context(TrainingFeed(
            dataset, manifest, platform.reader, SampleOrder(recipe.data, recipe.train.seed, recipe.train.global_batch_samples),
            share))
        return loop.run(StepInput(step.epoch, [micro_batch.to(device) for micro_batch in step.micro_batches],
                                  step.data_wait_s) for step in feed), order


def evaluation(config: Config, manifest: Manifest, dataset: Store, agreement: Agreement, place: Place, share: Share,
               device: torch.device, progress: Progress) -> Callable[[], Evaluation]:
    """The loop's evaluation over this replica's validation rows."""
    validation = EvaluationFeed(dataset, manifest, config.platform.reader, share,
                                split="validation", rows=config.recipe.train.evaluation_rows)
    micro_batches = validation if place.needs_samples else ()

    def run() -> Evaluation:
        counted = progress.counted("evaluating", micro_batches, len(validation))
        return evaluate(agreement, (micro_batch.to(device) for micro_batch in counted), len(validation))

    return run


def main(arguments: list[str]) -> int:
    """Exit code of this rank; the error itself is in its records and, for people, in its log."""
    run, attempt = Lake.at(arguments[0]).run(arguments[1]), int(arguments[2])
    try:
        sampled = run_worker(run, attempt)
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    if sampled is not None:
        become_sample(run, attempt, *sampled)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
