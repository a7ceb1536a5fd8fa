"""A stand-in for the Hugging Face Hub: a real HTTP server on loopback, for dataset repositories.

It speaks what `huggingface_hub`, its `hf://` file system and `datasets` speak to the Hub, refuses
what the Hub refuses, keeps a history, and can be told to fail. LFS files are sent to and fetched
from another origin, by signed URLs that take no token, as on the Hub; with `xet`, by Xet.

    with Hub(folder) as hub, client(hub.environment(home)) as run:
        run(push, "owner/name")                            # in a process that knows this Hub alone
        assert hub.files("owner/name")["README.md"]
        hub.faults.append(once("cut", "PUT", "/upload/"))
"""

from tests.hub import reading, writing, xet  # noqa: F401 - they enter their routes
from tests.hub.client import client
from tests.hub.server import ORGANIZATION, OWNER, READER, Hub

__all__ = ["ORGANIZATION", "OWNER", "READER", "Hub", "client"]
