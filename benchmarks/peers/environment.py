"""The peers' own environment, made when first needed.

Runs on: driver.
Takes:   ``requirements.txt`` beside this file.
Gives:   the path of its Python.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".venvs" / "peers"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"


def peers_python() -> Path:
    python, done = FOLDER / "bin" / "python", FOLDER / "made-from.txt"
    if not done.exists() or done.read_text() != REQUIREMENTS.read_text():
        print("making the peers' environment (some minutes, once)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(REQUIREMENTS)], check=True)
        done.write_text(REQUIREMENTS.read_text())
    return python
