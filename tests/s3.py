"""A real S3 server (moto's) on loopback that can be told to fail, to hang and to be slow."""

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.wrappers import Response

from tests.loopback import Loopback, sometimes

__all__ = ["BUCKET", "S3", "running", "sometimes"]

BUCKET = "bucket"


class S3(Loopback):
    """`requests` counts what came, by method."""

    def __init__(self) -> None:
        super().__init__(DomainDispatcherApplication(create_backend_app))

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

    def refusal(self, status: int) -> Response:
        code = {503: "SlowDown", 403: "AccessDenied"}.get(status, "Internal")
        body = f"<Error><Code>{code}</Code><Message>told to</Message></Error>"
        return Response(body, status=status, mimetype="text/xml")


def running() -> S3:
    """To be used in `with`."""
    return S3()
