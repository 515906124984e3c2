"""The layers, and the rules that every library file follows. A module is read, not imported."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RANK_WORLD = {"feed", "tasks", "models", "parallel", "train"}
BOTH_WORLDS = {"predict"}  # loads torch inside Spark's Python workers


@dataclass(frozen=True)
class Row:
    """A package or module of ``pipelines``: the layer it is on, and what it may import (``errors`` it always may)."""

    layer: int
    ours: frozenset[str]
    third_party: frozenset[str]


MOST_IMPORTS, MOST_PARAMETERS = 12, 8
# files of other projects that a comment gives as its source, or as an example of what must not be
OF_OTHERS = {"encoder.py", "tiktoken_ext/openai_public.py", "horovod/runner/http/http_server.py", "train_gpt2.py",
             "jobs/profile.py", "modeling_gpt2.py", "modeling_rope_utils.py", "configuration_gpt2.py", "configuration_llama.py",
             "configuration_qwen3.py"}


def row(layer: int, ours: str = "", third_party: str = "") -> Row:
    return Row(layer, frozenset(ours.split()), frozenset(third_party.split()))


TABLE = {
    "errors": row(0),
    "interrupts": row(0),
    "printable": row(0),
    "config": row(0, "", "pydantic yaml"),
    "lake": row(1, "config", "pyarrow fsspec"),
    "hub": row(1),
    "feed": row(2, "config lake", "pyarrow petastorm numpy torch PIL"),
    "spark": row(2, "config lake interrupts", "pyspark py4j psutil"),
    "plan": row(3, "config lake feed.lanes feed.read_ahead", "numpy"),
    "models": row(4, "config lake feed.draws plan", "torch numpy safetensors pydantic tokenizers gguf"),
    "tasks": row(4, "config lake feed.batches", "torch tokenizers"),
    "prepare": row(4, "config lake", "pyspark py4j pyarrow numpy pandas tokenizers tiktoken PIL petastorm"),
    "track": row(4, "config lake plan printable", "pyspark pyarrow numpy jinja2 markupsafe"),
    "parallel": row(5, "config hub feed.batches models.layered models.grouped_norm plan tasks",
                    "torch horovod.torch horovod.common.exceptions"),
    "train": row(6, "config hub lake feed tasks models parallel plan", "torch numpy psutil"),
    "predict": row(7, "config lake models prepare tasks", "pydantic pyspark py4j pyarrow pandas tokenizers torch"),
    "launch": row(7, "config hub interrupts lake spark plan models.facts train.rank_variables",
                  "pyspark py4j psutil"),
    "flow": row(8, "config lake spark models.gguf_file prepare predict launch track plan", "pyspark"),
    "console": row(9, "config lake.metric_facts printable flow plan", "rich"),
    "options": row(9, "config", "typer"),
    "cluster_commands": row(10, "config spark flow console options", "typer"),
    "cli": row(11, "config interrupts printable flow console options cluster_commands", "typer"),
    "entry": row(12, "interrupts cli"),
}
JOBS = row(13, "entry")

LIBRARY = sorted((ROOT / "pipelines").rglob("*.py"))
JOB_FILES = sorted((ROOT / "jobs").glob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> Iterator[str]:
    """Every imported module's full name, wherever in the file it is imported."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: an import is relative"
            # `from package import module` names a module, `from module import thing` does not
            for named in (f"{node.module}.{alias.name}" for alias in node.names):
                yield named if module_file(named) else str(node.module)


def module_file(module: str) -> Path | None:
    """The file of one of our modules."""
    place = ROOT.joinpath(*module.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.exists()), None)


def package_of(path: Path) -> str:
    """The row's name: the folder or module right under ``pipelines``."""
    return path.relative_to(ROOT / "pipelines").with_suffix("").parts[0]


def below(path: Path) -> str:
    """The file's path below ``pipelines``."""
    return path.relative_to(ROOT / "pipelines").as_posix()


def is_within(module: str, allowed: frozenset[str]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in allowed)


def refused_imports(path: Path, own: str, row: Row) -> list[str]:
    refused = []
    for module in imports_of(path):
        first = module.split(".")[0]
        if first == "pipelines":
            below = module.removeprefix("pipelines").removeprefix(".")
            fine = is_within(below, row.ours | {own, "errors"})
        else:
            fine = first in sys.stdlib_module_names or is_within(module, row.third_party)
        if not fine:
            refused.append(module)
    return refused


def reached_from(start: str) -> dict[str, str]:
    """Every module that importing ``start`` may import, ours and others', each with the module that imports it."""
    reached, waiting = {start: ""}, [start]
    while waiting:
        module = waiting.pop()
        file = module_file(module)
        if file is None:
            continue
        parents = [module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)]
        for found in [*parents, *imports_of(file)]:
            if found not in reached:
                reached[found] = module
                waiting.append(found)
    return reached


def reached_libraries(path: Path, libraries: set[str]) -> list[str]:
    """``library (imported by module)`` for each of the libraries that importing the file may import."""
    start = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return [f"{module} (imported by {by})" for module, by in reached_from(start).items()
            if module.split(".")[0] in libraries]


