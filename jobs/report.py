"""A run's report.html and summary.

Runs on: driver, with spark-submit or python, from any folder.
Takes:   --platform FILE [--run-id ID | --recipe FILE] [--set key=value]... [--dry-run] [--json]
Gives:   an exit code of ``pipelines/errors.py``.
"""

import sys

from pipelines.entry import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))
