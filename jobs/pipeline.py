"""Raw data to a trained model, metrics tables and a report.

Runs on: driver, with spark-submit or python, from any folder.
Takes:   --recipe FILE --platform FILE [--set key=value]... [--run-id ID] [--dry-run]
Gives:   an exit code of ``pipelines/errors.py``.
"""

import sys

from pipelines.entry import main

if __name__ == "__main__":
    sys.exit(main(["pipeline", *sys.argv[1:]]))