def faults_of(files: list[Path], find: Callable[[Path], list[Any]]) -> dict[str, list[Any]]:
    """What ``find`` finds wrong, by file; empty when all is well."""
    return {str(path.relative_to(ROOT)): faults for path in files if (faults := find(path))}


def test_the_table_names_every_package_and_nothing_else():
    assert {package_of(path) for path in LIBRARY} - {"__init__"} == set(TABLE)


def test_rows_import_only_lower_rows():
    upward = [(name, imported) for name, of in TABLE.items() for imported in of.ours
              if TABLE[imported.split(".")[0]].layer >= of.layer]
    assert upward == []


def test_a_module_imports_only_what_its_row_allows():
    in_rows = [path for path in LIBRARY if package_of(path) != "__init__"]
    assert faults_of(in_rows, lambda path: refused_imports(path, package_of(path), TABLE[package_of(path)])) == {}


def test_a_row_allows_nothing_that_nobody_uses():
    def unused(name: str) -> list[str]:
        used = {module.removeprefix("pipelines.") for path in LIBRARY if package_of(path) == name for module in imports_of(path)}
        return sorted(entry for entry in TABLE[name].ours | TABLE[name].third_party
                      if not any(is_within(module, frozenset({entry})) for module in used))

    assert {name: entries for name in TABLE if (entries := unused(name))} == {}


def test_a_module_imports_at_most_12_of_ours():
    """More, and a concept is missing: name it."""
    def ours(path: Path) -> set[str]:
        return {module for module in imports_of(path) if module.split(".")[0] == "pipelines"}

    assert {below(path) for path in LIBRARY if len(ours(path)) > MOST_IMPORTS} == set()


def test_a_function_takes_at_most_8_parameters():
    """``self`` and ``cls`` are none; the fields of a dataclass are a value, not parameters."""
    def number(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> int:
        of = node.args
        named = [each.arg for each in (*of.posonlyargs, *of.args, *of.kwonlyargs)]
        return len([name for name in named if name not in ("self", "cls")])

    assert {below(path) for path in LIBRARY for node in ast.walk(tree_of(path))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            and number(node) > MOST_PARAMETERS} == set()


def several(names: Iterator[str]) -> set[str]:
    return {name for name, number in Counter(names).items() if number > 1}


def of_one_interface(path: Path) -> bool:
    """Every architecture below models/ has these modules, with the same functions (``models/architectures.py``)."""
    return path.parent.parent.name == "models" and path.stem in ("settings", "facts", "model", "standard", "config_json")


def test_no_two_modules_have_one_name():
    assert several(path.stem for path in LIBRARY
                   if path.name != "__init__.py" and not of_one_interface(path)) == set()


def test_no_two_classes_have_one_name():
    assert several(node.name for path in LIBRARY for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)
                   if not node.name.startswith("_")) == set()


def test_no_two_public_functions_of_modules_have_one_name():
    """A command of the command line is called as its stage is, and whatever is run by itself has a ``main``."""
    assert several(node.name for path in LIBRARY if below(path) != "cli.py" and not of_one_interface(path)
                   for node in tree_of(path).body
                   if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name != "main") == set()


