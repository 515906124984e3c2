"""All inputs as one DataFrame ``documents``, read again by way of copies where Spark's own reader would not do.

Runs on: driver.
Takes:   the inputs, and where the version is made.
Gives:   ``documents_of``; ``readable``, ``reread``: the inputs with copies of the files at URLs that need it;
         ``refuse_misread``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pyspark.sql import DataFrame, SparkSession

from pipelines.config.datasets import TextPrepare
from pipelines.errors import DataError
from pipelines.lake.staging import Staging
from pipelines.prepare.compressed import ENDINGS, HEAD_BYTES, codec_of
from pipelines.prepare.input_files import InputFile, as_listed, opened_input
from pipelines.prepare.remote import Listing, Marks, RemoteSummary, refuse_changed
from pipelines.prepare.text.input_records import BYTE_ORDER_MARK
from pipelines.prepare.text.lines import has_lines
from pipelines.prepare.text.local_copies import Inputs, compressed, with_copies
from pipelines.prepare.text.local_documents import cut_into_pieces, local_documents
from pipelines.prepare.text.remote_documents import long_files_of, remote_documents, with_lost_lines


def remote_marks(prepare: TextPrepare) -> Marks:
    """Not empty for files at URLs that the first release read in another way: a compressed document was text to it."""
    def marks(input_index: int, names: list[str]) -> list[str]:
        source = prepare.inputs[input_index]
        one_document = source.format == "text" and not has_lines(source)
        return ["decompressed"] if one_document and any(name.endswith(ENDINGS) for name in names) else []

    return marks


def local_mark(prepare: TextPrepare, file: InputFile) -> str:
    """Not empty for files that the first release read in another way: archives and byte-order marks were text to it.

    So a dataset that it made of them is not taken for what they give now, and all others stay valid.
    """
    source = prepare.inputs[file.input_index]
    if source.format == "parquet" or file.at_url:  # that release read no URL so
        return ""
    with as_listed(file), opened_input(file) as stream:
        head = stream.read(HEAD_BYTES)
    marked = source.format == "text" and head.startswith(BYTE_ORDER_MARK)
    return " decompressed" if codec_of(head) else " without mark" if marked else ""


def documents_of(spark: SparkSession, prepare: TextPrepare, inputs: Inputs, staging: Staging) -> DataFrame:
    """
    Raises:
        DataError: there is nothing to read; an input has another schema than the recipe says.
    """
    sources = remote_documents(spark, prepare, inputs.long_files, inputs.copied)
    if inputs.pieces:
        sources.append(local_documents(spark, inputs.pieces, prepare, staging))
    if not sources:
        raise DataError("prepare.inputs", "the files hold no record", "give files that do")
    documents = sources[0]
    for more in sources[1:]:
        documents = documents.union(more)
    return documents


def readable(session: Callable[[], SparkSession], prepare: TextPrepare, listing: Listing, staging: Staging) -> Inputs:
    """What was listed, with copies of what Spark's text source cannot read at all: long compressed files at URLs."""
    inputs = Inputs(cut_into_pieces(list(listing.files), prepare.inputs), listing.remote.bytes)
    if not listing.remote.files:
        return inputs
    inputs = inputs._replace(long_files=long_files_of(session(), prepare.inputs))
    files = compressed(session(), inputs.long_files)
    return with_copies(session(), inputs, files, prepare, staging) if files else inputs


def reread(session: Callable[[], SparkSession], prepare: TextPrepare, inputs: Inputs, read_bytes: Counter[str], staging: Staging,
           report: Callable[[str], None]) -> Inputs | None:
    """The inputs, with copies of the files that lost lines, to be read again; None where none did.

    Args:
        read_bytes: that Spark's text source gave, by ``remote_documents.read_key``.
    """
    files = with_lost_lines(prepare, inputs.long_files, read_bytes)
    if not files:
        return None
    report(f"prepare: {', '.join(file.url for file in files)}: holds a record that is too long for Spark's reader; copied and "
           "read again")
    return with_copies(session(), inputs, files, prepare, staging)


def refuse_misread(session: Callable[[], SparkSession], prepare: TextPrepare, listed: RemoteSummary, inputs: Inputs,
                   read_bytes: Counter[str]) -> None:
    """
    Args:
        listed: the URL inputs before any of them was copied.
    Raises:
        DataError: they have changed since; lines are missing although every file that lost some is read as a copy.
    """
    if listed.files:
        refuse_changed(session(), prepare.inputs, listed, remote_marks(prepare))
    for file in with_lost_lines(prepare, inputs.long_files, read_bytes):
        raise DataError(file.place, f"{file.url}: Spark read fewer bytes than it holds",
                        "prepare again; where that does not help, give the file as a path")
