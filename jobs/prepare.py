"""Raw data to an immutable dataset of Parquet shards.

Runs on: driver, with spark-submit or python, from any folder.
Takes:   --recipe FILE --platform FILE [--set key=value]... [--dry-run] [--export petastorm FOLDER]
Gives:   an exit code of ``pipelines/errors.py``.
"""

import sys

from pipelines.entry import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
