"""What data and an exported model show: ``python -m pipelines.train.exhibitor < ORDER``.

Runs on: rank 0's host, as a process of its own that ``exhibition.py`` starts and bounds.
Takes:   JSON on standard input: ``lake``, its address; the key of the ``dataset`` that the model was trained on, ``augment``
         and ``seed`` of the recipe, ``request`` (``Task.exhibit_request``); the key of the exported ``model`` (null: only the
         data is shown), ``factory`` (of a user's, else null).
Gives:   a line of standard output for each exhibit (``lake/exhibits.py``) as soon as it is made, ``{"data": {...}}`` or
         ``{"shown": {...}}``; behind them, where it fails, an error's one line and its exit code.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from pipelines.train.lifeline import die_with_parent

die_with_parent()  # before the slow imports, as a rank

from pipelines.config.recipe import Augment  # noqa: E402
from pipelines.errors import EXIT_OK, SparkringError  # noqa: E402
from pipelines.feed.augment import augmented  # noqa: E402
from pipelines.feed.rows_by_id import first_rows, some_rows  # noqa: E402
from pipelines.lake.exhibits import Exhibit, as_json  # noqa: E402
from pipelines.lake.manifest import Manifest  # noqa: E402
from pipelines.lake.stores import store_at  # noqa: E402
from pipelines.models.exported_model import load_model  # noqa: E402
from pipelines.tasks.table import task_of  # noqa: E402
from pipelines.tasks.task import AsTrained  # noqa: E402

Tell = Callable[[str, Exhibit], None]


def main() -> int:
    order = json.loads(sys.stdin.read())
    tell = teller()
    try:
        store = store_at(order["lake"])
        dataset = store.below(order["dataset"])
        manifest = Manifest.load(dataset)
        rows = first_rows(dataset, manifest, "train", order["request"].get("train_rows", 0))
        if rows is not None:
            for exhibit in task_of(manifest.task).data_exhibits(rows, _as_trained(order, manifest)):
                tell("data", exhibit)
        if order["model"] is not None:
            exported = load_model(store.below(order["model"]), factory=order["factory"])
            rows = some_rows(dataset, manifest, "validation", order["request"].get("validation_rows", 0))
            for exhibit in task_of(exported.task).exhibits(exported.model, order["request"], exported.files, rows):
                tell("shown", exhibit)
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


def teller() -> Tell:
    """Writes to standard output, to which nothing else does from now on, whatever a user's model prints."""
    told = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)

    def tell(of: str, exhibit: Exhibit) -> None:
        print(json.dumps({of: as_json(exhibit)}), file=told, flush=True)

    return tell


def _as_trained(order: dict[str, Any], manifest: Manifest) -> AsTrained | None:
    if order["augment"] is None:
        return None
    images, settings = manifest.task.image_column, Augment(**order["augment"])
    return lambda rows, epoch: augmented(rows, images, settings, order["seed"], epoch)


if __name__ == "__main__":
    sys.exit(main())
