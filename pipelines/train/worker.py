"""One rank: the only place where a rank's parts are made and put together.

Runs on: ranks, as ``python -m pipelines.train.worker ROOT RUN_ID ATTEMPT`` (the launcher's child, or by hand: without
         ``HOROVOD_*`` in the environment it trains alone).
Takes:   ``config.json`` and ``plan.json`` of the attempt, the dataset they name.
Gives:   this rank's record file; on rank 0 the models, and after the end a sample of text (``sample.py``); an exit code of
         ``errors.py``.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from pipelines.train import rank_variables
from pipelines.train.lifeline import die_with_parent

die_with_parent()  # before the slow imports: a launch that is stopped early must leave nothing behind

import torch  # noqa: E402

from pipelines.config.load import Config  # noqa: E402
from pipelines.errors import EXIT_OK, SparkringError  # noqa: E402
from pipelines.feed.batches import EvaluationFeed, TrainingFeed  # noqa: E402
from pipelines.feed.batches import MicroBatch as Samples  # noqa: E402
from pipelines.lake.manifest import TOKENIZER_NAME, Manifest  # noqa: E402
from pipelines.lake.paths import Lake, RunFolder  # noqa: E402
from pipelines.lake.rank_records import RecordWriter  # noqa: E402
from pipelines.models.build import sketch_model  # noqa: E402
from pipelines.models.export import save_model  # noqa: E402
from pipelines.models.factory.own_code import check_code  # noqa: E402
from pipelines.models.facts import sizes_of  # noqa: E402
from pipelines.parallel.agreement.agreement import Agreement  # noqa: E402
from pipelines.parallel.ring import PeerLostError, Ring  # noqa: E402
from pipelines.parallel.segments import SegmentGroup  # noqa: E402
from pipelines.parallel.steps import MicroBatch  # noqa: E402
from pipelines.plan.places import Place  # noqa: E402
from pipelines.plan.run_plan import RunPlan  # noqa: E402
from pipelines.train.assembly import Peers, assemble  # noqa: E402
from pipelines.train.device import training_device  # noqa: E402
from pipelines.train.evaluate import Evaluation, evaluate  # noqa: E402
from pipelines.train.loop import StepInput, TrainingLoop  # noqa: E402
from pipelines.train.progress import Progress  # noqa: E402
from pipelines.train.random_state import seed_everything, seed_of_rank  # noqa: E402
from pipelines.train.sample import become_sample  # noqa: E402


def run_worker(run: RunFolder, attempt: int) -> int | None:
    """Trains this rank's part of a run, from joining the ring to its end record.

    Returns:
        On rank 0 the last step, where a sample of the trained model's text is wanted.
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
            last_step = _train(config, plan, peers, records)
            records.write("end", step=last_step, status="completed", error=None)
        except SparkringError as error:
            records.write("end", step=None, status="failed", error={
                "exit_code": error.exit_code, "place": error.place, "problem": error.problem, "remedy": error.remedy,
                "peer_lost": isinstance(error, PeerLostError)})
            raise
        peers.leave()  # behind the end: what is complete must be known as that, whatever happens while ranks leave
    return last_step if place.rank == 0 and config.recipe.train.sample_tokens else None


def _train(config: Config, plan: RunPlan, peers: Peers, records: RecordWriter) -> int:
    recipe, platform = config.recipe, config.platform
    lake = Lake.at(plan.root)
    store = lake.store
    manifest, dataset = Manifest.load(store, plan.dataset), store.local_path(plan.dataset)
    device = training_device(platform.layout)
    model = sketch_model(recipe.model, sizes_of(manifest), recipe.train.seed)
    check_code(recipe.model.users_factory, plan.model_code, model)
    specs = model.specs()
    agreement = assemble(config, plan, model, peers, device, records)
    del model  # of a split model, each rank keeps its own layers
    place = peers.ring.place
    tokenizer_json = store.read(f"{plan.dataset}/{TOKENIZER_NAME}")
    progress = Progress(records, platform.launch.stall_timeout_s)

    def save(which: str, step: int, loss: float) -> None:
        state = progress.counted("saving", agreement.whole_state(), len(specs))
        if place.rank == 0:
            save_model(store, lake.model(plan.run_id, which), state, specs, recipe.model,
                       vocabulary_size=manifest.vocabulary_size, sequence_length=manifest.sequence_length,
                       end_of_text_id=manifest.end_of_text_id, tokenizer_json=tokenizer_json,
                       facts={"step": str(step), "validation_loss": repr(loss), "run_id": plan.run_id})
        else:
            for _ in state:  # sends this rank's parameters to rank 0
                pass

    loop = TrainingLoop(recipe, plan.steps, agreement, place, records, save=save, device=device,
                        evaluate=evaluation(config, manifest, dataset, agreement, place, device, progress))
    seed_everything(seed_of_rank(recipe.train.seed, place.rank))  # where a model may draw: the same in every launch
    with ExitStack() as stack:
        if platform.layout.compile:
            stack.enter_context(progress.compilations())
        if not place.needs_samples:
            return loop.run(StepInput(step // plan.steps_per_epoch, [], 0.0) for step in range(plan.steps))
        feed = stack.enter_context(TrainingFeed(
            dataset, manifest, recipe.data, platform.reader, seed=recipe.train.seed,
            global_batch_samples=recipe.train.global_batch_samples,
            micro_batch_samples=platform.layout.micro_batch_samples, replica_index=place.replica_index,
            num_replicas=place.num_replicas))
        return loop.run(StepInput(step.epoch, [on_device(micro_batch, device) for micro_batch in step.micro_batches],
                                  step.data_wait_s) for step in feed)


def evaluation(config: Config, manifest: Manifest, dataset: Path, agreement: Agreement, place: Place, device: torch.device,
               progress: Progress) -> Callable[[], Evaluation]:
    """The loop's evaluation over this replica's validation rows."""
    size = config.platform.layout.micro_batch_samples
    validation = EvaluationFeed(dataset, manifest, config.platform.reader, split="validation", micro_batch_samples=size,
                                replica_index=place.replica_index, num_replicas=place.num_replicas,
                                rows=config.recipe.train.evaluation_rows)
    micro_batches = validation if place.needs_samples else ()

    def run() -> Evaluation:
        counted = progress.counted("evaluating", micro_batches, len(validation))
        return evaluate(agreement, (on_device(micro_batch, device) for micro_batch in counted), len(validation))

    return run


def on_device(micro_batch: Samples, device: torch.device) -> MicroBatch:
    return (micro_batch.tokens_BT.to(device), micro_batch.lengths_B.to(device), micro_batch.weights_B.to(device))


def main(arguments: list[str]) -> int:
    """Exit code of this rank; the error itself is in its records and, for people, in its log."""
    run, attempt = Lake.at(arguments[0]).run(arguments[1]), int(arguments[2])
    try:
        sampled_step = run_worker(run, attempt)
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    if sampled_step is not None:
        become_sample(run, attempt, sampled_step)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
