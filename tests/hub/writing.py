"""How repositories come to be and change: uploads, commits, branches and tags."""

import binascii
import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from werkzeug.wrappers import Response

from tests.hub.repository import Commit, File, Repository
from tests.hub.rules import (
    INLINE_BYTES,
    Refused,
    check_name,
    check_path,
    ignored,
    must_be_lfs,
    read_header,
)
from tests.hub.server import Ask, Hub, as_json, check_writer, role_in, route

STALE = "A commit has happened since. Please refresh and try again."
NO_OBJECT = (
    "Your push was rejected because an LFS pointer pointed to a file that does not exist. For "
    "instance, this can happen if you used git push --no-verify to push your changes. "
    "Offending file: - "
)
TOO_LARGE = (
    "Your push was rejected because it contains files larger than 10 MiB. Please use "
    "https://git-lfs.github.com/ to store large files. Offending files: - "
)


@route("POST", "/api/repos/create")
def create(hub: Hub, ask: Ask) -> Any:
    told = ask.get_json()
    if not ask.user:
        raise Refused(401, "Invalid username or password.")
    if told.get("type") != "dataset":
        raise Refused(400, f"There are datasets here, and no {told.get('type') or 'model'}s")
    space = told.get("organization") or ask.user
    check_name(told.get("name"))
    check_writer(ask, role_in(space, ask.user))
    name = f"{space}/{told['name']}"
    with hub.writing:
        made = name not in hub.repositories
        if made:
            private = told.get("visibility") == "private"
            hub.repositories[name] = Repository(name, ask.user, private, hub.store)
    place = {"url": f"{hub.url}/datasets/{name}", "name": name}
    if made:
        return place
    return as_json(place | {"error": "You already created this dataset repo"}, 409)


@route("POST", "/api/validate-yaml")
def validate_yaml(hub: Hub, ask: Ask) -> Response:
    header, wrong = read_header(ask.get_json()["content"])
    empty = "empty or missing yaml metadata in repo card"
    warnings = [] if header or wrong else [{"message": empty}]
    errors = [{"message": message} for message in wrong]
    return as_json({"errors": errors, "warnings": warnings}, 400 if wrong else 200)


@route("POST", "/api/datasets/{repo}/preupload/{commit}", writes=True)
def preupload(hub: Hub, ask: Ask, repo: Repository, commit: Commit) -> Any:
    told = ask.get_json()
    if len(told["files"]) > 256:
        raise Refused(413, "too many files")
    attributes = repo.text(commit, ".gitattributes")
    rules = told.get("gitIgnore", repo.text(commit, ".gitignore"))
    answers = []
    for asked in told["files"]:
        path, known = asked["path"], commit.files.get(asked["path"])
        check_path(path)
        large = must_be_lfs(path, asked["size"], b64decode(asked["sample"]), attributes)
        answers.append(
            {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": ignored(path, rules),
                "oid": known and known.key,
            }
        )
    return {"files": answers}


