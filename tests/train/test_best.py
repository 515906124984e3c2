"""Which model is the best, and when training ends for want of a better one: by the metric that the recipe names."""

from types import SimpleNamespace

import pytest

from pipelines.lake.rank_records import RecordWriter
from pipelines.parallel.steps import StepOutcome
from pipelines.train.evaluate import Evaluation
from pipelines.train.loop import StepInput, TrainingLoop
from tests.support.example_data import example_config

OUTCOME = StepOutcome(loss=1.0, global_units=1, global_samples=1, units=1, samples=1, gradient_norm=1.0, averaging_s=0.0,
                      finite=True, first_bad_rank=None)
EVALUATIONS = [Evaluation(loss, 9, 90, 0.1, {"accuracy": accuracy})
               for loss, accuracy in ((3.0, 0.1), (2.0, 0.4), (2.5, 0.4), (2.2, 0.5), (1.9, 0.3))]


def saved(folder, **train):
    """(which, step) of every model that a loop of five evaluations saved; and the step at which it ended."""
    found, evaluations = [], iter(EVALUATIONS)
    agreement = SimpleNamespace(place=SimpleNamespace(rank=0), step=lambda *_: OUTCOME)
    config = example_config(train__steps=5, train__evaluate_every_steps=1, **train)
    with RecordWriter(folder / "records", 0, 0) as records:
        loop = TrainingLoop(config.recipe, 5, agreement, records, evaluate=lambda: next(evaluations),
                            save=lambda which, step, loss: found.append((which, step)))
        return found, loop.run(StepInput(0, [], 0.0) for _ in range(5))


@pytest.mark.parametrize(("best_by", "steps"), [("loss", [1, 2, 5]), ("accuracy", [1, 2, 4])])
def test_the_best_model_is_the_best_by_the_metric_that_the_recipe_names(tmp_path, best_by, steps):
    models, _ = saved(tmp_path, train__best_by=best_by)
    assert models == [*(("best", step) for step in steps), ("last", 5)]


def test_training_ends_early_by_the_same_metric(tmp_path):
    assert saved(tmp_path, train__early_stop_evaluations=2)[1] == 4  # losses of steps 3 and 4 are above that of step 2
    assert saved(tmp_path, train__early_stop_evaluations=2, train__best_by="accuracy")[1] == 5
