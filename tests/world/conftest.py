"""The world of these tests: a network, a store, a master and the driver's folder, for all of them.

They need root and more (``needs.py``), so ``make test`` does not collect this folder and ``make test-world`` does. What is
missing fails them with one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.test_standalone import start_daemon, wait_for
from tests.support.s3_server import running_s3_server
from tests.world.cluster import World
from tests.world.needs import complaint
from tests.world.network import network


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Iterator[World]:
    if (missing := complaint()) is not None:
        pytest.fail(missing, pytrace=False)
    folder = tmp_path_factory.mktemp("driver")
    with network(folder) as net, running_s3_server(folder / "store.log", net.store_address) as server:
        # A free port of Spark's choosing, which it says in its log.
        master, log = start_daemon(folder, "master", "org.apache.spark.deploy.master.Master", "--host", net.driver_address,
                                   "--port", "0", "--webui-port", "0")
        try:
            wait_for(log, "I have been elected leader")
            port = log.read_text(errors="replace").partition("Starting Spark master at spark://")[2].split()[0].rpartition(":")[2]
            yield World(folder, net, server, f"spark://{net.driver_address}:{port}", wheel)
        finally:
            master.kill()
            master.wait(timeout=30)
