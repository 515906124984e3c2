"""A lake at a URL against one in a folder: preparing into it, reading its shards, training from it.

Runs on: driver; ``python -m benchmarks.lake`` in a process of its own, which serves ranges of files.
Takes:   the environment of the S3 server (``setup/s3_environment.py``).
Gives:   ``measure``: tokens/s of prepare into S3 against a folder; rows/s of the feed, and tokens/s of training, from a server of
         ranges that answers 50 ms late against local files.

The S3 server is moto, in one process: what it takes of the two cores counts against S3. It copies a whole object for each
range, so shards are read from a server that does nothing but send ranges.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

from benchmarks.datasets import publish_random
from benchmarks.feed import GLOBAL_BATCH_SAMPLES, NUM_LANES, ROWS, ROWS_PER_ROW_GROUP, WINDOW_ROW_GROUPS
from benchmarks.feed import SEQUENCE_LENGTH as FED_LENGTH
from benchmarks.prepare import PLATFORM, RECIPE, ROOT, demo_texts, prepared_from, write_text
from benchmarks.results import Figure
from benchmarks.training import SEQUENCE_LENGTH, VOCABULARY_SIZE, our_tokens_per_s
from pipelines.config import Platform, Recipe, load_config
from pipelines.config.platform import Reader
from pipelines.config.recipe import Data
from pipelines.feed.batches import SampleOrder, Share, TrainingFeed
from pipelines.lake.manifest import Manifest
from pipelines.lake.object_cache import ObjectCache
from pipelines.lake.object_store import ObjectStore
from pipelines.lake.paths import Lake
from pipelines.lake.store import FolderStore, Store
from pipelines.prepare.prepare import prepare
from pipelines.spark.session import spark_session
from tests.support.s3_server import S3Server, running_s3_server

ROUNDS, PREPARED_MB, LATENCY_S = 5, 161, 0.05
COMMAND = "python -m benchmarks lake"


class _Ranges(BaseHTTPRequestHandler):
    """Files below the working folder, whole or a range of them, LATENCY_S late."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._send(body=False)

    def do_GET(self) -> None:
        self._send(body=True)

    def _send(self, *, body: bool) -> None:
        time.sleep(LATENCY_S)
        path = Path(self.path.lstrip("/"))
        if not path.is_file():
            self.send_error(404)
            return
        size = path.stat().st_size
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(found[1]), min(int(found[2]), size - 1)) if found else (0, size - 1)
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", hashlib.sha256(f"{path} {size}".encode()).hexdigest())
        if found:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if body:
            with path.open("rb") as file:
                file.seek(first)
                self.wfile.write(file.read(last - first + 1))

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@contextmanager
def range_server(folder: Path) -> Iterator[str]:
    """Its URL."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.lake"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        try:
            yield str(process.stdout.readline()).strip()  # type: ignore[union-attr]
        finally:
            process.kill()


def rows_s(dataset: Store, manifest: Manifest) -> float:
    """An epoch of the feed, once what was read ahead is used up."""
    data = Data(num_lanes=NUM_LANES, window_row_groups=WINDOW_ROW_GROUPS)
    with TrainingFeed(dataset, manifest, Reader(kind="arrow"), SampleOrder(data, 1, GLOBAL_BATCH_SAMPLES),
                      Share(GLOBAL_BATCH_SAMPLES)) as feed:
        for _ in range(feed.steps_per_epoch // 2):
            next(feed)
        began, before = time.perf_counter(), feed.samples_read
        taken = sum(next(feed).samples for _ in range(feed.steps_per_epoch))
        return min(taken, feed.samples_read - before) / (time.perf_counter() - began)


def feed_figure(folder: Path) -> Figure:
    manifest = publish_random(folder / "dataset", rows=ROWS, sequence_length=FED_LENGTH, vocabulary_size=VOCABULARY_SIZE,
                              rows_per_shard=ROWS // 4, rows_per_row_group=ROWS_PER_ROW_GROUP)
    with range_server(folder / "dataset") as url:
        sides: dict[str, Store] = {"server": ObjectStore(url, cache=ObjectCache(parent=str(folder))),
                                   "files": FolderStore(folder / "dataset")}
        seen: dict[str, list[float]] = {name: [] for name in sides}
        for round_ in range(ROUNDS + 1):
            for name, store in sides.items():
                rate = rows_s(store, manifest)
                if round_:  # before: copies, page cache, checksums
                    seen[name].append(rate)
            print(f"feed, round {round_} of {ROUNDS}: " + ", ".join(f"{name} {each[-1:]}" for name, each in seen.items()))
    middle = {name: statistics.median(values) for name, values in seen.items()}
    return Figure("feed from a server of ranges, 50 ms late, vs local files", middle["server"], middle["files"], "rows/s", 0.8,
                  COMMAND, note="steady state: from the copies on this machine's disk, which are made as shards are first read")


def training_figure(folder: Path, server: S3Server) -> Figure:
    """S3's answers come 50 ms late, and when a training begins there are no copies."""
    local, bucket, seen = Lake.at(folder / "training"), server.new_bucket(), dict[str, list[float]](s3=[], files=[])
    key = local.dataset("random", "v1")
    manifest = publish_random(local.root / key, rows=4096, sequence_length=SEQUENCE_LENGTH, vocabulary_size=VOCABULARY_SIZE,
                              rows_per_shard=512)
    with late_s3(server) as url:
        for round_ in range(ROUNDS):
            remote = Lake.at(json.dumps({"root": f"s3://{bucket}/lake", "options": {"endpoint_url": url},
                                         "cache_folder": str(folder / f"copies-{round_}")}))
            if not round_:
                for path in (local.root / key).iterdir():
                    remote.store.put(f"{key}/{path.name}", path.read_bytes())
            for name, lake in {"s3": remote, "files": local}.items():
                seen[name].append(our_tokens_per_s(lake, manifest, f"{name}-{round_}", num_replicas=2, precision="fp32"))
            print(f"training, round {round_ + 1} of {ROUNDS}: " + ", ".join(f"{k} {v[-1]:,.0f}" for k, v in seen.items()))
    middle = {name: statistics.median(values) for name, values in seen.items()}
    return Figure("training from S3, 50 ms late, vs local files", middle["s3"], middle["files"], "tokens/s", 0.99, COMMAND,
                  note=f"fp32, 2 ranks x 1 thread, medians of {ROUNDS} rounds")


