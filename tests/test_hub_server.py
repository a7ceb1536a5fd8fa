"""The stand-in Hub, held against the real clients, which run in processes of their own."""

import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub.errors import HfHubHTTPError

from tests.hub import ORGANIZATION, OWNER, READER, Hub, client
from tests.loopback import once

ROWS = 60
DATA, OTHER = (f"data/train-{n:05}-of-00002.parquet" for n in range(2))
CARD = """---
tags: [soft-labels]
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*.parquet}
---
# Rows
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Hub(tmp_path_factory.mktemp("hub")) as found:
        yield found


@pytest.fixture(scope="module")
def run(server, tmp_path_factory):
    with client(server.environment(tmp_path_factory.mktemp("home"))) as found:
        yield found


@pytest.fixture
def repo(server, run, tmp_path) -> str:
    name = f"{OWNER}/{tmp_path.name}"
    run(call, "create_repo", name)
    server.forget()
    return name


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "folder"
    (place / "data").mkdir(parents=True)
    for n, name in enumerate((DATA, OTHER)):
        table = pa.table({"id": range(n * ROWS, (n + 1) * ROWS), "label": [n] * ROWS})
        pq.write_table(table, place / name)
    (place / "README.md").write_text(CARD)
    (place / "plan.json").write_text("{}")
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def call(method: str, *args: Any, **words: Any) -> Any:
    """In a client's process, as what follows."""
    found = getattr(HfApi(), method)(*args, repo_type="dataset", **words)
    return list(found) if method == "list_repo_tree" else found


def refusal(method: str, *args: Any, **words: Any) -> tuple[str, int]:
    try:
        call(method, *args, **words)
    except HfHubHTTPError as error:
        return type(error).__name__, error.response.status_code
    raise AssertionError("it was let through")


def on_files(method: str, *args: Any, **words: Any) -> Any:
    return getattr(HfFileSystem(), method)(*args, **words)


def test_a_folder_goes_up_once_and_comes_down(server, run, repo, folder, tmp_path):
    made = run(call, "upload_folder", repo_id=repo, folder_path=folder)
    stored = server.files(repo)
    assert set(stored) == {*contents(folder), ".gitattributes"}
    assert {name: stored[name] for name in contents(folder)} == contents(folder)
    shards = sum(len(content) for name, content in stored.items() if name.endswith(".parquet"))
    assert server.received["PUT", "upload"] == shards
    first, initial = server.commits(repo)
    assert (first.oid, initial.title) == (made.oid, "initial commit")

    server.forget()
    assert run(call, "upload_folder", repo_id=repo, folder_path=folder).oid == made.oid
    assert server.received["PUT", "upload"] == server.requests["POST", "commit"] == 0
    (folder / DATA).write_bytes(b"other\0")
    run(call, "upload_folder", repo_id=repo, folder_path=folder)
    (folder / "again.parquet").write_bytes(b"other\0")
    run(call, "upload_folder", repo_id=repo, folder_path=folder)
    assert server.received["PUT", "upload"] == len(b"other\0")

    server.forget()
    run(call, "snapshot_download", repo, local_dir=tmp_path / "down")
    assert contents(tmp_path / "down") == server.files(repo)
    assert server.sent["GET", "cdn"] == 2 * len(b"other\0") + (folder / OTHER).stat().st_size


def test_what_is_there_is_told(server, run, repo, folder, monkeypatch):
    run(call, "upload_folder", repo_id=repo, folder_path=folder)
    info = run(call, "repo_info", repo, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings}
    assert sizes == {name: len(content) for name, content in server.files(repo).items()}
    assert info.card_data.tags == ["soft-labels"]
    assert not info.private
    monkeypatch.setattr(server, "page_entries", 2)
    entries = run(call, "list_repo_tree", repo, recursive=True, expand=True)
    assert server.requests["GET", "tree"] == 3
    assert {entry.path for entry in entries} == {*sizes, "data"}
    shard = next(entry for entry in entries if entry.path == DATA)
    file = server.commits(repo)[0].files[DATA]
    assert (shard.blob_id, shard.lfs.sha256, shard.size) == (file.oid, file.sha256, file.size)
    assert shard.last_commit.title == "Upload folder using huggingface_hub"
    assert [entry.path for entry in run(call, "list_repo_tree", repo, "data")] == [DATA, OTHER]
    found = run(call, "get_paths_info", repo, ["data", "README.md", "nothing"])
    assert [entry.path for entry in found] == ["data", "README.md"]


