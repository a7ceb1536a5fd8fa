"""Published and used: the real clients of the Hub against a stand-in on loopback."""

import io
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import softlabels
from softlabels.errors import (
    AlignmentError,
    DamagedDump,
    IncompleteDump,
    SourceError,
    StoreError,
    UsageError,
)
from tests.conftest import Linear, save_script
from tests.hub import OWNER, READER, client
from tests.loopback import once
from tests.processes import wait_for
from tests.publishing import work
from tests.publishing.work import SHARDS, environment, shard, stored

PICTURES = ("softlabels.png", "softlabels-classes.png")
RECORDS = {"README.md", "plan.json", "softlabels.json", *PICTURES}


@pytest.mark.slow
def test_a_stranger_trains_from_what_was_pushed(hub, owner, stranger, folder, repo, cli, tmp_path):
    pushed = owner(work.push, str(folder), repo, license="cc-by-4.0")
    assert set(pushed["files"]) == {
        *RECORDS, *map(shard, range(SHARDS)), *(f"commits/{i:05}.json" for i in range(SHARDS)),
    }  # fmt: skip
    assert len(hub.commits(repo)) == 2, "the repository's own, and one of ours"
    assert hub.commits(repo)[0].oid == pushed["commit"]
    uploads = hub.requests["PUT", "upload"]
    assert uploads == SHARDS + len(PICTURES), "and the card's pictures"
    assert sum(hub.requests.values()) - 2 * uploads <= 12
    rows = stranger(work.rows_of, repo)
    assert len(rows) == 1200
    assert [row["logits"] for row in rows] == stored(folder)
    assert stranger(work.class_names_of, repo) == list("0123456789")
    assert stranger(work.class_names_of, repo, streaming=True) == list("0123456789")
    hub.forget()
    assert stranger(work.first_logits, repo) == stored(folder)
    assert hub.requests["GET", "cdn"] == 0, "what `datasets` fetched is used"
    hub.forget()
    assert stranger(work.first_logits, repo) == stored(folder)
    assert dict(hub.requests) == {("HEAD", "resolve"): 1}, "nothing is fetched twice"
    assert stranger(work.first_logits, repo, streaming=True, inputs=False) == stored(folder)
    home = tmp_path / "third"
    done = work.command(environment(hub, home, READER), "train", repo, "--T", 8, "--epochs", 1,
                        "--student", "linear", "--out", "s.pt", cwd=tmp_path)  # fmt: skip
    said, errors = done.communicate(timeout=180)
    assert (done.returncode, "agreement with the teacher" in said) == (0, True), errors
    assert f"from {repo} at T=8" in errors


def test_what_is_there_is_not_sent_again(hub, owner, stranger, folder, repo):
    owner(work.push, str(folder), repo)
    before = stranger(work.first_logits, repo)
    owner(work.tag, repo, "v1")
    hub.forget()
    again = owner(work.push, str(folder), repo)
    assert (again["commit"], again["files"], again["bytes"]) == (None, [], 0)
    assert hub.received["PUT", "upload"] == hub.requests["POST", "commit"] == 0
    work.redo_shard(folder, 3, lambda logits: logits + 0.125)
    changed = owner(work.push, str(folder), repo)
    assert set(changed["files"]) == {
        shard(3), "commits/00003.json", "softlabels.json", "README.md",
    }  # fmt: skip
    assert hub.received["PUT", "upload"] == (folder / shard(3)).stat().st_size
    after = stranger(work.first_logits, repo)
    assert after == stored(folder)
    assert after != before
    assert stranger(work.first_logits, f"{repo}@v1") == before, "a revision is pinned"