@contextmanager
def late_s3(server: S3Server) -> Iterator[str]:
    """The server's URL with LATENCY_S before each answer."""
    command = [sys.executable, "-m", "tests.support.faulty_proxy", server.endpoint_url, "--latency-s", str(LATENCY_S)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield str(process.stdout.readline()).strip()  # type: ignore[union-attr]
        finally:
            process.kill()


def prepare_figure(folder: Path, recipe: Recipe, server: S3Server) -> Figure:
    """Both in one session, alternated; the first round of each warms it."""
    platform = Platform.model_validate({"spark": {"master": "local[2]", "conf": {"spark.driver.memory": "4g"}}})
    seen: dict[str, list[float]] = {"S3": [], "folder": []}
    with spark_session(platform, "bench-lake") as spark:
        for round_ in range(ROUNDS + 1):
            bucket = {"root": f"s3://{server.new_bucket()}/lake", "options": server.options}
            for name, address in {"S3": json.dumps(bucket), "folder": str(folder / "lake")}.items():
                began = time.perf_counter()
                manifest = prepare(spark, recipe, Lake.at(address), report=lambda line: None)
                if round_:
                    seen[name].append(sum(manifest.units.values()) / (time.perf_counter() - began))
            shutil.rmtree(folder / "lake")
            print(f"prepare, round {round_} of {ROUNDS}: " + ", ".join(f"{k} {v[-1:]}" for k, v in seen.items()))
    middle = {name: statistics.median(values) for name, values in seen.items()}
    return Figure(f"prepare {PREPARED_MB} MB into S3 vs into a folder", middle["S3"], middle["folder"], "tokens/s", 0.9, COMMAND,
                  note="moto, in one process on the same two cores")


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder, demo = Path(name), load_config(RECIPE, PLATFORM).recipe
        write_text(folder / "text", demo_texts(demo, folder), PREPARED_MB * 1000**2)
        with running_s3_server(folder / "server.log") as server, mock.patch.dict(os.environ, server.environment):
            return [feed_figure(folder), training_figure(folder, server),
                    prepare_figure(folder, prepared_from(demo, folder / "text"), server)]


if __name__ == "__main__":
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _Ranges)
    print(f"http://127.0.0.1:{listening.server_address[1]}", flush=True)
    listening.serve_forever()
