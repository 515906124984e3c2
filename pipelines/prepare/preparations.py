"""The table of what can be prepared: each kind of recipe section ``prepare``, and what makes a dataset of it.

Runs on: driver.
Takes:   ``prepare.kind``.
Gives:   ``preparation_of``.

A further kind is a folder here, a line in ``PREPARATIONS``, and its section in ``config/datasets.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipelines.config.datasets import PrepareSection
from pipelines.lake.manifest import Manifest
from pipelines.prepare.build_order import BuildOrder
from pipelines.prepare.images.image_dataset import build_image_dataset
from pipelines.prepare.input_files import InputFile
from pipelines.prepare.inputs import no_mark
from pipelines.prepare.remote import Marks, no_marks
from pipelines.prepare.text.language_dataset import build_language_dataset
from pipelines.prepare.text.sources import local_mark, remote_marks


@dataclass(frozen=True)
class Preparation:
    """How one kind of data becomes a dataset."""

    build: Callable[[BuildOrder, Any], Manifest]  # into its staging folder, as its section says
    local_mark: Callable[[Any, InputFile], str]  # of the section and a file: what its identity depends on beside its content
    remote_marks: Callable[[Any], Marks]


def _no_local_mark(section: PrepareSection, file: InputFile) -> str:
    return no_mark(file)


def _no_remote_marks(section: PrepareSection) -> Marks:
    return no_marks


PREPARATIONS = {"text": Preparation(build_language_dataset, local_mark, remote_marks),
                "images": Preparation(build_image_dataset, _no_local_mark, _no_remote_marks)}


def preparation_of(section: PrepareSection) -> Preparation:
    return PREPARATIONS[section.kind]
