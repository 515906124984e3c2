"""README's tree is the tree: a file comes, goes or moves together with its line there."""

import subprocess
from pathlib import Path

from tests.support.readme import block

ROOT = Path(__file__).resolve().parents[2]


def test_the_tree_has_a_line_for_every_file_and_for_nothing_else():
    folders: list[str] = []
    named, unsaid = [], []
    for line in block("The tree", 0).text.splitlines():
        name, *said = line.split(maxsplit=1)
        depth = (len(line) - len(line.lstrip())) // 2
        del folders[depth:]
        if name.endswith("/"):
            folders.append(name)
        else:
            named.append("".join(folders) + name)
            unsaid += [] if said else [named[-1]]
    tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "pipelines", "jobs", "conf", "setup"], capture_output=True,
                             text=True, check=True, timeout=30).stdout.splitlines()
    assert sorted(named) == sorted(path for path in tracked if not path.endswith("__init__.py") and (ROOT / path).exists())
    assert unsaid == []
