"""The S3 server of the tests, the proxy that makes it fail, and what s3fs makes of both."""

from __future__ import annotations

import collections
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import botocore.exceptions
import psutil
import pytest
import s3fs

from tests.support import s3_server as support
from tests.support.faulty_proxy import Asked, Fault, FaultyProxy, always, drawn, faulty_proxy, in_turn
from tests.support.s3_server import ROOT, S3Server

pytestmark = pytest.mark.processes

CONTENT = bytes(range(251)) * 400  # 100 kB without a period of a power of two
# What s3fs raises where a store or a network fails: translated answers, botocore's errors, and aiohttp's of a body that ends.
STORE_FAILS = (OSError, botocore.exceptions.BotoCoreError, aiohttp.ClientError)
DONE, EXISTS = 200, 412


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.new_bucket()


@pytest.fixture
def through(s3_server: S3Server) -> Iterator[Callable[..., FaultyProxy]]:
    """Proxies in front of the server, which are closed when the test ends."""
    opened: list[FaultyProxy] = []

    def open_proxy(choose: Callable[[Asked], Fault | None], **settings: float) -> FaultyProxy:
        opened.append(FaultyProxy(s3_server.endpoint_url, choose, **settings))
        return opened[-1]

    yield open_proxy
    for proxy in opened:
        proxy.close()


def client(of: S3Server | FaultyProxy, **settings: object) -> s3fs.S3FileSystem:
    """One that tries each request once: how often s3fs and botocore try again is not ours to test."""
    fs = s3fs.S3FileSystem(**of.options, config_kwargs={"retries": {"max_attempts": 0}}, skip_instance_cache=True, **settings)
    fs.retries = 1
    return fs


