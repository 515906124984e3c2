"""The commands: ``sparkring prepare|train|evaluate|report|predict|pipeline|models|doctor|clean|submit``; jobs: for
spark-submit.

Runs on: driver.
Takes:   command-line arguments.
Gives:   an exit code (see ``errors.py``); results on standard output, progress and errors on standard error.
"""

from __future__ import annotations

import json
import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cluster_commands import FOLLOWED_BY_A_JOB, clean, doctor, submit
from pipelines.config import load_config, load_platform, load_predict
from pipelines.console import TrainingProgress, print_dataset, print_evaluations, print_facts, print_plan, print_summary, say
from pipelines.errors import EXIT_OK, ConfigError, InterruptedRunError, SparkringError
from pipelines.flow.evaluate_stage import EvaluationWish, evaluation_config
from pipelines.flow.flow import JOBS, Flow
from pipelines.flow.predict_stage import predict_request, prediction_lines, run_config
from pipelines.flow.report_stage import own_run, report_lines, report_run
from pipelines.flow.stage import Job
from pipelines.interrupts import Interrupt, arm_interrupts, ignore_interrupts, release_interrupts
from pipelines.options import DryRunOption, PlatformOption, RecipeOption, SetOption, repeating
from pipelines.printable import printable, printable_json

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
                  help="Train PyTorch models on a Spark cluster with Horovod, from raw data to metrics tables.")
models = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Trained models of the lake.")
app.add_typer(models, name="models")
app.command()(doctor)
app.command()(clean)
app.command(context_settings=FOLLOWED_BY_A_JOB)(submit)


class WhichModel(StrEnum):
    """Of a run's models."""

    best = "best"
    last = "last"


RunIdOption = Annotated[str | None, typer.Option("--run-id", metavar="ID", help="Name of the run; by default it "
                                                 "follows from recipe and data.")]
ReportRecipeOption = Annotated[Path | None, typer.Option("--recipe", metavar="FILE", help="Report this recipe's own run.")]
ReportRunIdOption = Annotated[str | None, typer.Option("--run-id", metavar="ID", help="Which run; by default the "
                                                       "recipe's own, or else the newest.")]
ModelRunOption = Annotated[str, typer.Option("--run-id", metavar="ID", help="Whose model.")]
ModelOption = Annotated[WhichModel, typer.Option("--model", help="Which of the run's models: the best by train.best_by, or the "
                                                 "last.")]
InputOption = Annotated[str, typer.Option("--input", metavar="PATH", help="File, folder, glob or URL of Parquet, JSON lines or "
                                          "text, or of images; or the name of a table.")]
OutputOption = Annotated[str, typer.Option("--output", metavar="FOLDER", help="Where the predictions go: Parquet.")]
FormatOption = Annotated[str, typer.Option("--format", metavar="FORMAT", help="gguf: one file, for llama.cpp and what is built "
                                           "on it.")]
FileOption = Annotated[str, typer.Option("--output", metavar="FILE", help="A new file.")]
TypeOption = Annotated[str, typer.Option("--type", metavar="TYPE", help="Of the matrices in it: f32, or f16, half as large.")]
GenerateOption = Annotated[int | None, typer.Option("--generate", metavar="N", help="Go on from each text by up to N tokens.")]
ExportOption = Annotated[tuple[str, str] | None, typer.Option(
    "--export", metavar="petastorm FOLDER", help="Also write the dataset to FOLDER, for petastorm's make_reader.")]
EvaluatedRecipeOption = Annotated[Path | None, typer.Option("--recipe", metavar="FILE", help="Evaluate this recipe's own run.")]
EvaluatedRunOption = Annotated[str | None, typer.Option("--run-id", metavar="ID", help="Whose model; by default the recipe's "
                                                        "own run's, or else the newest run's.")]
