"""A trained model over rows of any number, answered in Spark.

Runs on: driver, with spark-submit or python, from any folder.
Takes:   --run-id ID --platform FILE --input PATH --output PATH [--model best|last] [--generate N]
         [--set key=value]... [--dry-run]
Gives:   an exit code of ``pipelines/errors.py``.
"""

import sys

from pipelines.entry import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