def test_history_branches_and_tags(server, run, repo):
    words = {"path_in_repo": "a.txt", "repo_id": repo}
    one = run(call, "upload_file", path_or_fileobj=b"1", **words)
    run(call, "create_tag", repo, tag="v1")
    run(call, "create_branch", repo, branch="side/way", revision="v1")
    two = run(call, "upload_file", path_or_fileobj=b"2", parent_commit=one.oid, **words)
    run(call, "upload_file", path_or_fileobj=b"3", revision="side/way", **words)
    for revision, content in (("main", b"2"), ("v1", b"1"), (one.oid, b"1"), (two.oid[:7], b"2"),
                              ("side/way", b"3")):  # fmt: skip
        assert server.files(repo, revision)["a.txt"] == content
        path = run(call, "hf_hub_download", repo, "a.txt", revision=revision)
        assert Path(path).read_bytes() == content
    stale = {"path_or_fileobj": b"4", "parent_commit": one.oid}
    assert run(refusal, "upload_file", **stale, **words) == ("HfHubHTTPError", 412)
    refs = run(call, "list_repo_refs", repo)
    assert [ref.name for ref in refs.branches] == ["main", "side/way"]
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1", one.oid)]
    assert run(refusal, "create_tag", repo, tag="v1") == ("HfHubHTTPError", 409)
    run(call, "create_tag", repo, tag="v1", exist_ok=True)
    assert run(refusal, "create_branch", repo, branch="main") == ("HfHubHTTPError", 409)
    run(call, "delete_tag", repo, tag="v1")
    run(call, "delete_branch", repo, branch="side/way")
    missing = ("RevisionNotFoundError", 404)
    assert run(refusal, "delete_tag", repo, tag="v1") == missing
    assert run(refusal, "upload_file", path_or_fileobj=b"5", revision="v1", **words) == missing
    run(call, "delete_file", "a.txt", repo)
    assert set(server.files(repo)) == {".gitattributes"}
    titles = [commit.title for commit in run(call, "list_repo_commits", repo)]
    upload = "Upload a.txt with huggingface_hub"
    assert titles == ["Delete a.txt with huggingface_hub", upload, upload, "initial commit"]


def test_a_commit_without_changes_is_a_commit(server, run, repo):
    """`create_commit` leaves out what the Hub has, but not what is deleted as well."""
    name = ".gitattributes"
    gone, back = CommitOperationDelete(name), CommitOperationAdd(name, server.files(repo)[name])
    run(call, "create_commit", repo, [gone, back], commit_message="nothing")
    after, before = server.commits(repo)
    assert after.files == before.files


def test_who_may_do_what(server, run, repo):
    private, shared = f"{repo}-private", f"{ORGANIZATION}/{repo.split('/')[1]}"
    for name in (private, shared):
        run(call, "create_repo", name, private=True)
    run(call, "create_repo", private, exist_ok=True)
    assert run(refusal, "create_repo", private) == ("HfHubHTTPError", 409)
    reader, file = f"hf_{READER}", {"path_or_fileobj": b"1", "path_in_repo": "a.txt"}
    missing = "RepositoryNotFoundError"
    for token, name, read, write in (
        (False, repo, None, 401),
        (False, private, (missing, 401), 401),
        (reader, repo, None, 403),
        (reader, private, (missing, 404), 404),
        (reader, shared, None, 403),
        ("hf_wrong", repo, ("HfHubHTTPError", 401), 401),
        (None, f"{repo}-missing", (missing, 404), 404),
    ):
        if read:
            assert run(refusal, "repo_info", name, token=token) == read
        else:
            run(call, "repo_info", name, token=token)
        assert run(refusal, "upload_file", repo_id=name, **file, token=token)[1] == write
    for name, token, status in ((f"{READER}/x", None, 403), ("x", reader, 403), ("x", False, 401)):
        assert run(refusal, "create_repo", name, token=token)[1] == status
    assert run(HfApi(endpoint=server.url).whoami)["name"] == OWNER


def test_what_is_not_there(run, repo):
    assert run(refusal, "hf_hub_download", repo, "none") == ("RemoteEntryNotFoundError", 404)
    for method, args in (("repo_info", []), ("hf_hub_download", ["x"]), ("list_repo_tree", [])):
        found = run(refusal, method, repo, *args, revision="none")
        assert found == ("RevisionNotFoundError", 404)
    entry = ("RemoteEntryNotFoundError", 404)
    assert run(refusal, "list_repo_tree", repo, "none") == entry
    assert run(refusal, "delete_file", "none", repo) == entry
    assert run(refusal, "delete_folder", "none/", repo) == entry


