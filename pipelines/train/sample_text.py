"""One text from an exported model: ``python -m pipelines.train.sample_text < ORDER``.

Runs on: rank 0's host, as a process of its own that ``sample.py`` starts and bounds.
Takes:   JSON on standard input: ``model`` (folder), ``factory`` (of a user's model, else null), ``prompt``, ``num_tokens``.
Gives:   ``{"text": ...}`` as the last line of standard output; an error's one line and its exit code otherwise.
"""

from __future__ import annotations

import json
import sys

from pipelines.train.lifeline import die_with_parent

die_with_parent()  # before the slow imports, as a rank

from pipelines.errors import EXIT_OK, SparkringError  # noqa: E402
from pipelines.models.export import load_model  # noqa: E402


def main() -> int:
    order = json.loads(sys.stdin.read())
    try:
        model = load_model(order["model"], factory=order["factory"])
        text = model.generate(order["prompt"], order["num_tokens"])
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps({"text": text}))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
