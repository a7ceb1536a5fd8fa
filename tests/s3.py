"""A real S3 server (moto's) on loopback that can be told to fail, to hang and to be slow."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Response

BUCKET = "bucket"


class S3:
    """`faults` are asked in turn about each request, (method, path) → an HTTP status, "hang",
    seconds to wait, or None. `requests` counts what came, by method."""

    def __init__(self) -> None:
        self.app = DomainDispatcherApplication(create_backend_app)
        self.faults: list[Callable[[str, str], Any]] = []
        self.requests: dict[str, int] = {}
        self.stopping = threading.Event()
        self.server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Silent)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    @property
    def environment(self) -> dict[str, str]:
        """What a client process needs to find this server and no other."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": "/dev/null",
        }

    def __call__(self, environ: dict, start_response: Any) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests[method] = self.requests.get(method, 0) + 1
        for fault in list(self.faults):
            harm = fault(method, path)
            if harm == "hang":
                self.stopping.wait(120)
            if isinstance(harm, float):
                time.sleep(harm)
            elif harm is not None:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                code = "SlowDown" if harm == 503 else "AccessDenied" if harm == 403 else "Internal"
                body = f"<Error><Code>{code}</Code><Message>told to</Message></Error>"
                return Response(body, status=harm, mimetype="text/xml")(environ, start_response)
        return self.app(environ, start_response)

    def stop(self) -> None:
        self.stopping.set()
        self.server.shutdown()
        self.thread.join(10)


class Silent(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """Nothing: a test says what it saw."""


@contextmanager
def running() -> Iterator[S3]:
    server = S3()
    try:
        yield server
    finally:
        server.stop()


def sometimes(status: Any, every: int, method: str = "", part: str = "") -> Callable:
    """A fault on every n-th request with this method whose path contains `part`."""
    count = [0]

    def fault(asked: str, path: str) -> Any:
        if (method and asked != method) or part not in path:
            return None
        count[0] += 1
        return status if count[0] % every == 0 else None

    return fault