def ask(endpoint_url: str, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """One request without a client library in between."""
    connection = http.client.HTTPConnection(str(urlsplit(endpoint_url).netloc), timeout=20)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Authorization": "AWS any:one", **given})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("straight", [True, False], ids=["straight", "through the proxy"])
def test_what_is_put_comes_back_whole_in_ranges_and_in_listings(straight: bool, s3_server: S3Server, bucket: str,
                                                                through: Callable[..., FaultyProxy]):
    fs = client(s3_server if straight else through(lambda asked: None))
    fs.pipe_file(f"{bucket}/a folder/ü.bin", CONTENT)
    fs.pipe_file(f"{bucket}/large", CONTENT * 110, chunksize=5 * 2**20)  # in parts: it is twice as large as one
    assert fs.cat_file(f"{bucket}/a folder/ü.bin") == CONTENT
    assert fs.cat_file(f"{bucket}/a folder/ü.bin", start=1000, end=2000) == CONTENT[1000:2000]
    assert sorted(fs.find(bucket)) == [f"{bucket}/a folder/ü.bin", f"{bucket}/large"]
    assert fs.info(f"{bucket}/large")["size"] == 110 * len(CONTENT)
    fs.rm_file(f"{bucket}/large")
    assert not fs.exists(f"{bucket}/large")


def test_of_those_who_create_an_object_at_once_exactly_one_does(s3_server: S3Server, bucket: str):
    for attempt in range(40):
        statuses: list[int] = []
        start = threading.Barrier(3)

        def create(path: str = f"/{bucket}/claim-{attempt}", statuses: list[int] = statuses, start: threading.Barrier = start):
            start.wait()
            statuses.append(ask(s3_server.endpoint_url, "PUT", path, threading.current_thread().name.encode(),
                                If_None_Match="*")[0])

        threads = [threading.Thread(target=create) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [DONE, EXISTS, EXISTS]


@pytest.mark.parametrize("fault", [Fault.SLOW_DOWN, Fault.INTERNAL_ERROR, Fault.ACCESS_DENIED, Fault.CONFLICT])
def test_a_refusal_is_one_of_s3_and_nothing_is_done(fault: Fault, s3_server: S3Server, bucket: str,
                                                    through: Callable[..., FaultyProxy]):
    proxy = through(always(fault))
    status, body = ask(proxy.endpoint_url, "PUT", f"/{bucket}/key", b"x")
    assert status == {"slow_down": 503, "internal_error": 500, "access_denied": 403, "conflict": 409}[fault]
    assert body.startswith(b"<?xml") and b"<Code>" in body
    assert ask(s3_server.endpoint_url, "GET", f"/{bucket}/key")[0] == 404
    assert [(each.asked.method, each.asked.key, each.fault) for each in proxy.answered] == [("PUT", "key", fault)]


@pytest.mark.parametrize(("fault", "is_done"), [(Fault.CLOSED, False), (Fault.RESET, False), (Fault.LOST_ANSWER, True)])
def test_a_connection_ends_without_an_answer_before_or_after_the_write(fault: Fault, is_done: bool, s3_server: S3Server,
                                                                       bucket: str, through: Callable[..., FaultyProxy]):
    proxy = through(in_turn([fault]))
    with pytest.raises(ConnectionError):  # http.client's RemoteDisconnected is one
        ask(proxy.endpoint_url, "PUT", f"/{bucket}/key", b"x", If_None_Match="*")
    assert (ask(s3_server.endpoint_url, "GET", f"/{bucket}/key") == (DONE, b"x")) == is_done
    assert ask(proxy.endpoint_url, "PUT", f"/{bucket}/key", b"x", If_None_Match="*")[0] == (EXISTS if is_done else DONE)


def test_a_body_is_cut_off_and_an_answer_is_late(s3_server: S3Server, bucket: str, through: Callable[..., FaultyProxy]):
    ask(s3_server.endpoint_url, "PUT", f"/{bucket}/key", CONTENT)
    proxy = through(in_turn([Fault.CUT, Fault.DELAYED]), delay_s=0.3, latency_s=0.1)
    with pytest.raises(http.client.IncompleteRead):
        ask(proxy.endpoint_url, "GET", f"/{bucket}/key")
    start = time.monotonic()
    assert ask(proxy.endpoint_url, "GET", f"/{bucket}/key") == (DONE, CONTENT)
    assert time.monotonic() - start >= 0.4


@pytest.mark.parametrize("chunk_bytes", [None, 30_000], ids=["whole", "several ranges at once"])
@pytest.mark.parametrize("fault", [each for each in Fault if each is not Fault.WRONG_BYTES])
def test_s3fs_reads_what_is_there_or_says_that_it_cannot(fault: Fault, chunk_bytes: int | None, s3_server: S3Server, bucket: str,
                                                         through: Callable[..., FaultyProxy], tmp_path: Path):
    ask(s3_server.endpoint_url, "PUT", f"/{bucket}/key", CONTENT)
    fs = client(through(always(fault, lambda asked: asked.method == "GET"), delay_s=0.1))
    got = tmp_path / "got"
    for read in (lambda: fs.cat_file(f"{bucket}/key", chunksize=chunk_bytes),
                 lambda: fs.cat_file(f"{bucket}/key", start=10, end=60_000),
                 lambda: fs.get_file(f"{bucket}/key", str(got), chunksize=chunk_bytes) or got.read_bytes()):
        if fault is Fault.DELAYED:
            assert read() in (CONTENT, CONTENT[10:60_000])
        else:
            with pytest.raises(STORE_FAILS):
                read()


def test_who_creates_an_object_and_loses_the_answer_is_told_that_another_was_first(s3_server: S3Server, bucket: str,
                                                                                   through: Callable[..., FaultyProxy]):
    """Below s3fs and botocore aiohttp asks once more, whatever the settings: what is created has to say whose it is."""
    proxy = through(in_turn([Fault.LOST_ANSWER]))
    with pytest.raises(FileExistsError):
        client(proxy).pipe_file(f"{bucket}/claim", b"mine", mode="create")
    assert [each.status for each in proxy.answered] == [0, EXISTS]
    assert client(s3_server).cat_file(f"{bucket}/claim") == b"mine"


def test_among_drawn_faults_every_read_is_right_or_an_error_and_every_new_object_is_there_once(s3_server: S3Server, bucket: str):
    shares = {Fault.SLOW_DOWN: 0.05, Fault.INTERNAL_ERROR: 0.05, Fault.CLOSED: 0.05, Fault.RESET: 0.05, Fault.CUT: 0.05,
              Fault.LOST_ANSWER: 0.05, Fault.DELAYED: 0.05}
    ended: collections.Counter[str] = collections.Counter()
    with faulty_proxy(s3_server.endpoint_url, shares, seed=20261128) as proxy:
        proxy.delay_s = 0.05
        fs = client(proxy)
        for index in range(60):
            key = f"{bucket}/{index}"
            try:
                fs.pipe_file(key, CONTENT, mode="create")
                ended["created"] += 1
                assert fs.cat_file(key, start=index, end=50_000 + index) == CONTENT[index:50_000 + index]
                ended["read"] += 1
            except STORE_FAILS:
                ended["error"] += 1
        assert len(proxy.faults()) >= 5
    there = client(s3_server).find(bucket)
    assert ended["created"] <= len(there) < 60 and ended["read"] and ended["error"]
    assert all(ask(s3_server.endpoint_url, "GET", f"/{key}") == (DONE, CONTENT) for key in there)


def test_what_is_drawn_follows_from_the_seed_and_the_request_not_from_the_order():
    asked = [Asked("GET", f"/bucket-{number % 2}/{number}", "") for number in range(1000)]
    shares = {Fault.CUT: 0.2, Fault.CLOSED: 0.1}
    forward = {each.key: fault for each, fault in zip(asked, map(drawn(shares, 1), asked), strict=True)}
    backward = {each.key: fault for each, fault in zip(asked[::-1], map(drawn(shares, 1), asked[::-1]), strict=True)}
    counted = collections.Counter(forward.values())
    assert forward == backward
    assert 150 < counted[Fault.CUT] < 250 and 60 < counted[Fault.CLOSED] < 140
    assert list(map(drawn(shares, 2), asked)) != list(forward.values())


def test_a_failed_block_says_the_seed():
    with pytest.raises(ZeroDivisionError) as raised, faulty_proxy("http://127.0.0.1:9", {Fault.CUT: 0.5}, seed=77):
        raise ZeroDivisionError
    assert "seed 77" in raised.value.__notes__[0]


def test_as_a_process_the_proxy_ends_with_its_input(s3_server: S3Server, bucket: str):
    with subprocess.Popen([sys.executable, "-m", "tests.support.faulty_proxy", s3_server.endpoint_url, "--share", "slow_down=1"],
                          cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        url = process.stdout.readline().strip()
        assert ask(url, "GET", f"/{bucket}")[0] == 503
        process.stdin.close()
        assert process.wait(timeout=20) == 0


def test_the_server_dies_with_the_process_that_started_it(tmp_path: Path):
    starter = f"""
import time
from pathlib import Path
from tests.support.s3_server import running_s3_server
with running_s3_server(Path({str(tmp_path / "log")!r})) as server:
    print(server.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", starter], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        server = psutil.Process(int(process.stdout.readline()))
        os.kill(process.pid, signal.SIGKILL)
    server.wait(timeout=20)


def test_a_missing_environment_is_named_with_the_command_that_makes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(support.s3_environment, "STAMP", tmp_path / "none")
    with pytest.raises(RuntimeError, match=r"make it with: \.venv/bin/python setup/s3_environment\.py"), \
            support.running_s3_server(tmp_path / "log"):
        pass


def test_the_environment_is_made_once_and_again_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    environment = support.s3_environment
    for name, place in (("ENVIRONMENT", ""), ("PYTHON", "bin/python"), ("STAMP", "packages.stamp"), ("LOG", "setup.log")):
        monkeypatch.setattr(environment, name, tmp_path / "venv" / place)
    ran: list[str] = []

    def run(command: list[str], lock: int) -> None:
        ran.append(command[2])
        if ran == ["venv", "pip"]:
            raise KeyboardInterrupt
        environment.PYTHON.parent.mkdir(exist_ok=True)
        environment.PYTHON.touch()

    monkeypatch.setattr(environment, "logged", run)
    with pytest.raises(KeyboardInterrupt):
        environment.main()
    assert not environment.is_current()
    environment.main()
    environment.main()
    assert ran == ["venv", "pip", "venv", "pip"] and environment.is_current()


def test_its_lock_file_is_complete(s3_server: S3Server):
    checked = subprocess.run([support.s3_environment.PYTHON, "-m", "pip", "check"], capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stdout) == (0, "No broken requirements found.\n")