@route("POST", r"/datasets/{repo}\.git/info/lfs/objects/batch", writes=True)
def lfs_batch(hub: Hub, ask: Ask, repo: Repository) -> Any:
    """No action for what the repository has."""
    told = ask.get_json(force=True)
    if told["operation"] != "upload" or told.get("hash_algo", "sha256") != "sha256":
        raise Refused(400, "Only uploads, by sha256")
    answers = []
    for asked in told["objects"]:
        oid, size = asked["oid"], asked["size"]
        answer = {"oid": oid, "size": size, "authenticated": True}
        if not re.fullmatch("[0-9a-f]{64}", oid) or size < 1:
            answer["error"] = {"code": 422, "message": "not an object"}
        elif oid not in repo.objects:
            verify = f"{hub.url}/datasets/{repo.name}.git/info/lfs/objects/verify"
            place = f"{repo.name}/{oid}/{size}"
            upload: dict[str, Any] = {"href": hub.sign(f"/upload/{place}")}
            if size > hub.part_bytes:
                parts = range(1, -(-size // hub.part_bytes) + 1)
                upload["header"] = {
                    "chunk_size": str(hub.part_bytes),
                    **{f"{part:05}": hub.sign(f"/upload/{place}/{part}") for part in parts},
                }
            answer["actions"] = {"upload": upload, "verify": {"href": verify}}
        answers.append(answer)
    return {"transfer": "basic", "objects": answers}


@route("PUT", "/upload/{repo_name}/{oid}/{size}", signed=True)
def upload(hub: Hub, ask: Ask, repo_name: str, oid: str, size: str) -> Response:
    keep_object(hub, repo_name, oid, int(size), body(ask))
    return Response(headers={"ETag": f'"{oid}"'})


@route("PUT", "/upload/{repo_name}/{oid}/{size}/{part}", signed=True)
def upload_part(hub: Hub, ask: Ask, repo_name: str, oid: str, size: str, part: str) -> Response:
    key = f"{oid}.{part}"
    hub.store.put(key, body(ask), lambda draft: None)
    return Response(headers={"ETag": etag(hub.store.path(key))})


@route("POST", "/upload/{repo_name}/{oid}/{size}", signed=True)
def complete_upload(hub: Hub, ask: Ask, repo_name: str, oid: str, size: str) -> Any:
    """Puts the parts together that were sent and are told of."""
    parts = [
        (hub.store.path(f"{oid}.{p['partNumber']}"), p["etag"])
        for p in ask.get_json(force=True)["parts"]
    ]
    if not all(path.exists() and etag(path) == told for path, told in parts):
        raise Refused(400, "InvalidPart")
    chunks = (path.read_bytes() for path, _ in parts)
    keep_object(hub, repo_name, oid, int(size), chunks)
    for path, _ in parts:
        path.unlink(missing_ok=True)
    return {}


def keep_object(hub: Hub, repo_name: str, oid: str, size: int, chunks: Iterator[bytes]) -> None:
    def check(draft: Path) -> None:
        if draft.stat().st_size != size:
            raise Refused(400, f"EntityTooSmall or EntityTooLarge: {size} bytes were announced")
        with draft.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != oid:
                raise Refused(400, f"XAmzContentSHA256Mismatch: {oid} was announced")

    hub.store.put(oid, chunks, check)
    hub.repositories[repo_name].objects.add(oid)


@route("POST", r"/datasets/{repo}\.git/info/lfs/objects/verify", writes=True)
def lfs_verify(hub: Hub, ask: Ask, repo: Repository) -> Any:
    told = ask.get_json(force=True)
    if told["oid"] not in repo.objects:
        raise Refused(404, "Object not found")
    return {}


@route("POST", "/api/datasets/{repo}/commit/{branch}", writes=True)
def commit(hub: Hub, ask: Ask, repo: Repository, branch: str) -> Any:
    """A commit with the files it had before is a commit too."""
    if ask.args.get("create_pr"):
        raise Refused(400, "There are no pull requests here")
    lines = [json.loads(line) for line in ask.get_data().split(b"\n") if line]
    told = lines[0]["value"] if lines and lines[0]["key"] == "header" else {}
    if not told.get("summary"):
        raise Refused(400, "A commit begins with a header that has a summary")
    with hub.writing:
        if branch not in repo.branches:
            repo.find(branch)
            raise Refused(400, f"Not a branch: {branch}")
        before = repo.branches[branch]
        if not before.oid.startswith(told.get("parentCommit") or ""):
            raise Refused(412, STALE)
        files = dict(before.files)
        for line in lines[1:]:
            CHANGES[line["key"]](hub, repo, files, line["value"])
        made = Commit(before, told["summary"], told.get("description", ""), ask.user or "", files)
        repo.add(branch, made)
    url = f"{hub.url}/datasets/{repo.name}/commit/{made.oid}"
    return {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""}


def add_file(hub: Hub, repo: Repository, files: dict[str, File], told: dict[str, Any]) -> None:
    path = told["path"]
    check_path(path)
    try:
        content = b64decode(told["content"], validate=True)
    except binascii.Error as error:
        raise Refused(400, f"{path} isn't base64: {error}") from None
    if len(content) > INLINE_BYTES:
        raise Refused(400, TOO_LARGE + path)
    if path == "README.md":
        _, wrong = read_header(content.decode(errors="replace"))
        if wrong:
            raise Refused(400, "Invalid metadata in README.md: " + "; ".join(wrong))
    files[path] = hub.store.put_blob(content)


def add_lfs_file(hub: Hub, repo: Repository, files: dict[str, File], told: dict[str, Any]) -> None:
    path, oid = told["path"], told["oid"]
    check_path(path)
    size = hub.store.path(oid).stat().st_size if oid in repo.objects else None
    if size is None or told.get("size", size) != size:
        raise Refused(400, NO_OBJECT + path)
    files[path] = File.lfs(oid, size, hub.store.xet_hash(oid))


def delete_file(hub: Hub, repo: Repository, files: dict[str, File], told: dict[str, Any]) -> None:
    if files.pop(told["path"], None) is None:
        raise Refused(404, "A file with this name doesn't exist", "EntryNotFound")


def delete_folder(hub: Hub, repo: Repository, files: dict[str, File], told: dict[str, Any]) -> None:
    gone = [path for path in files if path.startswith(told["path"].rstrip("/") + "/")]
    if not gone:
        raise Refused(404, "A folder with this name doesn't exist", "EntryNotFound")
    for path in gone:
        del files[path]


CHANGES = {
    "file": add_file,
    "lfsFile": add_lfs_file,
    "deletedFile": delete_file,
    "deletedFolder": delete_folder,
}


@route("POST", "/api/datasets/{repo}/branch/{branch}", writes=True)
def create_branch(hub: Hub, ask: Ask, repo: Repository, branch: str) -> Any:
    start = repo.find(ask.get_json().get("startingPoint", "main"))
    enter(hub, repo.branches, branch, start)
    return {}


@route("POST", "/api/datasets/{repo}/tag/{commit}", writes=True)
def create_tag(hub: Hub, ask: Ask, repo: Repository, commit: Commit) -> Any:
    enter(hub, repo.tags, ask.get_json()["tag"], commit)
    return {}


@route("DELETE", "/api/datasets/{repo}/branch/{branch}", writes=True)
def delete_branch(hub: Hub, ask: Ask, repo: Repository, branch: str) -> Any:
    if branch == "main":
        raise Refused(403, "Cannot delete refs/heads/main")
    return take_out(repo.branches, branch)


@route("DELETE", "/api/datasets/{repo}/tag/{tag}", writes=True)
def delete_tag(hub: Hub, ask: Ask, repo: Repository, tag: str) -> Any:
    return take_out(repo.tags, tag)


def enter(hub: Hub, named: dict[str, Commit], name: str, commit: Commit) -> None:
    if not re.fullmatch(r"[\w.\-]+(/[\w.\-]+)*", name) or name.startswith("refs/"):
        raise Refused(400, f"Invalid reference: {name!r}")
    with hub.writing:
        if name in named:
            raise Refused(409, f"Reference {name} already exists")
        named[name] = commit


def take_out(named: dict[str, Commit], name: str) -> dict:
    if named.pop(name, None) is None:
        raise Refused(404, f"Invalid rev id: {name}", "RevisionNotFound")
    return {}


def body(ask: Ask) -> Iterator[bytes]:
    return iter(lambda: ask.stream.read(2**20), b"")


def etag(path: Path) -> str:
    return f'"{hashlib.md5(path.read_bytes()).hexdigest()}"'
