"""A real HTTP server on loopback that can be told to fail, to hang, to be slow and to lose what it
sends and gets."""

import io
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response


class Loopback:
    """A WSGI application behind faults and counters.

    `faults` are asked in turn about each request, (method, path) → what goes wrong or None:
    an HTTP status; "hang"; seconds (a float) to wait; "cut", the connection closes when half of
    the request's body has come or, where it has none, half of the answer's has gone; "lost", the
    request is carried out and no answer comes.

    `requests` counts what came, `received` and `sent` the bytes of the bodies, by what `label`
    calls a request.
    """

    def __init__(self, app: Callable[..., Iterable[bytes]]) -> None:
        self.app = app
        self.faults: list[Callable[[str, str], Any]] = []
        self.requests: Counter = Counter()
        self.received: Counter = Counter()
        self.sent: Counter = Counter()
        self.counting = threading.Lock()
        self.stopping = threading.Event()
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Silent)
        self.port = self.server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def label(self, environ: dict) -> Any:
        return environ["REQUEST_METHOD"]

    def refusal(self, status: int) -> Response:
        return Response("told to", status=status, mimetype="text/plain")

    def count(self, counter: Counter, label: Any, n: int = 1) -> None:
        with self.counting:
            counter[label] += n

    def forget(self) -> None:
        """No faults, and counters at zero."""
        self.faults.clear()
        for counter in (self.requests, self.received, self.sent):
            counter.clear()

    def __call__(self, environ: dict, start_response: Any) -> Iterator[bytes]:
        label, connection = self.label(environ), environ["werkzeug.socket"]
        self.count(self.requests, label)
        body = environ["wsgi.input"] = Counted(
            environ["wsgi.input"], lambda n: self.count(self.received, label, n)
        )
        length = int(environ.get("CONTENT_LENGTH") or 0)
        app, cut = self.app, False
        for fault in list(self.faults):
            harm = fault(environ["REQUEST_METHOD"], environ["PATH_INFO"])
            if harm == "hang":
                self.stopping.wait(120)
                drop(connection)
            elif harm == "lost":
                b"".join(app(environ, lambda *_: None))
                drop(connection)
            elif harm == "cut":
                body.read(length // 2)
                if length:
                    drop(connection)
                cut = True
            elif isinstance(harm, float):
                time.sleep(harm)
            elif harm is not None:
                body.read(length)
                app = self.refusal(harm)
                break
        chunks = app(environ, start_response)
        if cut:
            whole = b"".join(chunks)
            chunks = [whole[: len(whole) // 2]]
        try:
            for chunk in chunks:
                self.count(self.sent, label, len(chunk))
                yield chunk
        finally:
            getattr(chunks, "close", lambda: None)()
        if cut:
            drop(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


def drop(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


class Counted(io.RawIOBase):
    """A request's body that tells of each read."""

    def __init__(self, stream: Any, tell: Callable[[int], None]) -> None:
        self.stream, self.tell_of = stream, tell

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self.stream.readinto(buffer) if len(buffer) else 0
        self.tell_of(n)
        return n


class Silent(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Nothing: a test says what it saw."""


def sometimes(status: Any, every: int, method: str = "", part: str = "") -> Callable:
    """A fault on every n-th request with this method whose path contains `part`."""
    count = [0]

    def fault(asked: str, path: str) -> Any:
        if (method and asked != method) or part not in path:
            return None
        count[0] += 1
        return status if count[0] % every == 0 else None

    return fault


def once(harm: Any, method: str = "", part: str = "") -> Callable:
    """A fault on the first request with this method whose path contains `part`, and no other."""
    left = [harm]

    def fault(asked: str, path: str) -> Any:
        fits = (not method or asked == method) and part in path
        return left.pop() if fits and left else None

    return fault