@pytest.mark.slow
def test_a_push_that_is_killed_goes_on(hub, owner, folder, repo, tmp_path):
    hub.faults.append(hang_after(3))
    process = work.command(environment(hub, tmp_path / "home"), "push", folder, repo, cwd=tmp_path)
    wait_for(lambda: hub.requests["PUT", "upload"] >= 4)
    process.kill()
    process.communicate()
    assert set(hub.files(repo)) <= {".gitattributes"}
    sent = hub.received["PUT", "upload"]
    assert sent > 0
    hub.forget()
    owner(work.push, str(folder), repo)
    sizes = [(folder / shard(i)).stat().st_size for i in range(SHARDS)]
    pictures = sum(len(hub.files(repo)[name]) for name in PICTURES)
    assert 0 < hub.received["PUT", "upload"] <= pictures + sum(sizes) - 3 * min(sizes)
    assert set(hub.files(repo)) >= {shard(i) for i in range(SHARDS)}


def hang_after(count: int):
    """The uploads after so many never end."""
    seen = []

    def fault(method: str, path: str):
        if method == "PUT" and "/upload" in path:
            seen.append(path)
            return "hang" if len(seen) > count else None
        return None

    return fault


def test_many_shards_take_several_commits_and_only_the_last_is_whole(hub, owner, folder, repo):
    owner(work.push, str(folder), repo)
    for number in range(SHARDS):
        work.redo_shard(folder, number, lambda logits: logits - 0.25)
    owner(work.push_in_pieces, str(folder), repo, 2)
    newest = hub.commits(repo)
    whole = ["softlabels.json" in commit.files for commit in newest]
    assert whole == [True, *[False] * (len(whole) - 3), True, False]
    assert len(whole) == 3 + SHARDS - 1
    owner(work.remove, repo, "data")
    owner(work.push_in_pieces, str(folder), repo, 2)
    assert "softlabels.json" in hub.files(repo), "the manifest did not change, and was taken away"


def test_another_dataset_is_not_overwritten(hub, owner, folder, repo, teacher, tmp_path):
    foreign = {"data/train-0.parquet": b"PAR1", "data/notes.csv": b"a,b", "README.md": b"# Mine"}
    owner(work.publish_source, f"{repo}-foreign", foreign)
    with pytest.raises(StoreError, match=r"data that are not a dump of softlabels .*notes\.csv"):
        owner(work.push, str(folder), f"{repo}-foreign")
    assert hub.files(f"{repo}-foreign")["README.md"] == b"# Mine"
    owner(work.push, str(folder), repo)
    owner(work.upload, repo, b"kept", "data/mine.txt")
    softlabels.dump(teacher=teacher, out=str(tmp_path / "other"), shard_rows=700)
    with pytest.raises(StoreError, match=r"holds another dump: t on digits, .* --replace"):
        owner(work.push, str(tmp_path / "other"), repo)
    done = owner(work.push, str(tmp_path / "other"), repo, replace=True)
    assert set(done["removed"]) >= {shard(i) for i in range(SHARDS)}
    assert {n for n in hub.files(repo) if n.startswith("data/")} == {
        "data/mine.txt", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
    }  # fmt: skip


def test_a_gitignore_that_would_swallow_shards_is_named(hub, owner, folder, repo):
    owner(work.publish_source, repo, {".gitignore": b"data/\n"})
    with pytest.raises(StoreError, match=r".gitignore of .* excludes data/train-00000"):
        owner(work.push, str(folder), repo)
    assert "softlabels.json" not in hub.files(repo)


def test_a_dry_run_sends_nothing(hub, owner, folder, repo):
    planned = owner(work.push, str(folder), repo, dry_run=True)
    assert repo not in hub.repositories
    owner(work.push, str(folder), repo)
    hub.forget()
    new = owner(work.push, str(folder), repo, dry_run=True, revision="new")
    assert (new["files"], new["commit"]) == ([], None)
    assert len(planned["files"]) == 2 * SHARDS + len(RECORDS)
    assert hub.requests["POST", "commit"] == 0


