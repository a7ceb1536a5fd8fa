"""What else stands in a repository, in a folder and in the caches, and what becomes of it."""

import re
import shutil
from pathlib import Path

import datasets
import pytest
import yaml

import softlabels
from softlabels.errors import DamagedDump, FolderInUse, StoreError, UsageError
from tests.conftest import wide_dump
from tests.hub import READER, client
from tests.loopback import once
from tests.processes import wait_for
from tests.publishing import work
from tests.publishing.work import SHARDS, environment, shard, stored

FIELDS = [
    "license: mit",
    "configs: []",
    "configs: [{config_name: default, data_files: [{split: train, path: data/train-*.parquet}]}]",
    "dataset_info: {splits: [{name: train}]}",
    "dataset_info: {features: [{name: id, dtype: int64}]}",
    "configs: [{config_name: raw, data_dir: raw, default: true}]",
]


@pytest.mark.parametrize("header", ["", *(f"---\n{field}\n---\n" for field in FIELDS)])
def test_a_card_of_its_owners_own_does_not_stop_a_pull(
    hub, owner, stranger, folder, repo, tmp_path, header
):
    owner(work.push, str(folder), repo)
    owner(work.upload, repo, f"{header}\nMine.\n".encode(), "README.md")
    out = tmp_path / "p"
    stranger(work.pull, repo, out=str(out))
    assert stored(out) == stored(folder)
    assert Path(out / "README.md").read_text().endswith("Mine.\n")


def test_a_card_that_is_no_text_does_not_stop_a_pull(hub, owner, stranger, folder, repo, tmp_path):
    owner(work.push, str(folder), repo)
    hub.tamper(repo, "README.md", lambda content: b"\xff\xfe" + content[2:])
    stranger(work.pull, repo, out=str(tmp_path / "p"))
    assert softlabels.load(tmp_path / "p", T=1, inputs=False)


def test_shards_of_an_earlier_commit_do_not_stay_among_those_of_another(
    hub, owner, stranger, folder, repo, tmp_path
):
    owner(work.push, str(folder), repo)
    out = tmp_path / "p"
    stranger(work.pull, repo, out=str(out))
    work.redo_shard(folder, 3, lambda logits: logits + 0.125)
    owner(work.push, str(folder), repo)
    hub.forget()
    stranger(work.pull, repo, out=str(out), shards="0")
    assert hub.requests["GET", "cdn"] == 0
    with pytest.raises(DamagedDump, match=r"00003-of-00006.parquet is missing; softlabels pull"):
        softlabels.load(out, T=1, inputs=False)
    found = softlabels.verify(dump=str(out)).findings
    assert {finding.file for finding in found} == {shard(3), "commits/00003.json"}
    stranger(work.pull, repo, out=str(out), shards="3")
    assert softlabels.verify(dump=str(out)).good
    assert stored(out) == stored(folder)


