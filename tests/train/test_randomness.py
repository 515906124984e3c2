"""What a model draws as it trains: noticed before launch, absent from evaluations, repeatable where it is allowed."""


from pipelines.tables.paths import Lake
from pipelines.tables.records import RecordTail
from tests.example_data import example_config, publish_example, start_run_folder
from tests.rank_processes import run_workers

DRAWING = {"factory": "tests.own_models:recurrent_with_dropout"}


def trained(folder, num_replicas, num_segments, **overrides):
    """Losses of steps and of evaluations."""
    lake = Lake.at(folder)
    config = example_config(model=DRAWING, layout__num_replicas=num_replicas, layout__num_segments=num_segments,
                            layout__micro_batch_samples=2, train__sample_tokens=0, **overrides)
    run = start_run_folder(lake, config, publish_example(lake))
    run_workers(run.path, num_replicas * num_segments, num_segments=num_segments)
    records = RecordTail(run.record(0, 0)).new_records()
    return [[record["loss"] for record in records if record["kind"] == kind] for kind in ("step", "evaluation")]


def test_an_evaluation_draws_nothing_whole_and_split_and_training_goes_on_drawing(tmp_path):
    evaluations = []
    for num_segments in (1,):
        steps, losses = trained(tmp_path / str(num_segments), 1, num_segments, optimizer__learning_rate=1e-30,
                                train__evaluate_every_steps=1, train__steps=6, data__shuffle=False)
        assert losses == [losses[0]] * 6  # the weights do not change
        per_epoch = 5
        assert steps[0] != steps[per_epoch]  # the same samples again, another draw
        evaluations.append(losses[0])
    assert evaluations