REGULAR = {"_upload_mode": "regular"}


@pytest.mark.parametrize(
    ("path", "content", "told", "said"),
    [
        ("a.bin", b"1\0", {"sha256": bytes(32)}, "XAmzContentSHA256Mismatch"),
        ("a.bin", b"2\0", {"size": 3}, "3 bytes were announced"),
        ("a.bin", b"3\0", {"_upload_mode": "lfs", "_is_uploaded": True}, "that does not exist"),
        ("a.txt", bytes(10 * 2**20 + 1), REGULAR, "larger than 10 MiB"),
        ("../a.txt", b"", REGULAR, "Invalid path"),
        ("/a.txt", b"", REGULAR, "Invalid path"),
        ("a/.git/config", b"", REGULAR, "Invalid path"),
        ("README.md", b"---\ntags: x\n---", REGULAR, '"tags" must be list'),
        ("README.md", b"---\na: [\n---", REGULAR, "while parsing a flow node"),
    ],
)  # fmt: skip
def test_a_commit_that_is_refused(server, run, repo, path, content, told, said):
    addition = CommitOperationAdd("x.bin", content)
    addition.path_in_repo = path
    for name, value in told.items():
        setattr(addition if name.startswith("_") else addition.upload_info, name, value)
    with pytest.raises((OSError, RuntimeError, ValueError)) as caught:
        run(call, "create_commit", repo, [addition], commit_message="x")
    assert said in str(caught.value.__cause__)
    assert len(server.commits(repo)) == 1


def test_a_card_that_is_refused_stops_an_upload_before_it_begins(server, run, repo, folder):
    (folder / "README.md").write_text("---\nconfigs: {}\n---\n")
    with pytest.raises(ValueError, match=r'Invalid metadata in README.md.\n- "configs" must be'):
        run(call, "upload_folder", repo_id=repo, folder_path=folder)
    assert set(server.requests) == {("POST", "validate_yaml")}


def test_gitignore_and_gitattributes(server, run, repo, folder):
    (folder / ".gitignore").write_text("*.json\n/data/train-00001*\n")
    (folder / "notes.lfs").write_text("text")
    run(call, "upload_file", repo_id=repo, path_or_fileobj=b"*.lfs filter=lfs\n",
        path_in_repo=".gitattributes")  # fmt: skip
    run(call, "upload_folder", repo_id=repo, folder_path=folder)
    files = server.commits(repo)[0].files
    assert set(files) == {".gitattributes", ".gitignore", "README.md", DATA, "notes.lfs"}
    assert files["notes.lfs"].sha256
    assert not files["README.md"].sha256


def test_the_file_system_reads_and_writes(server, run, repo, folder):
    run(call, "upload_folder", repo_id=repo, folder_path=folder)
    server.forget()
    root, content = f"hf://datasets/{repo}", (folder / DATA).read_bytes()
    assert run(on_files, "cat_file", f"{root}/{DATA}", 10, 30, cache_type="none") == content[10:30]
    assert server.sent["GET", "cdn"] == 20
    run(on_files, "pipe_file", f"{root}/new.parquet", b"2\0")
    assert server.files(repo)["new.parquet"] == b"2\0"
    found = run(on_files, "glob", f"{root}/**/*.parquet")
    assert found == [f"datasets/{repo}/{name}" for name in (DATA, OTHER, "new.parquet")]


def test_an_upload_that_is_cut_is_taken_up(server, run, repo, monkeypatch):
    """In parts: what has come whole isn't sent again."""
    content, words = os.urandom(3_500_000), {"repo_id": repo, "path_in_repo": "a.bin"}
    monkeypatch.setattr(server, "part_bytes", 2**20)
    server.faults.append(once("cut", "PUT", "/2"))
    run(call, "upload_file", path_or_fileobj=content, **words)
    assert server.files(repo)["a.bin"] == content
    assert server.received["PUT", "upload_part"] == len(content) + 2**19
    monkeypatch.undo()
    server.faults.append(once("cut", "PUT", "/upload/"))
    run(call, "upload_file", path_or_fileobj=content[1:], **words)
    assert server.files(repo)["a.bin"] == content[1:]
    assert server.received["PUT", "upload"] == len(content) - 1 + (len(content) - 1) // 2
    assert not list(server.store.folder.glob("*.*")), "neither drafts nor parts"


