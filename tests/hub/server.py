"""The server: who asks for what, and the door for tests."""

import hmac
import json
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request, Response

from tests.hub.chunks import ChunkStore
from tests.hub.repository import Commit, Repository, Store
from tests.hub.rules import Refused
from tests.loopback import Loopback

OWNER, READER, ORGANIZATION = "owner", "reader", "lab"
ROLES = {
    OWNER: {OWNER: "write"},
    READER: {READER: "read"},
    ORGANIZATION: {OWNER: "write", READER: "read"},
}
XET = {  # one more attempt, soon, and nothing fetched is kept
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
    "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
    "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",
}
SHAPES = {"repo": "[^/]+/[^/]+?", "repo_name": "[^/]+/[^/]+", "path": ".+"}


@dataclass
class Route:
    method: str
    pattern: re.Pattern[str]
    action: Callable[..., Any]
    writes: bool
    signed: bool
    scope: str

    @property
    def kind(self) -> str:
        return self.action.__name__


ROUTES: list[Route] = []


def route(
    method: str, pattern: str, writes: bool = False, signed: bool = False, scope: str = ""
) -> Callable:
    """Enters `action(hub, ask, **parts)`, which gives a Response or what becomes JSON.

    A part of the path named `repo` reaches it as a Repository that the user may read (or write,
    with `writes`), one named `commit` as a Commit of it. What is `signed` is asked for by a URL of
    `Hub.sign` and without a token; what has a `scope`, with a Xet token that may do that, and the
    action is given its Repository.
    """
    shape = re.sub(r"{(\w+)}", lambda m: f"(?P<{m[1]}>{SHAPES.get(m[1], '[^/]+')})", pattern)

    def enter(action: Callable[..., Any]) -> Callable[..., Any]:
        ROUTES.append(Route(method, re.compile(shape), action, writes, signed, scope))
        return action

    return enter


class Ask(Request):
    user: str | None = None


