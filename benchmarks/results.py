"""One benchmark figure, and the table and file that figures end in.

Runs on: driver.
Takes:   figures of ours and of a peer, measured in one run.
Gives:   a printed table; ``benchmarks/results/latest.json``.
"""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

LATEST = Path(__file__).parent / "results" / "latest.json"
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
    for column in ("what", "ours", "peer", "unit", "ratio", "target", "ok"):
        table.add_column(column, justify="left" if column in ("what", "unit", "ok") else "right")
    for f in figures:
        bound = (">= " if f.higher_is_better else "<= ") + f"{f.target:g}"
        table.add_row(f.name, f"{f.ours:,.4g}", f"{f.peer:,.4g}", f.unit, f"{f.ratio:.3f}", bound, "yes" if f.ok else "NO")
    Console(width=140).print(table)


def keep(figures: list[Figure]) -> None:
    """Replaces the kept figures of the same name and leaves the others."""
    kept = json.loads(LATEST.read_text())["figures"] if LATEST.exists() else []
    names = {f.name for f in figures}
    versions = {name: version(name) for name in PACKAGES}
    fresh = [{**asdict(f), "ratio": round(f.ratio, 4), "ok": f.ok, "date": time.strftime("%Y-%m-%d"), "versions": versions,
              "machine": machine()} for f in figures]
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(json.dumps({"figures": [f for f in kept if f["name"] not in names] + fresh}, indent=2) + "\n")