def test_a_download_that_is_cut_begins_anew(server, run, repo):
    content = os.urandom(1000)
    run(call, "upload_file", repo_id=repo, path_or_fileobj=content, path_in_repo="a.bin")
    server.faults.append(once("cut", "GET", "/cdn/"))
    assert Path(run(call, "hf_hub_download", repo, "a.bin")).read_bytes() == content
    assert server.sent["GET", "cdn"] == 1500


def test_what_was_sent_before_a_failure_is_not_sent_again(server, run, repo, folder):
    server.faults.append(once(500, "POST", "/commit/"))
    assert run(refusal, "upload_folder", repo_id=repo, folder_path=folder)[1] == 500
    assert len(server.commits(repo)) == 1
    server.received.clear()
    run(call, "upload_folder", repo_id=repo, folder_path=folder)
    assert server.received["PUT", "upload"] == 0
    assert len(server.commits(repo)) == 2


def test_a_commit_whose_answer_is_lost_is_made(server, run, repo):
    server.faults.append(once("lost", "POST", "/commit/"))
    with pytest.raises(Exception, match="disconnected"):
        run(call, "upload_file", repo_id=repo, path_or_fileobj=b"1", path_in_repo="a.txt")
    assert server.files(repo)["a.txt"] == b"1"


def test_hanging_being_slow_and_failing(server, run, repo):
    server.faults.append(once("hang", "GET", "/api/datasets"))
    with pytest.raises(Exception, match="timed out"):
        run(call, "repo_info", repo, timeout=0.2)
    server.faults[:] = [once(0.3, "GET", ""), once(503, "POST", "/preupload/")]
    run(call, "upload_file", repo_id=repo, path_or_fileobj=b"1", path_in_repo="a.txt")
    assert server.requests["POST", "preupload"] == 2


def test_tampering_keeps_the_hash(server, run, repo, folder):
    made = run(call, "upload_folder", repo_id=repo, folder_path=folder)
    for path in (DATA, "plan.json"):
        server.tamper(repo, path, lambda content: content[:-1] + b"!")
        found = Path(run(call, "hf_hub_download", repo, path)).read_bytes()
        assert found == contents(folder)[path][:-1] + b"!" == server.files(repo)[path]
    server.tamper(repo, DATA, lambda content: content[:-1])
    with pytest.raises(OSError, match="Consistency check failed"):
        run(call, "hf_hub_download", repo, DATA, force_download=True)
    assert server.commits(repo)[0].oid == made.oid


def test_a_signed_url_is_for_those_who_have_it(server, run, repo, folder):
    run(call, "upload_folder", repo_id=repo, folder_path=folder)
    url = server.sign(f"/cdn/{repo}/{server.commits(repo)[0].files[DATA].sha256}")
    assert get(url) == (200, (folder / DATA).read_bytes())
    assert get(url, Range="bytes=3-4") == (206, (folder / DATA).read_bytes()[3:5])
    assert get(url, Range="bytes=999999-")[0] == 416
    assert get(url + "0")[0] == 403
    assert get(url, Authorization=f"Bearer hf_{OWNER}")[0] == 400
    known = {"If-None-Match": f'"{server.commits(repo)[0].files["README.md"].oid}"'}
    assert get(f"{server.url}/datasets/{repo}/resolve/main/README.md", **known)[0] == 304


def get(url: str, **headers: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


@pytest.mark.slow
def test_datasets_loads_it_from_an_empty_cache(server, run, repo, folder, tmp_path):
    run(call, "upload_folder", repo_id=repo, folder_path=folder)
    run(call, "create_tag", repo, tag="v1")
    run(call, "delete_file", DATA, repo)
    gone, kept = ((folder / name).stat().st_size for name in (DATA, OTHER))
    server.forget()
    with client(server.environment(tmp_path / "home")) as fresh:
        assert fresh(load, repo) == list(range(ROWS, 2 * ROWS))
        assert server.sent["GET", "cdn"] == kept
        assert fresh(load, repo, revision="v1") == list(range(2 * ROWS))
        assert server.sent["GET", "cdn"] == kept + gone, "one of them was at hand"
    with client(server.environment(tmp_path / "other", user=None)) as fresh:
        assert fresh(load, repo, revision="v1", streaming=True) == list(range(2 * ROWS))
    assert {url.split("?")[0] for url in server.elsewhere} == {
        f"GET http://datasets-server.127.0.0.1:{server.port}/info"
    }
    assert not [label for label in server.requests if label[1] == "unknown"]


def load(repo: str, **words: Any) -> list[int]:
    import datasets

    return [row["id"] for row in datasets.load_dataset(repo, split="train", **words)]