class Hub(Loopback):
    """`requests`, `received` and `sent` go by (method, kind of route): ("PUT", "upload") and
    ("GET", "cdn") carry LFS files, ("POST", "commit") small files in base64, ("GET", "resolve")
    small files. What was asked of other hosts is in `elsewhere`, and none of it got there.

    With `xet`, clients send and get large files by Xet: ("POST", "xorb") and ("GET", "chunk_range")
    carry them, and "cdn" what is read in part.

    A token is "hf_" and the user's name. OWNER writes under OWNER/ and ORGANIZATION/; READER reads
    what is public or under ORGANIZATION/.
    """

    part_bytes = 16 * 2**20  # LFS files larger than this are sent in parts of this size
    page_entries = 1000

    def __init__(self, folder: str | Path, xet: bool = False) -> None:
        super().__init__(self.answer)
        self.store = ChunkStore(Path(folder)) if xet else Store(Path(folder))
        self.xet_tokens: dict[str, tuple[Repository, str]] = {}
        self.repositories: dict[str, Repository] = {}
        self.elsewhere: list[str] = []
        self.writing = threading.RLock()
        self.secret = os.urandom(16)
        self.other_url = f"http://localhost:{self.port}"

    def environment(self, home: str | Path, user: str | None = OWNER) -> dict[str, str]:
        """What a client process needs to find this server and no other, with its caches in a
        folder. Its requests to any other host come here too and are refused."""
        found = {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": f"hf_{user}" if user else "",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": f"{home}/hub",
            "HF_DATASETS_CACHE": f"{home}/datasets",
            "HF_HUB_OFFLINE": "0",
            "HF_DATASETS_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "http_proxy": self.url,
            "https_proxy": self.url,
            "no_proxy": "127.0.0.1,localhost",
        }
        if not isinstance(self.store, ChunkStore):
            return found | {"HF_HUB_DISABLE_XET": "1"}
        return found | {"HF_HUB_DISABLE_XET": "0", "HF_XET_CACHE": f"{home}/xet"} | XET

    def forget(self) -> None:
        super().forget()
        self.elsewhere.clear()

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """What is stored, tampered with or not."""
        files = self.repositories[repo].find(revision).files
        return {path: self.store.path(file.key).read_bytes() for path, file in files.items()}

    def commits(self, repo: str, revision: str = "main") -> list[Commit]:
        """Newest first."""
        return list(self.repositories[repo].find(revision).line())

    def tamper(
        self, repo: str, path: str, change: Callable[[bytes], bytes], revision: str = "main"
    ) -> None:
        """Other bytes under the same hash, wherever they are used. Of a file in chunks, these as
        they lie in the xorb that it begins in."""
        self.store.tamper(self.repositories[repo].find(revision).files[path].key, change)

    def sign(self, path: str) -> str:
        signature = hmac.new(self.secret, path.encode(), "sha256").hexdigest()
        return f"{self.other_url}{path}?signature={signature}"

    def match(self, environ: dict) -> tuple[Route | None, dict[str, str]]:
        method = {"HEAD": "GET"}.get(environ["REQUEST_METHOD"], environ["REQUEST_METHOD"])
        path = urlsplit(environ["RAW_URI"]).path
        for entered in ROUTES:
            found = entered.pattern.fullmatch(path)
            if found and entered.method == method and self.is_here(environ):
                parts = found.groupdict(default="")
                return entered, {name: unquote(part) for name, part in parts.items()}
        return None, {}

    def is_here(self, environ: dict) -> bool:
        return f"http://{environ.get('HTTP_HOST')}" in (self.url, self.other_url)

    def label(self, environ: dict) -> tuple[str, str]:
        entered, _ = self.match(environ)
        kind = entered.kind if entered else "unknown" if self.is_here(environ) else "elsewhere"
        return environ["REQUEST_METHOD"], kind

    def answer(self, environ: dict, start_response: Any) -> Iterable[bytes]:
        try:
            answer = self.respond(Ask(environ))
            response = answer if isinstance(answer, Response) else as_json(answer)
        except Refused as refused:
            response = as_json({"error": str(refused)}, refused.status, refused.headers)
        except HTTPException as error:
            response = Response.force_type(error.get_response(environ), environ)
        response.headers["X-Request-Id"] = f"Root=1-{uuid.uuid4().hex}"
        return response(environ, start_response)

    def respond(self, ask: Ask) -> Any:
        entered, parts = self.match(ask.environ)
        if not self.is_here(ask.environ):
            self.elsewhere.append(f"{ask.method} {ask.environ['RAW_URI']}")
            raise Refused(404, "Not found")
        if entered and entered.signed:
            self.check_signature(ask)
            return entered.action(self, ask, **parts)
        if entered and entered.scope and isinstance(self.store, ChunkStore):
            return entered.action(self, ask, self.xet_repository(ask, entered.scope), **parts)
        ask.user = self.user(ask)
        if not entered or entered.scope:
            raise self.not_found(ask)
        found: dict[str, Any] = dict(parts)
        if "repo" in parts:
            found["repo"] = self.reach(ask, parts["repo"], entered.writes)
        if "commit" in parts:
            found["commit"] = found["repo"].find(parts["commit"] or "main")
        return entered.action(self, ask, **found)

    def check_signature(self, ask: Ask) -> None:
        if "Authorization" in ask.headers:
            raise Refused(400, "Only one auth mechanism allowed")
        if not self.sign(ask.path).endswith(f"?signature={ask.args.get('signature')}"):
            raise Refused(403, "SignatureDoesNotMatch")

    def xet_repository(self, ask: Ask, scope: str) -> Repository:
        token = ask.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.xet_tokens:
            raise Refused(401, "Unauthorized")
        repo, allowed = self.xet_tokens[token]
        if scope == "write" and allowed != "write":
            raise Refused(403, "Forbidden")
        return repo

    def user(self, ask: Ask) -> str | None:
        token = ask.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            return None
        if token not in (f"hf_{OWNER}", f"hf_{READER}"):
            raise Refused(401, "Invalid credentials in Authorization header")
        return token.removeprefix("hf_")

    def not_found(self, ask: Ask) -> Refused:
        """The same for what isn't there and for what isn't to be seen."""
        if ask.user:
            return Refused(404, "Repository not found", "RepoNotFound")
        return Refused(401, "Invalid username or password.", "RepoNotFound")

    def reach(self, ask: Ask, name: str, writes: bool) -> Repository:
        repo, role = self.repositories.get(name), role_in(name.split("/")[0], ask.user)
        if repo is None or (repo.private and not role):
            raise self.not_found(ask)
        if writes:
            check_writer(ask, role)
        return repo


def role_in(namespace: str, user: str | None) -> str | None:
    return ROLES.get(namespace, {}).get(user or "")


def check_writer(ask: Ask, role: str | None) -> None:
    if not ask.user:
        raise Refused(401, "Invalid username or password.")
    if role == "read":
        raise Refused(403, "Forbidden: you must use a write token to upload to a repository.")
    if role != "write":
        raise Refused(403, "Forbidden: you don't have the rights to write here.")


def as_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(content), status, headers, mimetype="application/json")
