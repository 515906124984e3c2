"""What a session writes to this machine's disk beside results; none of it is left.

Runs on: driver.
Takes:   the system's temporary folder, the folders of ``spark.local.dir``.
Gives:   ``Scratch``: folders of our own, a log, and their removal, also after a JVM that was killed.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Scratch:
    """What a session writes to this machine's disk beside results. All of it goes with the session, however that ends."""

    folder: Path  # of the JVM's temporary files, and of Spark's where the platform names no folder
    log: Path  # what the JVM and Spark's Python workers print
    elsewhere: list[Path] = field(default_factory=list)  # our folders below those of the platform's spark.local.dir

    @staticmethod
    def new() -> Scratch:
        folder = Path(tempfile.mkdtemp(prefix="sparkring-"))
        log = folder.with_name(f"{folder.name}.log")
        log.touch(mode=0o600)
        return Scratch(folder, log)

    def local_dirs(self, given: str | None) -> str:
        """The value of ``spark.local.dir``: a folder of our own in each that was given."""
        if given is None:
            return str(self.folder)
        self.elsewhere[:] = [Path(each.strip()) / self.folder.name for each in given.split(",")]
        return ",".join(map(str, self.elsewhere))

    def remove(self, error: BaseException | None) -> None:
        """All but the log, where the error on its way to the user names that."""
        for folder in (self.folder, *self.elsewhere):
            shutil.rmtree(folder, ignore_errors=True)  # a Python worker may be writing its last
        if str(self.log) not in "\n".join([str(error), *getattr(error, "__notes__", [])]):
            self.log.unlink(missing_ok=True)
