"""``sparkring models export``: a run's model as one GGUF file, once; what cannot be exported is refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gguf import GGUFReader

from pipelines.cli import main
from pipelines.flow.stage import Job
from pipelines.lake.paths import Lake
from pipelines.lake.runs import AttemptState, RunState
from pipelines.prepare.text.tokenizer import characters_tokenizer
from tests.models.test_standard import MODELS, TEXT, exported
from tests.support.example_data import example_config


class Exporting:
    """The command, in a lake with a run ``r`` that has a model ``best``."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.lake, self.platform, self.output = Lake.at(folder / "lake"), folder / "platform.yaml", folder / "model.gguf"
        self._capsys = capsys
        self.platform.write_text(json.dumps({"storage": {"root": str(self.lake.root)}}))
        run = self.lake.run("r")
        self.lake.store.put(run.config(0), example_config(storage__root=str(self.lake.root)).to_json())
        AttemptState(0, 1, 1, "cpu", status="completed").save(run)
        RunState("r", "example", "h", "example", "v1", "tokens", "fp32", 10, 1000).save(run)
        self.best = self.lake.root / self.lake.model("r", "best")
        exported(self.best, MODELS["qwen3"])

    def __call__(self, *options: str, code: int = 0, run_id: str = "r", form: str = "gguf") -> str:
        assert main(["models", "export", "--format", form, "--platform", str(self.platform), "--run-id", run_id,
                     "--output", str(self.output), *options]) == code
        return "".join(self._capsys.readouterr())


@pytest.fixture
def export(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Exporting:
    monkeypatch.setattr(Job, "start_spark", lambda _: pytest.fail("Spark is started"))
    return Exporting(tmp_path, capsys)


def test_the_file_is_written_once(export: Exporting):
    shown = export("--dry-run")
    assert f"{export.output} (would be written)" in shown and not export.output.exists()
    shown = export()
    assert "r best (qwen3, f32)" in shown and f"{export.output.stat().st_size:,}" in shown
    assert len(GGUFReader(export.output).tensors) == 24
    before = export.output.stat()
    assert "(complete, would be skipped)" in export("--dry-run")
    assert f"model export: file {export.output} is complete, nothing to do" in export()
    assert export.output.stat() == before


def test_another_thing_in_its_place_is_kept(export: Exporting):
    export()
    before = export.output.read_bytes()
    refused = f"--output: {export.output} exists, and is not this export; name another file, or remove it"
    assert refused in export("--type", "f16", code=2)
    exported(export.best, MODELS["qwen3"], step="4")
    assert "is not this export" in export(code=2) and export.output.read_bytes() == before
    export.output.unlink()
    export.output.mkdir()
    assert "is not this export" in export(code=2)


def test_what_is_not_there_or_not_known_is_named(export: Exporting):
    assert "--format: 'onnx' is not one that is written; known: gguf" in export(form="onnx", code=2)
    assert "--type: 'q4' is not one that is written; known: f32, f16" in export("--type", "q4", code=2)
    assert "run r has none in" in (shown := export("--model", "last", code=3)) and "use --model best" in shown
    assert "rr" in export(run_id="rr", code=3)
    export("--model", "worst", code=2)
    assert "--output: s3://b/m.gguf is a URL; name a file of this machine" in export("--output", "s3://b/m.gguf", code=2)
    assert not export.output.exists()


def test_a_model_that_llama_cpp_would_read_otherwise_is_refused(export: Exporting):
    exported(export.best, MODELS["qwen3"], characters_tokenizer(TEXT))
    shown = export(code=10)
    assert "tokenizer.json: is not byte-level" in shown and "train with prepare.tokenizer: {kind: bpe}" in shown
    assert [path.name for path in export.output.parent.iterdir() if path.suffix == ".gguf"] == []
