"""A proxy that cuts connections, as a bad network does."""

from __future__ import annotations

import random
import socket
import threading
from contextlib import suppress
from types import TracebackType


class CuttingProxy:
    """Passes bytes on to a port of this machine; each connection is cut after a random number of them."""

    def __init__(self, port: int, random_numbers: random.Random, most_bytes: int) -> None:
        self.cuts, self.whole = 0, False  # whole: nothing is cut any more
        self._port, self._random, self._most_bytes = port, random_numbers, most_bytes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        for each in list(self._open):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            self._open |= {near, far}
            left = [self._random.randint(1, self._most_bytes)]
            for source, to in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(source, to, left), daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket, left: list[int]) -> None:
        try:
            while data := source.recv(4096):
                if not self.whole and len(data) > left[0]:
                    to.sendall(data[: left[0]])
                    self.cuts += 1
                    break
                left[0] -= len(data)
                to.sendall(data)
        except OSError:
            pass
        for each in (source, to):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
            self._open.discard(each)
