"""What the Hub tells of repositories, and how it gives their files."""

import hashlib
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from werkzeug.utils import redirect, send_file
from werkzeug.wrappers import Response

from tests.hub.repository import Commit, File, Repository, pointer
from tests.hub.rules import Refused, read_header
from tests.hub.server import ORGANIZATION, Ask, Hub, as_json, role_in, route


@route("GET", "/api/whoami-v2")
def whoami(hub: Hub, ask: Ask) -> Any:
    if not ask.user:
        raise Refused(401, "Invalid username or password.")
    token = {"displayName": "test", "role": role_in(ask.user, ask.user)}
    return {
        "type": "user",
        "name": ask.user,
        "orgs": [{"type": "org", "name": ORGANIZATION}],
        "auth": {"type": "access_token", "accessToken": token},
    }


@route("GET", "/api/datasets/{repo}(?:/revision/{commit})?")
def info(hub: Hub, ask: Ask, repo: Repository, commit: Commit) -> Any:
    siblings: list[dict[str, Any]] = [{"rfilename": path} for path in sorted(commit.files)]
    if flag(ask.args.get("blobs")):
        for sibling in siblings:
            file = commit.files[sibling["rfilename"]]
            sibling |= {"size": file.size, "blobId": file.oid}
            if file.sha256:
                sibling["lfs"] = lfs(file) | {"sha256": file.sha256}
    header, _ = read_header(repo.text(commit, "README.md"))
    return {
        "_id": hashlib.sha1(repo.name.encode()).hexdigest()[:24],
        "id": repo.name,
        "author": repo.name.split("/")[0],
        "sha": commit.oid,
        "createdAt": when(list(commit.line())[-1].date),
        "lastModified": when(commit.date),
        "private": repo.private,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "cardData": header or None,
        "siblings": siblings,
    }


@route("GET", "/api/datasets/{repo}/refs")
def refs(hub: Hub, ask: Ask, repo: Repository) -> Any:
    told = {
        kind: [
            {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": commit.oid}
            for name, commit in named.items()
        ]
        for kind, folder, named in (
            ("branches", "heads", repo.branches),
            ("tags", "tags", repo.tags),
        )
    }
    return told | {"converts": [], "pullRequests": []}


@route("GET", "/api/datasets/{repo}/commits/{commit}")
def commits(hub: Hub, ask: Ask, repo: Repository, commit: Commit) -> Any:
    told = [
        {
            "id": before.oid,
            "title": before.title,
            "message": before.message,
            "authors": [{"user": before.author}],
            "date": when(before.date),
        }
        for before in commit.line()
    ]
    return page(hub, ask, told)


@route("GET", "/api/datasets/{repo}/tree/{commit}(?:/{path})?")
def tree(hub: Hub, ask: Ask, repo: Repository, commit: Commit, path: str = "") -> Any:
    found = commit.under(path)
    if not found:
        raise Refused(404, f'{path} does not exist on "{commit.oid}"', "EntryNotFound")
    above = len(path.split("/")) if path else 0
    depth = None if flag(ask.args.get("recursive")) else above + 1
    entries = {path} if path in found else set()
    for name in found:
        parts = name.split("/")[:depth]
        entries |= {"/".join(parts[:n]) for n in range(above + 1, len(parts) + 1)}
    expanded = flag(ask.args.get("expand"))
    return page(hub, ask, [entry(commit, name, expanded) for name in sorted(entries)])


@route("POST", "/api/datasets/{repo}/paths-info/{commit}")
def paths_info(hub: Hub, ask: Ask, repo: Repository, commit: Commit) -> Any:
    paths = [path.strip("/") for path in ask.form.getlist("paths")]
    if len(paths) > 1000:
        raise Refused(413, "too many parameters")
    expanded = flag(ask.form.get("expand"))
    return [entry(commit, path, expanded) for path in paths if commit.under(path)]


@route("GET", "/datasets/{repo}/resolve/{commit}/{path}")
def resolve(hub: Hub, ask: Ask, repo: Repository, commit: Commit, path: str) -> Response:
    file, headers = commit.files.get(path), {"X-Repo-Commit": commit.oid}
    if file is None:
        raise Refused(404, "Entry not found", "EntryNotFound", **headers)
    if file.sha256:
        response = redirect(hub.sign(f"/cdn/{repo.name}/{file.sha256}"))
        response.data = b""
        headers |= {"X-Linked-Size": str(file.size), "X-Linked-Etag": f'"{file.sha256}"'}
        if file.xet_hash:
            token = f"{hub.url}/api/datasets/{repo.name}/xet-read-token/{commit.oid}"
            place = f"{hub.other_url}/v1/reconstructions/{file.xet_hash}"
            headers |= {
                "X-Xet-Hash": file.xet_hash,
                "Link": f'<{token}>; rel="xet-auth", <{place}>; rel="xet-reconstruction-info"',
            }
    else:
        response = content(hub, ask, file.key, "text/plain")
    response.headers.update(headers)
    return response


@route("GET", "/cdn/[^/]+/[^/]+/{key}", signed=True)
def cdn(hub: Hub, ask: Ask, key: str) -> Response:
    return content(hub, ask, key, "application/octet-stream")


def content(hub: Hub, ask: Ask, key: str, mimetype: str) -> Response:
    """With ranges, and nothing where the client has it."""
    return send_file(hub.store.path(key), ask.environ, mimetype, etag=key)


def page(hub: Hub, ask: Ask, items: list[Any]) -> Response:
    start = int(ask.args.get("cursor", 0))
    end = start + hub.page_entries
    response = as_json(items[start:end])
    if end < len(items):
        rest = ask.args.to_dict() | {"cursor": str(end)}
        response.headers["Link"] = f'<{ask.base_url}?{urlencode(rest)}>; rel="next"'
    return response


def entry(commit: Commit, path: str, expanded: bool) -> dict[str, Any]:
    file = commit.files.get(path)
    if file:
        told = {"type": "file", "oid": file.oid, "size": file.size, "path": path}
        if file.sha256:
            told["lfs"] = lfs(file) | {"oid": file.sha256}
        if file.xet_hash:
            told["xetHash"] = file.xet_hash
    else:
        listing = repr(sorted(commit.under(path).items())).encode()
        told = {
            "type": "directory",
            "oid": hashlib.sha1(listing).hexdigest(),
            "size": 0,
            "path": path,
        }
    if expanded:
        changed = commit.last_change(path)
        told["lastCommit"] = {
            "id": changed.oid,
            "title": changed.title,
            "date": when(changed.date),
        }
    return told


def lfs(file: File) -> dict[str, Any]:
    return {"size": file.size, "pointerSize": len(pointer(file.sha256 or "", file.size))}


def flag(value: str | None) -> bool:
    return (value or "").lower() in ("true", "1")


def when(date: datetime) -> str:
    return date.isoformat(timespec="milliseconds").replace("+00:00", "Z")