SplitOption = Annotated[str, typer.Option("--split", metavar="NAME", help="validation, test or train.")]
DatasetOption = Annotated[Path | None, typer.Option("--dataset", metavar="RECIPE", help="A recipe whose prepared data it is "
                                                    "evaluated on; by default the run's own.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


@app.command()
def prepare(recipe: RecipeOption, platform: PlatformOption, set_: SetOption = None, run_id: RunIdOption = None,
            dry_run: DryRunOption = False, export: ExportOption = None) -> None:
    """Raw data to an immutable dataset of Parquet shards."""
    _execute("prepare", recipe, platform, set_, run_id, dry_run, export)


@app.command()
def train(recipe: RecipeOption, platform: PlatformOption, set_: SetOption = None, run_id: RunIdOption = None,
          dry_run: DryRunOption = False) -> None:
    """A prepared dataset to a trained model and metrics tables."""
    _execute("train", recipe, platform, set_, run_id, dry_run)


@app.command()
def pipeline(recipe: RecipeOption, platform: PlatformOption, set_: SetOption = None, run_id: RunIdOption = None,
             dry_run: DryRunOption = False) -> None:
    """All stages in order: prepare, train, report. What is complete is skipped."""
    _execute("pipeline", recipe, platform, set_, run_id, dry_run)


@app.command()
def evaluate(platform: PlatformOption, recipe: EvaluatedRecipeOption = None, run_id: EvaluatedRunOption = None,
             model: ModelOption = WhichModel.best, split: SplitOption = "validation", dataset: DatasetOption = None,
             set_: SetOption = None, dry_run: DryRunOption = False) -> None:
    """A trained model on a split of its dataset, or of another: metrics, each class, the worst mistakes."""
    if recipe is not None:
        run_id = run_id or own_run(load_config(recipe, platform, set_))
    config, run_id = evaluation_config(load_platform(platform, set_), run_id)
    wish = EvaluationWish(model.value, split, None if dataset is None else load_config(dataset, platform, set_).recipe)
    command = repeating("evaluate", None, platform, set_, run_id) + f" --model {wish.model} --split {shlex.quote(split)}"
    command += "" if dataset is None else f" --dataset {shlex.quote(str(dataset.absolute()))}"
    with TrainingProgress("evaluate") as progress, Job(config, run_id, command, say, progress, wish) as job:
        flow = Flow(job, JOBS["evaluate"])
        flow.plan()
        if dry_run:
            print_facts("plan", flow.shown())
            flow.check()
            return
        flow.check()
        results = flow.run()
    print_evaluations(results["evaluate"])


@app.command()
def report(platform: PlatformOption, recipe: ReportRecipeOption = None, set_: SetOption = None,
           run_id: ReportRunIdOption = None, dry_run: DryRunOption = False, json_: JsonOption = False) -> None:
    """A run's report.html and summary, from its tables; Spark is not needed."""
    if recipe is None:
        storage = load_platform(platform, set_).storage
    else:
        config = load_config(recipe, platform, set_)
        storage, run_id = config.platform.storage, run_id or own_run(config)
    if dry_run:
        print_facts("plan", report_lines(storage, run_id))
        return
    summary, _ = report_run(storage, run_id)
    if json_:
        print(printable_json(json.dumps(summary, indent=2, ensure_ascii=False)))
    else:
        print_summary(summary)


@app.command()
def predict(platform: PlatformOption, run_id: ModelRunOption, input_: InputOption, output: OutputOption,
            model: ModelOption = WhichModel.best, generate: GenerateOption = None, set_: SetOption = None,
            dry_run: DryRunOption = False) -> None:
    """A trained model over rows: the class of each image; how likely each text is, or with --generate how it goes on."""
    asked = [*(set_ or []), *([] if generate is None else [f"predict.generate={generate}"])]
    on, settings = load_predict(platform, asked)
    with TrainingProgress() as progress, Job(run_config(on, run_id), run_id, shlex.join(sys.argv), say, progress,
                                             predict_request(model.value, input_, output, settings)) as job:
        flow = Flow(job, JOBS["predict"])
        flow.plan()
        flow.check()
        if dry_run:
            print_facts("plan", flow.shown())
        else:
            print_facts("predictions", prediction_lines(flow.run()["predict"], output))


@models.command("export")
def export_model(platform: PlatformOption, run_id: ModelRunOption, format_: FormatOption, output: FileOption,
                 model: ModelOption = WhichModel.best, type_: TypeOption = "f32", set_: SetOption = None,
                 dry_run: DryRunOption = False) -> None:
    """A language model as one file of another format."""
    on = load_platform(platform, set_)
    with TrainingProgress() as progress, Job(run_config(on, run_id), run_id, shlex.join(sys.argv), say, progress,
                                             (format_, model.value, output, type_)) as job:
        flow = Flow(job, JOBS["model export"])
        flow.plan()
        flow.check()
        if dry_run:
            print_facts("plan", flow.shown())
        else:
            print_facts("model export", flow.run()["model export"])


def _execute(name: str, recipe: Path, platform: Path, overrides: list[str] | None, run_id: str | None, dry_run: bool,
             export: tuple[str, str] | None = None) -> None:
    """The job of this name, or its plan."""
    config = load_config(recipe, platform, overrides)
    with TrainingProgress() as progress, Job(config, run_id, repeating(name, recipe, platform, overrides, run_id), say,
                                             progress, export) as job:
        flow = Flow(job, JOBS[name if export is None else "export"])
        flow.plan(begin=not dry_run)
        if dry_run:
            print_plan(config, flow.shown())
            flow.check()
            return
        flow.check()
        results = flow.run()
    if "report" in results:
        print_summary(results["report"])
    else:
        print_dataset(job, results["prepare"])


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code; every expected error is one clear message."""
    arm_interrupts()
    try:
        release_interrupts()
        app(args=sys.argv[1:] if arguments is None else arguments, prog_name="sparkring")
        return EXIT_OK
    except SystemExit as end:  # typer's own: --help, a wrong option (2, as ours), a code that a command chose
        return end.code if isinstance(end.code, int) else EXIT_OK
    except SparkringError as error:
        return _told(error)
    except Interrupt as interrupt:
        return _told(interrupt.as_error())


def _told(error: SparkringError) -> int:
    """Its exit code, once the error has been printed."""
    if isinstance(error, InterruptedRunError):
        ignore_interrupts()
    print("\n".join(f"error: {line}" if i == 0 or isinstance(error, ConfigError) else line
                    for i, line in enumerate(printable(str(error)).split("\n"))), file=sys.stderr, flush=True)
    return error.exit_code