def test_a_damaged_shard_of_labels_alone_is_made_again(hub, owner, stranger, repo, tmp_path):
    folder, out = tmp_path / "d", tmp_path / "p"
    values = wide_dump(tmp_path, str(folder), store_inputs="original")
    owner(work.push, str(folder), repo, include_inputs=True)
    stranger(work.pull, repo, out=str(out), labels_only=True)
    spoiled = out / "data/train-00001-of-00002.parquet"
    content = bytearray(spoiled.read_bytes())
    content[len(content) // 2] ^= 1
    spoiled.write_bytes(content)
    stranger(work.pull, repo, out=str(out), labels_only=True)
    assert softlabels.verify(dump=str(out)).good
    found = softlabels.load(out, T=1, inputs=False).take(range(200))["logits"]
    assert found.tolist() == values.tolist()


@pytest.mark.slow
def test_a_second_pull_into_a_folder_waits_for_the_first(
    hub, owner, stranger, folder, repo, tmp_path
):
    owner(work.push, str(folder), repo)
    out, home = tmp_path / "p", environment(hub, tmp_path / "home", READER)
    hub.faults.append(once("hang", "GET", "/cdn/"))
    first = work.command(home, "pull", repo, "--out", out, cwd=tmp_path)
    wait_for(lambda: hub.requests["GET", "cdn"] >= SHARDS)
    with pytest.raises(FolderInUse, match="choose another folder with --out"):
        stranger(work.pull, repo, out=str(out))
    first.kill()
    first.communicate(timeout=30)
    hub.faults.clear()
    stranger(work.pull, repo, out=str(out))
    assert softlabels.verify(dump=str(out)).good
    assert sorted(path.name for path in out.iterdir()) == [
        ".pulled.json", "README.md", "commits", "data", "plan.json", "softlabels.json"
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["data", "commits", ".pulling"])
def test_nothing_is_written_through_a_link_in_a_folder(
    hub, owner, stranger, folder, repo, tmp_path, name
):
    owner(work.push, str(folder), repo)
    out, outside = tmp_path / "p", tmp_path / "outside"
    stranger(work.pull, repo, out=str(out), shards="0")
    outside.mkdir()
    shutil.rmtree(out / name, ignore_errors=True)
    (out / name).symlink_to(outside)
    with pytest.raises(StoreError, match=f"{name} is a link to outside"):
        stranger(work.pull, repo, out=str(out))
    assert not list(outside.iterdir())


def test_what_mends_a_pull_of_another_commit_names_it(hub, owner, stranger, folder, repo, tmp_path):
    out = tmp_path / "my dumps"
    owner(work.push, str(folder), repo)
    owner(work.tag, repo, "v1")
    before = stored(folder)
    work.redo_shard(folder, 3, lambda logits: logits + 0.125)
    owner(work.push, str(folder), repo)
    stranger(work.pull, f"{repo}@v1", out=str(out))
    (out / shard(3)).unlink()
    with pytest.raises(DamagedDump, match=rf"softlabels pull {repo}@v1 --out '{out}' fetches it;"):
        softlabels.load(out, T=1, inputs=False)
    stranger(work.pull, f"{repo}@v1", out=str(out))
    assert stored(out) == before
    path = Path(stranger(work.pull, f"{repo}@v1")["path"]) / shard(3)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.resolve().write_bytes(content)
    remedy = rf"softlabels pull {repo}@[0-9a-f]{{40}} fetches it again"
    with pytest.raises(DamagedDump, match=remedy) as raised:
        stranger(work.first_logits, f"{repo}@v1")
    stranger(work.pull, re.findall(r"pull (\S+)", str(raised.value))[0])
    assert stranger(work.first_logits, f"{repo}@v1") == before


@pytest.mark.parametrize(
    "note",
    ["", "{}", '{"dump": 5}', '{"dump": "a/b; rm -rf ~"}', '{"dump": "a/b", "revision": "v1 v2"}',
     '{"dump": "a/b@v1"}', '{"dump": "\\u001b[31ma/b"}'],
)  # fmt: skip
def test_a_note_of_others_in_a_folder_becomes_no_command(folder, note):
    (folder / ".pulled.json").write_text(note)
    (folder / shard(1)).unlink()
    with pytest.raises(
        DamagedDump, match="is missing; run the same softlabels dump or import again with"
    ):
        softlabels.load(folder, T=1, inputs=False)


@pytest.mark.parametrize("name", ["plan.json", "commits/00002.json", "softlabels.json"])
@pytest.mark.parametrize("out", [False, True])
def test_a_damaged_record_in_the_cache_is_fetched_again(
    hub, owner, stranger, folder, repo, tmp_path, name, out
):
    owner(work.push, str(folder), repo)
    words = {"out": str(tmp_path / "p")} if out else {}
    path = Path(stranger(work.pull, repo)["path"]) / name
    path.resolve().write_bytes(path.read_bytes()[:-20])
    stranger(work.pull, repo, **words)
    assert stranger(work.first_logits, repo) == stored(folder)
    assert not out or softlabels.verify(dump=words["out"]).good


@pytest.mark.slow
def test_without_a_network_what_is_here_is_used_and_what_is_not_is_told(
    hub, owner, stranger, repo, tmp_path
):
    folder = tmp_path / "d"
    values = wide_dump(tmp_path, str(folder), store_inputs="original")
    owner(work.push, str(folder), repo, include_inputs=True)
    home = environment(hub, tmp_path / "home", READER)
    with client(home) as run:
        run(work.pull, repo)
    with client(home | {"HF_HUB_OFFLINE": "1"}) as run:
        run(work.pull, repo, labels_only=True, out=str(tmp_path / "p"))
        found = softlabels.load(tmp_path / "p", T=1, inputs=False).take(range(200))["logits"]
        assert found.tolist() == values.tolist()
        run(work.spoil_the_cached, repo, "data/train-00001-of-00002.parquet")
        with pytest.raises(
            StoreError, match=r"00002.parquet is damaged here, and can't be fetched"
        ):
            run(work.pull, repo)


def test_a_card_that_could_not_be_asked_for_is_not_taken_for_none(
    hub, owner, stranger, folder, repo, tmp_path
):
    owner(work.push, str(folder), repo)
    hub.faults.append(lambda method, path: 404 if path.endswith("README.md") else None)
    with pytest.raises(StoreError, match=r"README.md can't be fetched"):
        stranger(work.pull, repo, out=str(tmp_path / "p"))
    hub.forget()
    stranger(work.pull, repo, out=str(tmp_path / "p"))
    assert (tmp_path / "p/README.md").exists()


def test_a_folder_may_be_named_snapshots(hub, owner, stranger, folder, repo):
    owner(work.push, str(folder), f"{repo}/snapshots/old")
    assert stranger(work.first_logits, f"{repo}/snapshots/old") == stored(folder)


def test_a_folder_that_is_nowhere_is_told_by_its_whole_name(hub, owner, stranger, folder, repo):
    with pytest.raises(StoreError, match=r"^runs/a/b is no folder here, and runs/a no dataset of"):
        stranger(work.first_logits, "runs/a/b")
    owner(work.push, str(folder), f"{repo}/train")
    with pytest.raises(StoreError, match=rf"{repo}/trian is no dump; in folders of {repo} are"):
        stranger(work.first_logits, f"{repo}/trian")


def test_a_dump_that_is_gone_is_not_told_of(hub, owner, stranger, folder, repo, teacher, tmp_path):
    other = tmp_path / "test"
    softlabels.dump(teacher=teacher, split="test", out=str(other))
    owner(work.push, str(folder), repo)
    alone = hub.files(repo)["README.md"].decode()
    owner(work.push, str(other), f"{repo}/test")
    owner(work.upload, repo, hub.files(repo)["README.md"] + b"\nMine.\n", "README.md")
    owner(work.remove, repo, "test")
    owner(work.push, str(folder), repo)
    card = hub.files(repo)["README.md"].decode()
    assert f"{repo}/test" not in card
    assert card.split() == [*alone.split(), "Mine."]
    assert owner(work.push, str(folder), repo)["commit"] is None


def test_other_data_keeps_its_configuration(hub, owner, stranger, folder, repo, tmp_path):
    places = (repo, f"{repo}/b/train")
    for place in places:
        owner(work.push, str(folder), place)
    datasets.Dataset.from_dict({"a": [1, 2]}).to_parquet(str(tmp_path / "raw.parquet"))
    raw = (tmp_path / "raw.parquet").read_bytes()
    owner(work.upload, repo, raw, "raw/data/train-00000-of-00001.parquet")
    card = hub.files(repo)["README.md"].decode()
    one = (
        "configs:\n- config_name: raw\n  data_files:\n  - split: train\n    path: raw/data/train-*"
    )
    card = card.replace("configs:\n", f"{one}.parquet\n", 1)
    owner(work.upload, repo, card.encode(), "README.md")
    for place in places:
        owner(work.push, str(folder), place)
        assert stranger(work.splits_of, repo, "raw") == {"train": 2}
        assert stranger(work.splits_of, repo, "default") == {"train": 1200}
    assert f"{repo}/raw" not in hub.files(repo)["README.md"].decode()


@pytest.mark.parametrize(
    ("path", "problem"),
    [("data/train-*.parquet", ""), ("[data/train-*.parquet]", ""),
     ("data/*.parquet", r"^the split train of .* is of other files .*\(data/\*\.parquet\); push")],
)  # fmt: skip
def test_a_header_that_names_our_files_otherwise(hub, owner, folder, repo, path, problem):
    owner(work.push, str(folder), repo)
    card = hub.files(repo)["README.md"]
    owner(work.upload, repo, card.replace(b"data/train-*.parquet", path.encode(), 1), "README.md")
    if problem:
        with pytest.raises(UsageError, match=problem):
            owner(work.push, str(folder), repo)
        with pytest.raises(UsageError, match=r"^the split train of .* is of other files"):
            owner(work.push, str(folder), f"{repo}/train")
    else:
        owner(work.push, str(folder), repo)
        assert hub.files(repo)["README.md"] == card
        with pytest.raises(UsageError, match=r"^the split train of .* is another dump"):
            owner(work.push, str(folder), f"{repo}/train")


def test_what_a_header_says_of_other_data_stays(hub, owner, folder, repo):
    owner(work.push, str(folder), repo, license="cc-by-4.0")
    card = hub.files(repo)["README.md"].decode()
    card = card.replace("configs:\n", "configs:\n- config_name: pictures\n  data_dir: pictures\n")
    owner(work.upload, repo, card.encode(), "README.md")
    owner(work.push, str(folder), f"{repo}/other/train", license="mit")
    header = yaml.safe_load(hub.files(repo)["README.md"].decode().split("---\n")[1])
    assert header["license"] == "cc-by-4.0", "of the dump that is there, too"
    assert "license: mit" in hub.files(repo)["other/train/README.md"].decode()
    assert {"config_name": "pictures", "data_dir": "pictures"} in header["configs"]
    assert owner(work.push, str(folder), repo + "/")["commit"] is None


def test_a_folder_that_is_whole_costs_hardly_a_request(
    hub, owner, stranger, folder, repo, tmp_path
):
    owner(work.push, str(folder), repo)
    stranger(work.pull, repo, out=str(tmp_path / "p"))
    (tmp_path / "p" / "README.md").write_text((tmp_path / "p" / "README.md").read_text() + "Mine.")
    hub.forget()
    stranger(work.pull, f"{repo}/", out=str(tmp_path / "p"))
    assert sum(hub.requests.values()) <= 2
    assert (tmp_path / "p" / "README.md").read_text().endswith("Mine.")
