"""A job's submission: what is looked at before anything is on its way."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipelines.config import load_config
from pipelines.errors import ConfigError
from pipelines.flow.flow import JOBS, Flow
from pipelines.flow.stage import Job
from pipelines.flow.submission import submission
from pipelines.spark.submit_command import SPARE_BYTES, SPARE_SHARE, Manager, Wish
from tests.support.readme import block

ROOT = Path(__file__).parents[2]
YARN = Wish(Manager.yarn, package="dist/environment.tar.gz")
STANDALONE = Wish(Manager.standalone, "spark://host:7077")


class Listener:
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


@pytest.fixture
def arguments(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("a text, " * 100)
    recipe = yaml.safe_load((ROOT / "conf/recipes/gpt-demo.yaml").read_text())
    recipe["prepare"]["inputs"] = [{"path": str(tmp_path / "texts")}]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (tmp_path / "platform.yaml").write_text(f"spark: {{master: null}}\nstorage: {{root: {tmp_path}/lake}}\n")
    return ["--recipe", f"{tmp_path}/recipe.yaml", "--platform", f"{tmp_path}/platform.yaml"]


def submitted(arguments, wish=YARN, job="pipeline"):
    listener = Listener()
    return submission(wish, job, arguments, listener), listener.said


def refusal(arguments, wish=YARN, job="pipeline"):
    with pytest.raises(ConfigError) as caught:
        submitted(arguments, wish, job)
    return str(caught.value)


def test_a_job_is_submitted_with_the_spark_of_this_environment(arguments):
    command, _ = submitted(arguments)
    assert command[0] == str(Path(sys.executable).with_name("spark-submit"))
    assert str(ROOT / "jobs/pipeline.py") in command
    assert command[command.index("--name") + 1] == "gpt-demo"
    by_path, _ = submitted(arguments, job=str(ROOT / "jobs/pipeline.py"))
    assert by_path == command


@pytest.mark.processes
def test_readmes_submission_to_kubernetes_is_shown():
    (command,) = block("On a cluster", 2).commands
    words = [word.replace(".venv", sys.prefix) for word in shlex.split(command)]  # whose path may have spaces
    shown = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert "--master k8s://https://HOST:6443" in shown.stdout and "local:///app/jobs/pipeline.py" in shown.stdout


def test_memory_is_asked_for_as_the_plan_says_where_it_can_be_planned(arguments):
    _, said = submitted(arguments)
    assert said == ["what a rank needs is known once the dataset is there: 2 GiB assumed; layout.memory_per_rank_bytes says "
                    "another number"]
    command, said = submitted([*arguments, "--set", f"layout.memory_per_rank_bytes={2**30}"])
    assert said == [] and f"spark.executor.memoryOverhead={-(-int(SPARE_SHARE * 2**30 + SPARE_BYTES) // 2**20)}m" in command
    assert not any("memoryOverhead" in word for word in submitted(arguments, STANDALONE)[0])


@pytest.mark.processes
def test_memory_of_a_prepared_dataset_is_the_plans(arguments, spark):
    small = ["--set", "prepare.sequence_length=32", "--set", "prepare.tokenizer={kind: bytes}", "--set",
             "prepare.split.validation_fraction=0.5", "--set", "train.global_batch_samples=16"]
    for i in range(9):
        Path(arguments[1]).with_name("texts").joinpath(f"{i}.txt").write_text(f"text {i} " * 200)
    config = load_config(arguments[1], arguments[3], small[1::2])
    with Job(config, None, "", print, None) as job:
        flow = Flow(job, JOBS["prepare"])
        flow.plan()
        flow.run()
        planned = Flow(job, JOBS["train"])
        planned.plan()
    needed = planned.planned["train"].content.attempt.memory_bytes
    command, said = submitted([*arguments, *small])
    assert said == [] and f"spark.executor.memoryOverhead={-(-int(SPARE_SHARE * needed + SPARE_BYTES) // 2**20)}m" in command


def test_files_and_settings_are_checked_before_anything_is_on_its_way(arguments):
    assert "train.steps" in refusal([*arguments, "--set", "train.steps=0"])
    assert "layout.num_replicas: 3 does not divide" in refusal([*arguments, "--set", "layout.num_replicas=3"])
    assert "--platform: is missing behind the job's name" in refusal(arguments[:2])
    assert "job 'report': is none that runs on a cluster" in refusal(arguments, job="report")
    assert "/nowhere/train.py is not there" in refusal(arguments, job="/nowhere/train.py")


def test_a_secret_in_a_command_line_is_refused(arguments):
    said = refusal([*arguments, "--set", "spark.conf.spark.hadoop.fs.s3a.secret.key=hush"])
    assert "a secret would stand in a command line" in said and "hush" not in said
    said = refusal([*arguments, "--input", "https://host/x?token=hush"], job="predict")
    assert "--input" not in said and "https://host/x?token=*****: a secret would stand" in said
    own = Path(arguments[3])
    own.write_text(own.read_text().replace("master: null", "master: null, conf: {spark.redaction.regex: 'my[.]thing'}"))
    said = refusal([*arguments, "--set", "spark.conf.my.thing=hush"])
    assert "--set spark.conf.my.thing=*****: a secret would stand" in said and "hush" not in said
    assert "the job's arguments: argument --set: expected one argument" in refusal([*arguments, "--set"])