@pytest.mark.parametrize("harm", ["flipped", "swapped"])
def test_a_shard_that_was_tampered_with_is_refused(hub, owner, stranger, folder, repo, harm):
    owner(work.push, str(folder), repo)
    other = (folder / shard(0)).read_bytes()

    def change(content: bytes) -> bytes:
        if harm == "swapped":
            return (other + content)[: len(content)]
        return content[: len(content) // 2] + b"!" + content[len(content) // 2 + 1 :]

    hub.tamper(repo, shard(2), change)
    with pytest.raises(DamagedDump, match="train-00002-of-00006"):
        stranger(work.first_logits, repo)
    with pytest.raises(DamagedDump, match=r"train-00002.* has other bytes than recorded"):
        stranger(work.pull, repo)


def test_what_the_owner_wrote_stays(hub, owner, folder, repo):
    owner(work.push, str(folder), repo, license="mit")
    hub.forget()
    assert owner(work.push, str(folder), repo)["commit"] is None, (
        "the licence is kept, in its place"
    )
    assert sum(hub.requests.values()) <= 8
    card = hub.files(repo)["README.md"].decode()
    assert "license: mit" in card
    assert f"softlabels train {repo} --T 8" in card
    first = softlabels.show(dump=folder, rows=1, top=1).rows[0]
    line = f"| 0 | {first.label_name} | {first.top[0].name} {first.top[0].probabilities[0]:.4f}, "
    assert line in card, "a sample of the dark knowledge"
    mine = card.replace("license: mit", "license: apache-2.0\npretty_name: My digits\nlanguage: en")
    mine = mine.replace("tags:\n", "tags:\n- mine\n", 1)
    mine = mine.replace("<!-- softlabels: end -->", "<!-- softlabels: end -->\n\nCite me.")
    mine = mine.replace("# Soft targets of t on digits", "# I was here")
    owner(work.upload, repo, mine.encode(), "README.md")
    owner(work.push, str(folder), repo)
    found = hub.files(repo)["README.md"].decode()
    assert "| licence of the labels | apache-2.0 |" in found
    for words in ("license: apache-2.0", "My digits", "- mine", "- soft-labels", "\nCite me."):
        assert found.count(words) == 1, words
    assert "I was here" not in found, "between the marks, the program writes"
    assert "# Soft targets of t on digits" in found
    hub.forget()
    assert owner(work.push, str(folder), repo)["commit"] is None


@pytest.mark.parametrize(
    "header",
    [
        "license: mit\nlanguage:\n- no\nversion: 1.10\narxiv: 2310.10\n",
        "# my fields ---\nlicense: mit\n",
        "pretty_name: Mine ---\nlicense: mit\n",
        "extra_gated_prompt: |\n  Rules\n  ---\n  More\nlicense: mit\n",
    ],
)
@pytest.mark.parametrize("frame", ["---\n{}---\n\nMine\n", "\ufeff--- \n{}---"])
def test_the_fields_of_the_owner_stay_as_they_are_written(hub, owner, folder, repo, header, frame):
    owner(work.publish_source, repo, {"README.md": frame.format(header).encode()})
    owner(work.push, str(folder), repo)
    found = hub.files(repo)["README.md"].decode()
    written, body = found.removeprefix("---\n").split("\n---\n", 1)
    for line in header.splitlines():
        assert f"\n{line}\n" in f"\n{written}\n"
    assert "- soft-labels" in written
    assert "license" not in body
    assert owner(work.push, str(folder), repo)["commit"] is None


def test_a_header_that_can_not_be_is_told_before_anything_is_sent(hub, owner, folder, repo):
    for card, words in (("---\na: [\n---\n", "can't be read"), ("---\n- a\n---\n", "no mapping")):
        owner(work.publish_source, f"{repo}{len(card)}", {"README.md": b"# Mine"})
        hub.tamper(f"{repo}{len(card)}", "README.md", lambda _, card=card: card.encode())
        with pytest.raises(UsageError, match=words):
            owner(work.push, str(folder), f"{repo}{len(card)}")
    readme = folder / "README.md"
    made = readme.read_text()
    readme.write_text(made.replace("tags:", "tags: [", 1))
    with pytest.raises((UsageError, DamagedDump), match=r"README\.md"):
        owner(work.push, str(folder), repo)
    readme.write_text(made.replace("tags:\n", "pretty_name: 5\ntags:\n", 1))
    with pytest.raises(UsageError, match="the Hub refuses the header"):
        owner(work.push, str(folder), repo)
    assert hub.requests["PUT", "upload"] == 0
    assert repo not in hub.repositories, "what is refused makes no repository"
    readme.write_text(made.replace("tags:\n- soft-labels\n- knowledge-distillation", "tags: mine"))
    owner(work.push, str(folder), repo)
    assert "tags:\n- mine\n- soft-labels\n" in hub.files(repo)["README.md"].decode()


def test_a_dump_that_is_not_whole_is_not_pushed(hub, owner, folder, repo):
    content = bytearray((folder / shard(1)).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / shard(1)).write_bytes(content)
    with pytest.raises(DamagedDump, match=r"damaged and was not pushed: data/train-00001"):
        owner(work.push, str(folder), repo)
    (folder / "softlabels.json").unlink()
    with pytest.raises(IncompleteDump, match="--resume"):
        owner(work.push, str(folder), repo)
    assert sum(hub.requests.values()) == 0


def test_inputs_are_published_only_if_that_is_said(hub, owner, stranger, teacher, tmp_path, repo):
    folder = tmp_path / "with"
    softlabels.dump(teacher=teacher, out=str(folder), shard_rows=500, store_inputs="original")
    with pytest.raises(UsageError, match=r"--include-inputs .* else --labels-only"):
        owner(work.push, str(folder), repo)
    assert owner(work.push, str(folder), repo, labels_only=True)["commit"]
    assert owner(work.push, str(folder), repo, labels_only=True)["commit"] is None
    rows = stranger(work.rows_of, repo)
    assert set(rows[0]) == {"id", "view", "input_hash", "label", "logits"}
    assert [row["logits"] for row in rows] == stored(folder)
    assert stranger(work.first_logits, repo) == stored(folder)
    readme = folder / "README.md"
    readme.write_text(readme.read_text().replace("tags:\n", "pretty_name: Ours\ntags:\n", 1))
    owner(work.push, str(folder), f"{repo}-mine", labels_only=True)
    assert b"pretty_name: Ours" in hub.files(f"{repo}-mine")["README.md"]
    owner(work.push, str(folder), f"{repo}-all", include_inputs=True)
    assert "input" in stranger(work.rows_of, f"{repo}-all")[0]


def test_labels_join_with_a_source_of_the_hub(hub, owner, stranger, repo, tmp_path):
    """By id and hash: with the revision that the teacher saw, and with no other."""
    source = f"{OWNER}/{tmp_path.name}-source"
    x = np.random.default_rng(0).normal(size=(300, 6)).astype(np.float32)

    def table(values: np.ndarray) -> bytes:
        file = io.BytesIO()
        lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 6)
        pq.write_table(pa.table({"x": lists, "label": np.arange(300) % 3}), file)
        return file.getvalue()

    owner(work.publish_source, source, {"data/train-0.parquet": table(x)})
    owner(work.tag, source, "seen")
    words = {"teacher": save_script(Linear(), tmp_path / "t.ts"), "data": source,
             "revision": "seen", "out": str(tmp_path / "d")}  # fmt: skip
    owner(work.dump, **words)
    owner(work.push, str(tmp_path / "d"), repo)
    with pytest.raises(SourceError, match=r"train\[:50%\].* can't be stored.*to_parquet"):
        owner(work.dump, **words | {"split": "train[:50%]", "out": str(tmp_path / "part")})
    assert not (tmp_path / "part").exists()
    card = hub.files(repo)["README.md"].decode()
    assert f"--data {source} \\\n" in card
    assert f"| source | {source}, split train, revision seen |" in card
    assert len(stranger(work.first_logits, repo)) == 300
    owner(work.upload, source, table(x + 1), "data/train-0.parquet")
    assert len(stranger(work.first_logits, repo)) == 300
    with pytest.raises(AlignmentError, match="not what the teacher saw"):
        stranger(work.first_logits, repo, source=source)


