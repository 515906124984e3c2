"""Real handwritten digits as folders of PNG files, for ``make demo-images``.

Runs on: the machine that runs make.
Takes:   scikit-learn's digits (1,797 images of 8 x 8, UCI): of the installed package, or else out of its wheel, which pip fetches
         and nothing is installed of.
Gives:   ``demo-data/digits/<digit>/<number>.png``; where they are there, nothing is done.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from PIL import Image

WHEEL = "scikit-learn==1.7.2"
INSIDE = "datasets/data/digits.csv.gz"
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
FOLDER = Path(__file__).resolve().parents[1] / "demo-data/digits"
SIDE, BRIGHTEST = 8, 16


def digits_file() -> bytes:
    """The compressed table of all pixels and labels."""
    installed = importlib.util.find_spec("sklearn")
    if installed is not None and installed.submodule_search_locations:
        return Path(installed.submodule_search_locations[0], INSIDE).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder,
                        WHEEL], check=True)
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            return wheel.read(f"sklearn/{INSIDE}")


def write_digits(folder: Path) -> int:
    """How many images were written."""
    content = digits_file()
    if hashlib.sha256(content).hexdigest() != SHA256:
        sys.exit(f"error: {INSIDE} of {WHEEL} is not the file that it was")
    rows = [list(map(int, map(float, line.split(",")))) for line in gzip.decompress(content).decode().split()]
    for number, (*pixels, digit) in enumerate(rows):
        path = folder / str(digit) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.frombytes("L", (SIDE, SIDE), bytes(min(255, pixel * 256 // BRIGHTEST) for pixel in pixels)).save(path)
    return len(rows)


if __name__ == "__main__":
    if not (FOLDER / ".complete").exists():
        print(f"{write_digits(FOLDER):,} images of digits -> {FOLDER}", file=sys.stderr)
        (FOLDER / ".complete").touch()
