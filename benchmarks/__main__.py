"""``python -m benchmarks [NAME]...``: measures ours and the peers in one run, prints the ratios, keeps them.

Runs on: driver.
Takes:   names of benchmarks; none means all.
Gives:   a table, ``benchmarks/results/latest.json`` and ``history.jsonl``; exit code 1 when a target is missed.
"""

from __future__ import annotations

import importlib
import sys

from benchmarks.results import keep, show

BENCHMARKS = ("prepare", "images", "launch", "feed", "feed_images", "training", "split", "slow_link", "whole", "quality", "mnist",
              "predict", "generation", "resnet", "qwen3", "loading", "tables", "hub", "lake")


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; known: {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    figures = []
    for name in names or BENCHMARKS:
        print(f"== {name}")
        measured = importlib.import_module(f"benchmarks.{name}").measure()
        keep(measured)
        figures += measured
    show(figures)
    return 0 if all(figure.ok for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
