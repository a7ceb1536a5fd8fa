"""How Xet clients send and get large files: a token for a repository, then chunks in xorbs.

It speaks the first version of each call, as documented, and answers 404 to newer ones, on which
clients fall back, and to those who ask for chunks that others have sent.
"""

import re
import time
import uuid
from typing import Any

from werkzeug.utils import send_file
from werkzeug.wrappers import Response

from tests.hub.chunks import ChunkStore, Recipe, read_shard
from tests.hub.repository import Commit, Repository
from tests.hub.rules import Refused
from tests.hub.server import Ask, Hub, as_json, route

SECONDS = 3600  # that a token is good for
XORB_BYTES = 64 * 2**20


@route("GET", "/api/datasets/{repo}/xet-read-token/{commit}")
def read_token(hub: Hub, ask: Ask, repo: Repository, commit: Commit) -> Response:
    return make_token(hub, ask, repo, "read")


@route("GET", "/api/datasets/{repo}/xet-write-token/{commit}", writes=True)
def write_token(hub: Hub, ask: Ask, repo: Repository, commit: Commit) -> Response:
    return make_token(hub, ask, repo, "write")


def make_token(hub: Hub, ask: Ask, repo: Repository, scope: str) -> Response:
    if not isinstance(hub.store, ChunkStore):
        raise hub.not_found(ask)
    token, end = f"xet_{uuid.uuid4().hex}", int(time.time()) + SECONDS
    hub.xet_tokens[token] = repo, scope
    told = {"accessToken": token, "exp": end, "casUrl": hub.other_url}
    headers = {
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(end),
        "X-Xet-Cas-Url": hub.other_url,
    }
    return as_json(told, headers=headers)


@route("POST", "/v1/xorbs/default/{name}", scope="write")
def xorb(hub: Hub, ask: Ask, repo: Repository, name: str) -> Any:
    content = ask.get_data()
    if not re.fullmatch("[0-9a-f]{64}", name) or not 0 < len(content) <= XORB_BYTES:
        raise Refused(400, "not a xorb")
    return {"was_inserted": chunks(hub).add_xorb(name, content)}


@route("POST", "/v1/shards", scope="write")
def shard(hub: Hub, ask: Ask, repo: Repository) -> Any:
    found = read_shard(ask.get_data())
    for recipe in found:
        chunks(hub).add(recipe)
        repo.objects.add(recipe.sha256)
    return {"result": 1}


@route("GET", "/v1/reconstructions/{name}", scope="read")
def reconstruction(hub: Hub, ask: Ask, repo: Repository, name: str) -> Any:
    """The chunks of a file, or of what a range of it is in, and where they are fetched."""
    recipe = chunks(hub).recipes.get(name)
    if recipe is None or recipe.sha256 not in repo.objects:
        raise Refused(404, "File not found")
    return tell(hub, recipe, *wanted(ask, recipe.size))


def wanted(ask: Ask, size: int) -> tuple[int, int]:
    ranges = ask.range.ranges if ask.range else [(0, None)]
    start, end = ranges[0]
    if start is None or start >= size:
        raise Refused(416, "Range not satisfiable")
    return start, size if end is None else min(end, size)


def tell(hub: Hub, recipe: Recipe, start: int, end: int) -> dict[str, Any]:
    at, skipped, terms, places = 0, 0, [], {}
    for term in recipe.terms:
        begin, at = at, at + term.size
        if at <= start or begin >= end:
            continue
        if not terms:
            skipped = start - begin
        span = {"start": term.start, "end": term.end}
        terms.append({"hash": term.xorb, "unpacked_length": term.size, "range": span})
        found = chunks(hub).edges[term.xorb]
        first, last = found[term.start], found[term.end] - 1
        places.setdefault(term.xorb, []).append(
            {
                "range": span,
                "url": hub.sign(f"/xorbs/{term.xorb}/{first}-{last}"),
                "url_range": {"start": first, "end": last},
            }
        )
    return {"offset_into_first_range": skipped, "terms": terms, "fetch_info": places}


@route("GET", "/xorbs/{name}/{span}", signed=True)
def chunk_range(hub: Hub, ask: Ask, name: str, span: str) -> Response:
    """The bytes that the URL was made for, and no others."""
    if ask.headers.get("Range") != f"bytes={span}":
        raise Refused(403, "AccessDenied")
    return send_file(chunks(hub).xorb(name), ask.environ, "application/octet-stream", etag=name)


@route("GET", r"/v\d/.+", scope="read")
def newer_get(hub: Hub, ask: Ask, repo: Repository) -> Any:
    raise Refused(404, "Not found")


@route("POST", r"/v\d/.+", scope="read")
def newer_post(hub: Hub, ask: Ask, repo: Repository) -> Any:
    raise Refused(404, "Not found")


def chunks(hub: Hub) -> ChunkStore:
    assert isinstance(hub.store, ChunkStore)
    return hub.store