def test_refusals_say_what_to_do_and_no_token(hub, owner, stranger, folder, repo, tmp_path):
    cases = [
        (lambda: stranger(work.push, str(folder), repo), StoreError, "your token may not|doesn't"),
        (lambda: owner(work.push, str(folder), "digits"), UsageError, "write ORG/NAME"),
        (lambda: stranger(work.pull, f"{OWNER}/nowhere"), StoreError, "no dataset of the Hub"),
    ]
    owner(work.push, str(folder), f"{repo}-there")
    cases.append(
        (lambda: stranger(work.pull, f"{repo}-there@v9"), StoreError, "no revision 'v9'"),
    )
    hub.faults.append(once(412, "POST", "/commit/"))
    work.redo_shard(folder, 0, lambda logits: logits + 1)
    cases.append(
        (lambda: owner(work.push, str(folder), f"{repo}-there"), StoreError, "meanwhile"),
    )
    for act, kind, words in cases:
        with pytest.raises(kind, match=words) as raised:
            act()
        assert not re.search(r"hf_\w+", str(raised.value)), "a token"
    for content in hub.files(f"{repo}-there").values():
        assert b"hf_owner" not in content


def test_without_a_network_what_is_here_is_used(hub, owner, stranger, strangers_home, folder, repo):
    owner(work.push, str(folder), repo)
    assert stranger(work.first_logits, repo) == stored(folder)
    with client(environment(hub, strangers_home, READER) | {"HF_HUB_OFFLINE": "1"}) as run:
        hub.forget()
        assert run(work.first_logits, repo) == stored(folder)
        assert sum(hub.requests.values()) == 0
        with pytest.raises(StoreError, match="HF_HUB_OFFLINE is set"):
            run(work.first_logits, f"{repo}-other")


