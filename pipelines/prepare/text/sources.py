"""All inputs as one DataFrame ``documents``, read again by way of copies where Spark's own reader would not do.

Runs on: driver.
Takes:   the inputs, and a staging folder that every machine sees.
Gives:   ``documents_of``; ``readable``, ``reread``: the inputs with copies of the files at URLs that need it;
         ``refuse_misread``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from pipelines.config.recipe import Prepare
from pipelines.errors import DataError
from pipelines.prepare.local_copies import Inputs, compressed, with_copies
from pipelines.prepare.local_files import local_documents
from pipelines.prepare.remote import RemoteSummary, refuse_changed, remote_documents, with_lost_lines


def documents_of(spark: SparkSession, prepare: Prepare, inputs: Inputs, staging: Path) -> DataFrame:
    """
    Raises:
        DataError: there is nothing to read; an input has another schema than the recipe says.
    """
    sources = remote_documents(spark, prepare, inputs.remote)
    if inputs.pieces:
        sources.append(local_documents(spark, inputs.pieces, prepare, staging))
    if not sources:
        raise DataError("prepare.inputs", "the files hold no record", "give files that do")
    documents = sources[0]
    for more in sources[1:]:
        documents = documents.union(more)
    return documents


def readable(session: Callable[[], SparkSession], prepare: Prepare, inputs: Inputs, staging: Path) -> Inputs:
    """The inputs, with copies of what Spark's text source cannot read at all: long compressed files at URLs."""
    if not inputs.remote.long_files:
        return inputs
    files = compressed(session(), inputs.remote.long_files)
    return with_copies(session(), inputs, files, prepare, staging) if files else inputs


def reread(session: Callable[[], SparkSession], prepare: Prepare, inputs: Inputs, read_bytes: Counter[str], staging: Path,
           report: Callable[[str], None]) -> Inputs | None:
    """The inputs, with copies of the files that lost lines, to be read again; None where none did.

    Args:
        read_bytes: that Spark's text source gave, by ``remote.read_key``.
    """
    files = with_lost_lines(prepare, inputs.remote, read_bytes)
    if not files:
        return None
    report(f"prepare: {', '.join(file.url for file in files)}: holds a record that is too long for Spark's reader; copied and "
           "read again")
    return with_copies(session(), inputs, files, prepare, staging)


def refuse_misread(session: Callable[[], SparkSession], prepare: Prepare, listed: RemoteSummary, inputs: Inputs,
                   read_bytes: Counter[str]) -> None:
    """
    Args:
        listed: the URL inputs before any of them was copied.
    Raises:
        DataError: they have changed since; lines are missing although every file that lost some is read as a copy.
    """
    refuse_changed(session(), prepare, listed)
    for file in with_lost_lines(prepare, inputs.remote, read_bytes):
        raise DataError(file.place, f"{file.url}: Spark read fewer bytes than it holds",
                        "prepare again; where that does not help, give the file as a path")
