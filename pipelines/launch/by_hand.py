"""A training by hand: a published dataset's ranks on this machine, without Spark and beside the lake.

Runs on: driver, without a JVM, as ``python -m pipelines.launch.by_hand DATASET_FOLDER RECIPE PLATFORM [SECTION.KEY=VALUE]...``
Takes:   a dataset's folder, the two files of settings, overrides as ``--set`` takes them.
Gives:   logs, records and models in a new folder below the system's temporary one; nothing in the lake changes. The exit
         code is that of the rank that failed first.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pipelines.config.load import load_config
from pipelines.errors import EXIT_OK, ConfigError, SparkringError
from pipelines.interrupts import interrupts_as_errors
from pipelines.lake.manifest import Manifest
from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore
from pipelines.launch.local import prepare_run, run_attempt
from pipelines.launch.rank_process import WORKER, rank_arguments

USAGE = "usage: python -m pipelines.launch.by_hand DATASET_FOLDER RECIPE PLATFORM [SECTION.KEY=VALUE]..."


def train_by_hand(dataset: Path, recipe: str, platform: str, overrides: list[str]) -> None:
    """Returns when the model is trained.

    Raises:
        SparkringError: the settings or the dataset are not right, or as of ``run_attempt``.
    """
    config = load_config(recipe, platform, overrides)
    if config.platform.layout.automatic:
        raise ConfigError(SparkringError("layout", "auto is chosen from the slots of Spark and their memory, and there are none",
                                         "give numbers"))
    manifest = Manifest.load(FolderStore(dataset.absolute()))
    lake = Lake.at(tempfile.mkdtemp(prefix="sparkring-by-hand-"))
    FolderStore(lake.root).link(lake.dataset(manifest.name, manifest.version), dataset)
    run = prepare_run(lake, config, manifest)
    print(f"logs and records: {run.live(0).path}\nmodels: {lake.store.place(lake.models(run.run_id))}\n"
          f"one rank in a debugger: {sys.executable} -m pdb -m {WORKER} {' '.join(rank_arguments(run, 0))}", flush=True)
    run_attempt(run)


def main(arguments: list[str]) -> int:
    if len(arguments) < 3:
        print(USAGE, file=sys.stderr)
        return ConfigError.exit_code
    dataset, recipe, platform, *overrides = arguments
    try:
        with interrupts_as_errors():
            train_by_hand(Path(dataset), recipe, platform, overrides)
    except SparkringError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