def test_pulled_into_a_folder_it_is_a_dump(hub, owner, stranger, folder, repo, tmp_path):
    owner(work.push, str(folder), repo)
    stranger(work.pull, repo, out=str(tmp_path / "p"))
    assert softlabels.verify(dump=str(tmp_path / "p")).good
    assert stored(tmp_path / "p") == stored(folder)
    with pytest.raises(UsageError, match="not empty"):
        stranger(work.pull, repo, out=str(folder))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        stranger(work.pull, repo, out=str(tmp_path / "file"))
    with pytest.raises(UsageError, match="pull to this disk"):
        stranger(work.pull, repo, out="memory://p")
    stranger(work.spoil_the_cached, repo, shard(1))
    stranger(work.pull, repo, out=str(tmp_path / "again"))
    assert stored(tmp_path / "again") == stored(folder), (
        "this disk's copy was bad, and not the Hub's"
    )
    hub.tamper(
        repo, "commits/00001.json", lambda content: content.replace(b'"shard": 1', b'"shard": 2')
    )
    home = environment(hub, tmp_path / "new", READER)
    differs = r"commits/00001\.json does not agree"
    with client(home) as run, pytest.raises(DamagedDump, match=differs):
        run(work.pull, repo)


def test_a_dump_of_a_convolutional_net_can_too(hub, owner, repo, tmp_path):
    """Its memory format may be that of a plan which is there already; here is no repository."""
    teacher = str(tmp_path / "c.pt")
    softlabels.fit(data="digits", model="cnn:2", epochs=1, holdout=0, rows=100, out=teacher)
    owner(work.dump, teacher=teacher, out=f"hf://datasets/{repo}")
    assert "softlabels.json" in hub.commits(repo)[0].files


def test_a_dump_can_go_straight_to_the_hub(hub, owner, stranger, teacher, folder, repo):
    words = {"teacher": teacher, "out": f"hf://datasets/{repo}", "shard_rows": 200}
    owner(work.dump, **words)
    assert hub.repositories[repo].private, "until its owner says otherwise"
    assert "softlabels.json" in hub.commits(repo)[0].files
    assert not any("softlabels.json" in commit.files for commit in hub.commits(repo)[1:])
    assert owner(work.first_logits, repo) == stored(folder)
    commits = len(hub.commits(repo))
    owner(work.dump, **words, resume=True)
    assert len(hub.commits(repo)) == commits
    with pytest.raises(StoreError, match="no dataset of the Hub that you may read"):
        stranger(work.pull, repo)
