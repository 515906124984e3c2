"""What an exported model shows: ``python -m pipelines.train.exhibitor < ORDER``.

Runs on: rank 0's host, as a process of its own that ``exhibition.py`` starts and bounds.
Takes:   JSON on standard input: ``folder`` of the model, ``dataset``, the folder of what it was trained on, ``factory`` (of a
         user's, else null), ``request`` (``Task.exhibit_request``).
Gives:   ``{"shown": [...]}`` (``lake/exhibits.py``) as the last line of standard output; an error's one line and its exit code
         otherwise.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pipelines.train.lifeline import die_with_parent

die_with_parent()  # before the slow imports, as a rank

from pipelines.errors import EXIT_OK, SparkringError  # noqa: E402
from pipelines.feed.rows_by_id import some_rows  # noqa: E402
from pipelines.lake.exhibits import as_json  # noqa: E402
from pipelines.lake.store import FolderStore  # noqa: E402
from pipelines.models.export import load_model  # noqa: E402
from pipelines.tasks.table import task_of  # noqa: E402


def main() -> int:
    order = json.loads(sys.stdin.read())
    try:
        exported = load_model(order["folder"], factory=order["factory"])
        rows = some_rows(FolderStore(Path(order["dataset"])), "validation", order["request"].get("validation_rows", 0))
        shown = task_of(exported.task).exhibits(exported.model, order["request"], exported.files, rows)
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"shown": [as_json(exhibit) for exhibit in shown]}))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
