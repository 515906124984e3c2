"""The errors a user can meet, each with its exit code.

Runs on: driver and ranks (no third-party import).
Takes:   place, value, rule, remedy.
Gives:   one-line messages such as
         ``layout.num_replicas: 3 does not divide data.num_lanes (16); use 1, 2, 4, 8 or 16``.
"""

from __future__ import annotations

EXIT_OK = 0


class SparkringError(Exception):
    """What a user did or met, said so that the next step is clear. Subclasses carry the exit code."""

    exit_code = 1

    def __init__(self, place: str, problem: str, remedy: str = "") -> None:
        """
        Args:
            place: dotted config path, file or rank that the error is about.
            problem: the value found and the rule that it breaks.
            remedy: what to change; left out where there is nothing to change.
        """
        self.place, self.problem, self.remedy = place, problem, remedy
        super().__init__(f"{place}: {problem}" + (f"; {remedy}" if remedy else ""))


class ConfigError(SparkringError):
    """A recipe, platform or command-line option is wrong (all faults are reported together)."""

    exit_code = 2

    def __init__(self, faults: list[SparkringError] | SparkringError) -> None:
        self.faults = faults if isinstance(faults, list) else [faults]
        first = self.faults[0]
        super().__init__(first.place, first.problem, first.remedy)

    def __str__(self) -> str:
        return "\n".join(Exception.__str__(fault) for fault in self.faults)


class DataError(SparkringError):
    """Input, dataset or manifest is missing, empty, corrupt or of another schema."""

    exit_code = 3


class AlreadyRunningError(SparkringError):
    """Another process holds this run or this dataset version."""

    exit_code = 4


class ResourceError(SparkringError):
    """Too few slots, too little memory, a port in use, Java missing."""

    exit_code = 5


class RankFailedError(SparkringError):
    """A rank ended with an error; the message holds the tail of its output."""

    exit_code = 6


class StalledError(SparkringError):
    """A bounded wait ran out."""

    exit_code = 7


class StorageError(SparkringError):
    """Writing failed: disk full, read-only, no permission."""

    exit_code = 8


class InterruptedRunError(SparkringError):
    """Ctrl-C or SIGTERM; everything that was started has been ended."""

    exit_code = 9


class CheckpointError(SparkringError):
    """A saved model does not fit, or is damaged."""

    exit_code = 10


ERRORS_BY_EXIT_CODE: dict[int, type[SparkringError]] = {
    kind.exit_code: kind
    for kind in (DataError, AlreadyRunningError, ResourceError, RankFailedError, StalledError,
                 StorageError, InterruptedRunError, CheckpointError)
}


def error_of(exit_code: int, place: str, problem: str, remedy: str) -> SparkringError:
    """An error that another process told of, as it was there; a rank's failure where its code is none of ours."""
    if exit_code == ConfigError.exit_code:
        return ConfigError(SparkringError(place, problem, remedy))
    return ERRORS_BY_EXIT_CODE.get(exit_code, RankFailedError)(place, problem, remedy)