def commented(path: Path) -> Iterator[str]:
    """Docstrings and comments of a file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from (line[line.index("#") :] for line in text.splitlines() if "#" in line)
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    yield from (token.string for token in tokens if token.type == tokenize.COMMENT)


def test_a_file_that_a_docstring_or_comment_names_exists():
    """From the top, from pipelines/, beside the file that names it or in each of the folders beside it."""
    def missing(path: Path) -> list[str]:
        places = (ROOT, ROOT / "pipelines", path.parent, path.parent.parent)
        named = [name for text in commented(path) for name in re.findall(r"[\w./*-]*\w\.(?:py|yaml|sh|md|toml|j2)\b", text)]
        return [name for name in named
                if name not in OF_OTHERS and not any((place / name).exists() for place in places)
                and not list(path.parent.glob(f"*/{name}"))]

    tracked = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
    files = [ROOT / name for name in tracked if Path(name).suffix in (".py", ".yaml", ".sh", ".toml")
             or name in ("Dockerfile", ".dockerignore", "Makefile")]
    assert faults_of([file for file in files if file.exists()], missing) == {}


def test_a_job_imports_only_the_flow_and_what_starts_it():
    assert JOB_FILES
    assert faults_of(JOB_FILES, lambda path: refused_imports(path, "jobs", JOBS)) == {}


def test_the_spark_world_never_reaches_torch():
    by_name = [path for path in LIBRARY if of_one_interface(path) and path.stem != "model"]  # which no import shows
    spark_world = [path for path in LIBRARY if package_of(path) not in RANK_WORLD | BOTH_WORLDS] + by_name
    assert faults_of(spark_world, lambda path: reached_libraries(path, {"torch"})) == {}


def test_the_settings_of_a_model_which_config_loads_by_name_import_nothing_of_ours_above_config():
    settings = [path for path in LIBRARY if of_one_interface(path) and path.stem == "settings"]
    assert {path.parent for path in settings} == {path.parent for path in LIBRARY if of_one_interface(path)}
    assert faults_of(settings, lambda path: [name for name in refused_imports(path, "config", TABLE["config"])
                                             if not re.fullmatch(r"pipelines\.models\.\w+\.settings", name)]) == {}


def test_a_rank_never_reaches_spark():
    rank_world = [path for path in LIBRARY if package_of(path) in RANK_WORLD]
    assert faults_of(rank_world, lambda path: reached_libraries(path, {"pyspark", "py4j"})) == {}


def test_a_job_carries_no_librarys_name():
    """``python jobs/profile.py`` puts jobs/ first on the path, where it would hide the library from every import."""
    installed = {entry.name.split(".")[0] for folder in sys.path if Path(folder).name == "site-packages"
                 for entry in Path(folder).iterdir()}
    assert {path.stem for path in JOB_FILES} & (sys.stdlib_module_names | installed) == set()


def test_a_module_says_what_it_is_where_it_runs_what_it_takes_and_gives():
    def missing(path: Path) -> list[str]:
        lines = (ast.get_docstring(tree_of(path)) or "").splitlines()
        words = [word for word in ("Runs on:", "Takes:", "Gives:") if not any(line.startswith(word) for line in lines)]
        return words if lines else ["docstring"]

    assert faults_of([path for path in LIBRARY + JOB_FILES if path.name != "__init__.py"], missing) == {}


def test_a_file_is_shorter_than_300_lines():
    def too_long(path: Path) -> list[int]:
        return [length for length in [len(path.read_text(encoding="utf-8").splitlines())] if length >= 300]

    assert faults_of(LIBRARY + JOB_FILES, too_long) == {}


def test_a_function_is_shorter_than_60_lines():
    def too_long(path: Path) -> list[str]:
        return [node.name for node in ast.walk(tree_of(path))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and (node.end_lineno or 0) - node.lineno + 1 >= 60]

    assert faults_of(LIBRARY + JOB_FILES, too_long) == {}


def test_only_the_lake_knows_how_to_publish():
    """Temporary names, the disk's sync and the rename that makes a thing visible are ``lake/store``'s alone."""
    def knowing(path: Path) -> list[str]:
        text = path.read_text(encoding="utf-8")
        words = ("os.replace", "os.rename", "symlink_to", "fsync", "fdatasync", "TEMPORARY_PREFIX", ".tmp-", "write_file")
        return [word for word in words if word in text]

    assert faults_of([path for path in LIBRARY if package_of(path) != "lake"], knowing) == {}


def test_the_library_has_no_assert():
    def asserts(path: Path) -> list[int]:
        return [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, ast.Assert)]

    assert faults_of(LIBRARY + JOB_FILES, asserts) == {}


def test_an_except_names_what_it_expects():
    def broad(path: Path) -> list[int]:
        handlers = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.ExceptHandler)]
        return [node.lineno for node in handlers
                for kind in (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type])
                if kind is None or getattr(kind, "id", "") in ("Exception", "BaseException")]

    assert faults_of(LIBRARY + JOB_FILES, broad) == {}


def test_nothing_is_left_to_do_later():
    def postponed(path: Path) -> list[str]:
        text = path.read_text(encoding="utf-8")
        return [word for word in ("TODO", "FIXME", "XXX", "NotImplementedError") if word in text]

    assert faults_of(LIBRARY + JOB_FILES, postponed) == {}


def test_a_name_says_what_is_inside():
    vague = {"utils", "util", "helpers", "helper", "common", "base", "manager"}
    assert faults_of(LIBRARY, lambda path: sorted(vague & set(path.relative_to(ROOT).with_suffix("").parts))) == {}


def test_no_module_that_unpickles_is_imported():
    unpicklers = {"pickle", "cloudpickle", "dill", "shelve", "marshal"}
    assert faults_of(LIBRARY + JOB_FILES,
                     lambda path: sorted(unpicklers & {name.split(".")[0] for name in imports_of(path)})) == {}


def test_the_image_is_made_of_files_that_exist_and_reach_docker():
    copied = [source for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
              if line.startswith("COPY") and "--from" not in line
              for source in line.split()[1:-1] if not source.startswith("--")]
    sent = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert {source.split("/")[0] for source in copied} == set(sent)


def test_an_exception_from_the_style_names_a_file():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert [pattern for pattern in settings["tool"]["ruff"]["lint"]["per-file-ignores"] if not list(ROOT.glob(pattern))] == []


def test_the_top_level_holds_what_the_design_names():
    known = {"pyproject.toml", "requirements.lock", "Makefile", "Dockerfile", "README.md", "LOG.md",
             "pipelines", "jobs", "conf", "tests", "benchmarks", "setup"}
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True).stdout
    present = {line.split("/")[0] for line in tracked.splitlines() if not line.startswith(".")}
    assert present <= known
