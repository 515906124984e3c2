"""One benchmark figure, and the table and file that figures end in.

Runs on: driver.
Takes:   figures of ours and of a peer, measured in one run.
Gives:   a printed table; ``benchmarks/results/latest.json`` and a line per figure in ``history.jsonl``, with the commit.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
LATEST, HISTORY = RESULTS / "latest.json", RESULTS / "history.jsonl"
HISTORY_KEYS = ("date", "commit", "name", "ours", "peer", "unit", "ratio", "target", "mfu")
PACKAGES = ("pyspark", "horovod", "torch", "petastorm", "pyarrow", "numpy", "tokenizers", "tiktoken")


@dataclass(frozen=True)
class Figure:
    """Ours against a peer's. ``higher_is_better`` says which way the target bounds the ratio ours / peer."""

    name: str
    ours: float
    peer: float
    unit: str
    target: float
    command: str
    higher_is_better: bool = True
    note: str = ""
    mfu: float | None = None  # ours: model FLOPs over torch's own matmul peak on this machine, measured in the same run

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def ok(self) -> bool:
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"processor": model, "cores": str(os.cpu_count()), "memory_gib": f"{memory / 2**30:.0f}",
            "system": platform.system(), "python": platform.python_version()}


def show(figures: list[Figure]) -> None:
    table = Table(title="ours against others, both measured in one run")
    for column in ("what", "ours", "peer", "unit", "ratio", "target", "ok", "MFU"):
        table.add_column(column, justify="left" if column in ("what", "unit", "ok") else "right")
    for f in figures:
        bound = (">= " if f.higher_is_better else "<= ") + f"{f.target:g}"
        table.add_row(f.name, f"{f.ours:,.4g}", f"{f.peer:,.4g}", f.unit, f"{f.ratio:.3f}", bound, "yes" if f.ok else "NO",
                      "" if f.mfu is None else f"{f.mfu:.2f}")
    Console(width=140).print(table)


def commit() -> str:
    """Of the checkout that was measured; with a plus where files differ from it."""
    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(RESULTS), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":!{RESULTS}")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def keep(figures: list[Figure]) -> None:
    """Replaces the kept figures of the same name and leaves the others; what was measured before stays in the history."""
    kept = json.loads(LATEST.read_text())["figures"] if LATEST.exists() else []
    names = {f.name for f in figures}
    versions = {name: version(name) for name in PACKAGES}
    measured = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "machine": machine()}
    fresh = [{**asdict(f), "ratio": round(f.ratio, 4), "ok": f.ok, **measured, "versions": versions} for f in figures]
    RESULTS.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps({"figures": [f for f in kept if f["name"] not in names] + fresh}, indent=2) + "\n")
    with open(HISTORY, "a", encoding="utf-8") as history:
        for figure in fresh:
            history.write(json.dumps({key: figure[key] for key in HISTORY_KEYS} |
                                     {"processor": figure["machine"]["processor"]}) + "\n")
