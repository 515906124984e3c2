"""The stage prepare: from the recipe's inputs to one immutable dataset version.

Runs on: driver.
Takes:   the recipe and the lake.
Gives:   ``prepare``: the manifest of the version that inputs and recipe make, built only where it is not there;
         ``plan_prepare``: the same question without Spark.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pyspark.sql import SparkSession

from pipelines.config import Recipe
from pipelines.errors import SparkringError, StorageError
from pipelines.lake.claims import Claim
from pipelines.lake.manifest import MANIFEST_NAME, Manifest
from pipelines.lake.paths import Lake
from pipelines.lake.staging import staged
from pipelines.prepare.build_order import BuildOrder, Identity
from pipelines.prepare.inputs import dataset_version, fingerprint, list_files, recipe_hash, spark_reads
from pipelines.prepare.preparations import preparation_of
from pipelines.prepare.publish import is_there, publish_dataset_row, published, version_claimed
from pipelines.prepare.remote import Listing, summarize_remote


@dataclass(frozen=True)
class PreparePlan:
    """What prepare would do. Version and folder are None while inputs are URLs that only Spark can list."""

    name: str
    recipe_hash: str
    num_files: int
    input_bytes: int
    fingerprint: str | None
    version: str | None
    folder: str | None  # as people name it
    exists: bool
    listing: Listing = field(repr=False)


def plan_prepare(recipe: Recipe, lake: Lake, begin_build: Callable[[PreparePlan], None] | None = None) -> PreparePlan:
    """Lists and fingerprints the inputs that Python reads; starts nothing, writes nothing.

    ``begin_build`` is called before the inputs are read, where no version was made by this recipe yet: what a build
    needs can start meanwhile.

    Raises:
        DataError: an input that is not there or holds no file.
    """
    files = list_files(recipe.prepare.read_inputs, lake.root, lake.store)
    plan = PreparePlan(recipe.name, recipe_hash(recipe.prepare), len(files), sum(file.bytes for file in files),
                       None, None, None, False, Listing(tuple(files)))
    if begin_build is not None and not _was_prepared(plan, lake):
        begin_build(plan)
    if any(spark_reads(source.path) for source in recipe.prepare.read_inputs):
        return plan
    return _with_version(plan, lake, _local_fingerprint(plan, recipe))


def _was_prepared(plan: PreparePlan, lake: Lake) -> bool:
    """Whether a version of this prepare section is there, of whatever input."""
    made_by = f'"recipe_hash": "{plan.recipe_hash}"'
    folder, store = lake.datasets(plan.name), lake.store
    manifests = (f"{folder}/{version}/{MANIFEST_NAME}" for version in store.names(folder))
    return any(made_by in store.read(key).decode("utf-8", "replace") for key in manifests if store.facts(key) is not None)


def prepare(spark: SparkSession, recipe: Recipe, lake: Lake, report: Callable[[str], None] = print) -> Manifest:
    """``prepare_planned`` of the inputs as they are now."""
    return prepare_planned(lambda: spark, plan_prepare(recipe, lake), recipe, lake, report)


def prepare_planned(session: Callable[[], SparkSession], plan: PreparePlan, recipe: Recipe, lake: Lake,
                    report: Callable[[str], None]) -> Manifest:
    """Makes the dataset version, or finds it; then its row is in table ``datasets``, refused records in ``rejected``.

    ``session`` is asked when Spark is needed, which may still be starting.

    Raises:
        DataError: missing, unreadable or empty input; nothing left after cleaning; a damaged version in its place.
        AlreadyRunningError: another process prepares the same version now.
        StorageError: the lake cannot be written.
    """
    plan = _completed(plan, session, recipe, lake)
    if plan.version is None or plan.folder is None or plan.fingerprint is None:
        raise SparkringError("prepare", "the inputs have no fingerprint")
    manifest = published(lake, plan.name, plan.version)
    if manifest is not None:
        report(f"prepare: dataset {plan.name} {plan.version} is there already, nothing to do ({plan.folder})")
    else:
        identity = Identity(plan.version, plan.fingerprint, plan.recipe_hash)
        with version_claimed(lake, plan.name, plan.version) as claim:
            manifest = published(lake, plan.name, plan.version) or _build(session, recipe, lake, plan, identity, report, claim)
        report(f"prepare: published {plan.folder}")
    publish_dataset_row(manifest, lake)
    return manifest


def _completed(plan: PreparePlan, session: Callable[[], SparkSession], recipe: Recipe, lake: Lake) -> PreparePlan:
    """The plan with what Spark knows of inputs given as URLs."""
    if plan.version is not None:
        return plan
    remote = summarize_remote(session(), recipe.prepare.read_inputs, preparation_of(recipe.prepare).remote_marks(recipe.prepare))
    plan = replace(plan, num_files=plan.num_files + remote.files, input_bytes=plan.input_bytes + remote.bytes,
                   listing=plan.listing._replace(remote=remote))
    both = hashlib.sha256(f"{_local_fingerprint(plan, recipe)} {remote.identity}".encode()).hexdigest()
    return _with_version(plan, lake, both)


def _local_fingerprint(plan: PreparePlan, recipe: Recipe) -> str:
    mark = preparation_of(recipe.prepare).local_mark
    return fingerprint(plan.listing.files, lambda file: mark(recipe.prepare, file))


def _with_version(plan: PreparePlan, lake: Lake, input_fingerprint: str) -> PreparePlan:
    version = dataset_version(plan.recipe_hash, input_fingerprint)
    return replace(plan, fingerprint=input_fingerprint, version=version,
                   folder=lake.store.place(lake.dataset(plan.name, version)),
                   exists=is_there(lake, plan.name, version))


def _build(session: Callable[[], SparkSession], recipe: Recipe, lake: Lake, plan: PreparePlan, identity: Identity,
           report: Callable[[str], None], claim: Claim) -> Manifest:
    report(f"prepare: {plan.num_files:,} files, {plan.input_bytes / 1e6:,.1f} MB -> {plan.name} {plan.version}")
    build = preparation_of(recipe.prepare).build
    try:
        with staged(lake.store, lake.dataset(plan.name, identity.version), claim) as staging:
            manifest = build(BuildOrder(session, recipe, lake, plan.listing, identity, staging, report), recipe.prepare)
            claim.check()
            manifest.save(staging.files)
            return manifest
    except StorageError:
        # Where another machine's claim is not seen here, that machine may have been first.
        first = published(lake, plan.name, identity.version)
        if first is None:
            raise
        return first
