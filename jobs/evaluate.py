"""A trained model on a split of its dataset, or of another recipe's: metrics, classes, mistakes; tables and report.

Runs on: driver, with spark-submit or python, from any folder.
Takes:   --platform FILE [--recipe FILE] [--run-id ID] [--model best|last] [--split NAME] [--dataset RECIPE]
         [--set key=value]... [--dry-run]
Gives:   an exit code of ``pipelines/errors.py``.
"""

import sys

from pipelines.entry import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
