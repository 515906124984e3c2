"""A network of two hosts on one machine, which share nothing but it: the ground under the cluster of ``cluster.py``.

Runs on: the machine of the tests, as root.
Takes:   a folder for its hosts' table of names.
Gives:   ``network``: a bridge with the driver's address and the store's, and two network namespaces on it, for as long as
         the block lasts. ``Host.start`` runs a command on one of them, behind mount, host name and process namespaces of its own
         (``host.sh``).

Driver, master and store are processes of the machine itself; what they have in files, a host does not see:

    sr-b-PID bridge   10.x.y.1 driver, master      10.x.y.2 store
       |--- namespace sr-one-PID   10.x.y.11   host "sr-one"    an empty /tmp and home, no checkout
       `--- namespace sr-two-PID   10.x.y.12   host "sr-two"    as empty, and another
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import ROOT

COMMAND_TIMEOUT_S = 30.0
END_TIMEOUT_S = 20.0
SCRIPT = Path(__file__).with_name("host.sh")
NAMES = ("sr-one", "sr-two")


@dataclass(frozen=True)
class Host:
    """One of the two."""

    name: str  # as it knows itself
    address: str
    namespace: str  # of its network
    hosts_file: Path
    store_address: str

    @contextmanager
    def start(self, command: list[str], environment: dict[str, str], log: Path) -> Iterator[RunningHost]:
        """The host with a command on it; when the block ends, every process of it is killed, and its files are gone."""
        words = ["ip", "netns", "exec", self.namespace, "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child",
                 "--mount-proc", "bash", str(SCRIPT), self.name, str(self.hosts_file), "\n".join(hidden_folders()),
                 "\n".join(kept_folders()), *command]
        with log.open("wb") as output:
            process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=output,
                                       stderr=subprocess.STDOUT, cwd="/")
        running = RunningHost(self, process)
        try:
            yield running
        finally:
            running.end()

    def set_link(self, *, up: bool) -> None:
        """As if its cable was pulled, or put back."""
        run("ip", "-n", self.namespace, "link", "set", "eth0", "up" if up else "down")

    @contextmanager
    def without_store(self) -> Iterator[None]:
        """As behind a firewall that lets nothing through to the store."""
        route = ("route", "add", "unreachable", f"{self.store_address}/32")
        run("ip", "-n", self.namespace, *route)
        try:
            yield
        finally:
            run("ip", "-n", self.namespace, "route", "delete", *route[2:])


class RunningHost:
    """A host whose processes run."""

    def __init__(self, host: Host, process: subprocess.Popen[bytes]) -> None:
        self.host, self._process = host, process

    def processes(self) -> list[psutil.Process]:
        """All of it: those that lost their parent are process 1's, which is ours."""
        try:
            return psutil.Process(self._process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def ranks(self) -> list[int]:
        """Numbers of its rank processes, as the machine counts."""
        return [each.pid for each in self.processes() if "pipelines.train.worker" in command_of(each)]

    def files(self, folder: str) -> list[str]:
        """Names in a folder as the host sees it."""
        init = self.processes()[0]
        return sorted(os.listdir(f"/proc/{init.pid}/root{folder}"))

    def end(self) -> None:
        known = self.processes()
        self._process.kill()  # and with it process 1 of its namespace, and with that all of them
        self._process.wait(END_TIMEOUT_S)
        _, alive = psutil.wait_procs(known, timeout=END_TIMEOUT_S)
        if alive:
            raise RuntimeError(f"host {self.host.name} has left {alive}")


@dataclass(frozen=True)
class Network:
    """Addresses of what runs on the machine itself, and the hosts."""

    driver_address: str
    store_address: str
    hosts: tuple[Host, Host]


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """Made new; taken away again, however the block ends."""
    number = os.getpid()
    subnet, bridge = f"10.{200 + number % 50}.{number // 50 % 250}", f"sr-b-{number}"
    driver, store = f"{subnet}.1", f"{subnet}.2"
    addresses = [f"{subnet}.{11 + i}" for i in range(len(NAMES))]
    hosts_file = folder / "hosts"
    hosts_file.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for address, name in
                                                            zip(addresses, NAMES, strict=True)))
    with ExitStack() as stack:
        run("ip", "link", "add", bridge, "type", "bridge")
        stack.callback(run, "ip", "link", "delete", bridge)
        for address in (driver, store):
            run("ip", "address", "add", f"{address}/24", "dev", bridge)
        run("ip", "link", "set", bridge, "up")
        hosts = []
        for name, address in zip(NAMES, addresses, strict=True):
            namespace = f"{name}-{number}"
            run("ip", "netns", "add", namespace)
            stack.callback(run, "ip", "netns", "delete", namespace)  # its end of the cable goes too, and so the other
            outside = f"{name[3:]}-{number}"
            run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            run("ip", "link", "set", outside, "master", bridge, "up")
            run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                run("ip", "-n", namespace, "link", "set", device, "up")
            hosts.append(Host(name, address, namespace, hosts_file, store))
        yield Network(driver, store, (hosts[0], hosts[1]))


def hidden_folders() -> list[str]:
    """What a host must not see of the machine: the checkout, home, temporary files, shared memory; outer ones first."""
    return sorted({str(Path(path).resolve()) for path in (ROOT, Path.home(), tempfile.gettempdir(), "/tmp", "/dev/shm")})


def kept_folders() -> list[str]:
    """What is installed on a host: this environment, and the Python behind it. Not this project, which the checkout has."""
    installed = [sys.prefix, sys.base_prefix, *filter(None, [os.environ.get("JAVA_HOME")])]
    return sorted({path for path in installed if any(Path(path).is_relative_to(each) for each in hidden_folders())})


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


def until(true: object, bound_s: float, what: str) -> None:
    """Waits for it; ``true`` is a function without arguments."""
    end = time.monotonic() + bound_s
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, f"{what}: not within {bound_s:g} s"
        time.sleep(0.2)
