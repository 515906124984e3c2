"""Where everything lies in the lake.

Runs on: driver, executors and ranks.
Takes:   ``storage``, as one address.
Gives:   the key of each published thing (``store.py``), and the folder of a run; creates nothing.

    <root>/datasets/<name>/<version>/manifest.json, tokenizer.json, train-*.parquet, validation-*.parquet
    <root>/runs/<run_id>/state.json, attempt-000/{config.json, plan.json, state.json, rank-00000.jsonl, rank-00000.log}
    <root>/models/<run_id>/{best,last}/{model.safetensors, sparkring.json, tokenizer.json}
    <root>/tables/{runs,steps,rank_steps,evaluations,datasets,rejected}/
    <root>/runs/<run_id>/report.html
    <root>/runs/<run_id>/evaluations/<name>/order.json, result.json, attempt-000/{config.json, plan.json, findings.json, ...}
    <root>/profiles/<hash>.json

In a lake at a URL shards keep the names under which they were written, records are there once their attempt has ended, and logs
stay with the driver: in a folder of its machine (``Lake.root``), as all that is live.
    <root>/claims/{runs/<run_id>/{execution,load}, datasets/<name>/<version>}/: who is at it (``claims.py``)
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import ConfigError, SparkringError
from pipelines.lake.live_folder import LiveFolder
from pipelines.lake.store import FolderStore, Store
from pipelines.lake.stores import kept_here, store_at

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def is_run_id(name: str) -> bool:
    """Whether a run may be called so."""
    return _RUN_ID.fullmatch(name) is not None


@dataclass(frozen=True)
class Lake:
    """Keys below one storage root."""

    store: Store
    address: str  # ``Lake.at(address)`` is this lake, on every machine
    root: Path  # a folder of this machine, of what is not published: the lake itself, or one in its stead

    @staticmethod
    def at(address: str | Path) -> Lake:
        """The lake at a path, which is made absolute so that executors and ranks see the same; at a URL; or, with its
        options, at an address (``Storage.address``)."""
        store = store_at(address)
        if isinstance(store, FolderStore):
            return Lake(store, str(store.root), store.root)
        name = hashlib.sha256(store.place().encode()).hexdigest()[:16]
        return Lake(store, str(address), kept_here(address) / f"sparkring-{os.getuid()}" / name)

    def datasets(self, name: str) -> str:
        """All versions of one dataset."""
        return f"datasets/{name}"

    def dataset(self, name: str, version: str) -> str:
        return f"{self.datasets(name)}/{version}"

    def claim(self, key: str) -> str:
        """Apart from what is claimed, whose readers it must not disturb."""
        return f"claims/{key}"

    def version_claim(self, name: str, version: str) -> str:
        """Held by the process that prepares the version (``claims.py``)."""
        return self.claim(self.dataset(name, version))

    def run(self, run_id: str) -> RunFolder:
        """Raises ConfigError for an id that could lead out of the lake or break a file's or table's name."""
        if not is_run_id(run_id):
            raise ConfigError(SparkringError(f"--run-id {run_id!r}", "is not a name that files and tables can have",
                                             "use up to 100 letters, digits, '.', '_' and '-', beginning with a letter or digit"))
        return RunFolder(self, run_id)

    def runs(self) -> str:
        return "runs"

    def models(self, run_id: str) -> str:
        """A run's models: ``best`` and ``last``."""
        return f"models/{run_id}"

    def model(self, run_id: str, which: str) -> str:
        return f"{self.models(run_id)}/{which}"

    def profiles(self) -> str:
        """Measured costs of models' layers."""
        return "profiles"

    def table(self, name: str) -> str:
        return f"tables/{name}"


@dataclass(frozen=True)
class RunFolder:
    """What lies below ``runs/<run_id>``, border 2: keys of what is published, and each attempt's live folder.

    An evaluation of the run's model has the same below it, but for ``state`` and ``report``.
    """

    lake: Lake
    run_id: str
    evaluation: str | None = None  # its name; None: the run itself

    @property
    def store(self) -> Store:
        return self.lake.store

    @property
    def key(self) -> str:
        run = f"{self.lake.runs()}/{self.run_id}"
        return run if self.evaluation is None else f"{run}/evaluations/{self.evaluation}"

    def evaluated(self, name: str) -> RunFolder:
        """The folder of one evaluation."""
        return RunFolder(self.lake, self.run_id, name)

    @property
    def evaluations(self) -> str:
        """All evaluations of the run."""
        return f"{self.lake.runs()}/{self.run_id}/evaluations"

    @property
    def order(self) -> str:
        """What an evaluation is of: what its ranks read, beside config and plan."""
        return f"{self.key}/order.json"

    @property
    def result(self) -> str:
        """What an evaluation found (``findings.py``); there once it is complete."""
        return f"{self.key}/result.json"

    def findings(self, attempt: int) -> str:
        """The same as rank 0 writes it, before all ranks have ended well."""
        return f"{self.attempt(attempt)}/findings.json"

    @property
    def state(self) -> str:
        """What holds for the run in every attempt (``runs.py``)."""
        return f"{self.key}/state.json"

    @property
    def report(self) -> str:
        return f"{self.key}/report.html"

    @property
    def claim(self) -> str:
        """Held by the driver that executes the run (``claims.py``)."""
        return self.lake.claim(f"{self.key}/execution")

    @property
    def load_claim(self) -> str:
        """Held by the process that loads the run's metrics into the tables."""
        return self.lake.claim(f"{self.key}/load")

    def attempt(self, attempt: int) -> str:
        return f"{self.key}/attempt-{attempt:03d}"

    def attempt_state(self, attempt: int) -> str:
        """How the attempt stands (``runs.py``)."""
        return f"{self.attempt(attempt)}/state.json"

    def config(self, attempt: int) -> str:
        """The resolved recipe and platform."""
        return f"{self.attempt(attempt)}/config.json"

    def plan(self, attempt: int) -> str:
        """What the driver computed before the launch (``plan/run_plan.py``)."""
        return f"{self.attempt(attempt)}/plan.json"

    def live(self, attempt: int) -> LiveFolder:
        path = self.lake.root / self.attempt(attempt)
        if isinstance(self.store, FolderStore):
            return LiveFolder(path)
        return LiveFolder(path, self.store.below(self.attempt(attempt)), self.lake.root.parent)
