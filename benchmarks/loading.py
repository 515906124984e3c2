"""Loading: what a rank of a split model needs of memory to take its layers from a folder of 2 GB.

Runs on: driver; ``python -m benchmarks.loading FOLDER SEGMENT`` in each process.
Takes:   nothing.
Gives:   ``measure``: of a rank of 1x4, its peak above that of a rank that takes no layer, over the bytes of its layers.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.results import Figure, show
from pipelines.lake.store import FolderStore
from pipelines.models.build import fill_model, sketch_model
from pipelines.models.export import save_model
from pipelines.models.initial_values import generator_of
from pipelines.models.pretrained.settings import PretrainedModel
from pipelines.models.qwen3.settings import Qwen3Model
from pipelines.prepare.text.language_rows import language_facts

MODEL = Qwen3Model(num_layers=28, width=1024, num_heads=16, num_key_value_heads=8, head_width=128, feed_width=3072)
NUM_SEGMENTS = 4
TASK = language_facts(vocabulary_size=32_768, sequence_length=512, end_of_text_id=0, tokenizer_sha256="")
NOTHING = "nothing"
COMMAND = "python -m benchmarks loading"


def segment_layers(names: list[str], segment: int) -> list[str]:
    """Equally many blocks; the embedding before the first, the head behind the last."""
    size = -(-len(names) // NUM_SEGMENTS)
    return names[segment * size : (segment + 1) * size]


def load(folder: str, segment: str) -> dict[str, float]:
    """What one rank does before it trains."""
    torch.set_num_threads(1)
    settings = PretrainedModel.model_validate({"from": folder})
    model = sketch_model(settings, TASK.sizes, seed=0)
    layers = [] if segment == NOTHING else segment_layers(list(model.layers), int(segment))
    fill_model(model, settings, 0, layers)
    held = {id(value): value.numel() * value.element_size() for _, value in model.named_tensors() if not value.is_meta}
    return {"peak_bytes": _peak_bytes(), "own_bytes": sum(held.values())}


def _peak_bytes() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def write_folder(folder: Path) -> None:
    """A whole model, drawn one tensor at a time."""
    specs = sketch_model(MODEL, TASK.sizes, seed=0).specs()
    drawn = ((name, torch.randn(shape, generator=generator_of(1, name)) * 0.02) for name, (shape, _) in specs.items())
    save_model(FolderStore(folder), drawn, specs, MODEL, task=TASK, files={}, notes={"step": "0", "validation_loss": "nan"})
    (folder / "sparkring.json").unlink()  # as another's


def _ranks(folder: Path, segments: list[str]) -> list[dict[str, Any]]:
    running = [subprocess.Popen([sys.executable, "-m", "benchmarks.loading", str(folder), segment], stdout=subprocess.PIPE,
                                text=True) for segment in segments]
    return [json.loads(process.communicate(timeout=300)[0]) for process in running]


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        write_folder(folder)
        size = (folder / "model.safetensors").stat().st_size
        empty = _ranks(folder, [NOTHING])[0]["peak_bytes"]
        ranks = _ranks(folder, [str(segment) for segment in range(NUM_SEGMENTS)])
    worst = max(ranks, key=lambda rank: (rank["peak_bytes"] - empty) / rank["own_bytes"])
    return [Figure("loading, a rank's peak above an empty rank's vs its own layers", (worst["peak_bytes"] - empty) / 1e6,
                   worst["own_bytes"] / 1e6, "MB", 1.1, COMMAND, higher_is_better=False,
                   note=f"{size / 1e9:.2f} GB of float32 into 1x{NUM_SEGMENTS}")]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(load(sys.argv[1], sys.argv[2])))
    else:
        show(measure())
