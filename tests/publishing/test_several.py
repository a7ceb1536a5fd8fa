"""Several dumps in one repository: splits and configurations of one dataset."""

import shutil
from pathlib import Path

import datasets
import pytest
import yaml

import softlabels
from softlabels.errors import StoreError, UsageError
from tests.conftest import Linear, make_vectors, save_script
from tests.hub import READER, client
from tests.publishing import work
from tests.publishing.work import environment, stored


@pytest.fixture(scope="module")
def splits(teacher, tmp_path_factory) -> dict[str, Path]:
    """A teacher's dumps of two splits of the digits, and one of other data."""
    place = tmp_path_factory.mktemp("splits")
    for split, rows in (("train", 500), ("test", 300)):
        softlabels.dump(teacher=teacher, split=split, out=str(place / split), shard_rows=rows)
    data = make_vectors(place / "v.parquet", rows=60)
    script = save_script(Linear(), place / "s.pt")
    softlabels.dump(teacher=script, data=data, out=str(place / "vectors"))
    return {name: place / name for name in ("train", "test", "vectors")}


def header(hub, repo: str, path: str = "README.md") -> dict:
    return yaml.safe_load(hub.files(repo)[path].decode().split("---\n")[1])


def test_splits_and_configurations_of_one_dataset(hub, owner, stranger, splits, repo, tmp_path):
    owner(work.push, str(splits["train"]), repo, license="cc-by-4.0")
    owner(work.push, str(splits["test"]), f"{repo}/test")
    owner(work.push, str(splits["vectors"]), f"{repo}/other/train")
    assert stranger(work.splits_of, repo) == {"train": 1200, "test": 597}
    assert stranger(work.splits_of, repo, "other") == {"train": 60}
    found = stranger(work.rows_of, repo, split="test")
    assert [row["logits"] for row in found] == stored(splits["test"])
    assert stranger(work.rows_of, repo, split="test", streaming=True) == found
    for name, folder in (("train", ""), ("test", "/test"), ("vectors", "/other/train")):
        source = str(splits["vectors"].parent / "v.parquet") if name == "vectors" else None
        for words in ({"source": source}, {"streaming": True, "inputs": False}):
            assert stranger(work.first_logits, repo + folder, **words) == stored(splits[name])
    told = header(hub, repo)
    assert (told["license"], told["size_categories"]) == ("cc-by-4.0", ["1K<n<10K"])
    card = hub.files(repo)["README.md"].decode()
    assert f"softlabels train {repo} --T 8" in card
    assert f"| [`{repo}/test`](test/README.md) | default | test | 597 |" in card
    assert f"softlabels train {repo}/test --T 8" in hub.files(repo)["test/README.md"].decode()


def test_pushing_in_any_order_gives_the_same_and_then_nothing(hub, owner, splits, repo):
    places = {"train": repo, "test": f"{repo}/test", "vectors": f"{repo}/a/b"}
    for name, place in places.items():
        owner(work.push, str(splits[name]), place)
    cards = {path: hub.files(repo)[path] for path in ("README.md", "test/README.md")}
    for name, place in reversed(places.items()):
        assert owner(work.push, str(splits[name]), place)["commit"] is None
    for name, place in reversed(places.items()):
        owner(work.push, str(splits[name]), place.replace(repo, f"{repo}-too"))
    for path, card in cards.items():
        there = hub.files(f"{repo}-too")[path].decode()
        assert there.replace(f"{repo}-too", repo) == card.decode()


def test_a_change_of_one_leaves_the_others(hub, owner, stranger, splits, repo, tmp_path):
    first = Path(shutil.copytree(splits["train"], tmp_path / "d"))
    owner(work.push, str(splits["test"]), f"{repo}/test")
    card = hub.files(repo)["README.md"].decode()
    assert card.count("## Dumps in folders") == 1
    owner(work.upload, repo, (card + "\nMore of mine.\n").encode(), "README.md")
    owner(work.push, str(first), f"{repo}/train")
    work.redo_shard(first, 1, lambda logits: logits + 0.125)
    sent = owner(work.push, str(first), f"{repo}/train")["files"]
    assert sorted(sent) == [
        "train/README.md", "train/commits/00001.json", "train/data/train-00001-of-00003.parquet",
        "train/softlabels.json",
    ]  # fmt: skip
    assert hub.files(repo)["README.md"].decode().count("More of mine.") == 1
    assert stranger(work.first_logits, f"{repo}/train") == stored(first)
    assert stranger(work.first_logits, f"{repo}/test") == stored(splits["test"])
    with pytest.raises(StoreError, match=rf"{repo}/test holds another dump"):
        owner(work.push, str(first), f"{repo}/test")
    owner(work.push, str(first), f"{repo}/test", replace=True)
    assert stranger(work.splits_of, repo, "test") == {"train": 1200}, "a folder of another name"
    assert stranger(work.splits_of, repo, "default") == {"train": 1200}


@pytest.mark.parametrize(
    ("name", "place", "problem"),
    [("train", "/train", "split train of the configuration default is another dump"),
     ("vectors", "/train", "split train of the configuration default is another dump"),
     ("test", "/data", "is part of a dump"), ("test", "/a/b/c", "is not the name of a dump"),
     ("test", "/../x", "is not the name of a dump"), ("test", "@v1/x", "is not the name of a dump"),
     ("test", "/.git", "is not the name of a dump")],
)  # fmt: skip
def test_places_that_a_dump_can_not_have(hub, owner, splits, repo, name, place, problem):
    owner(work.push, str(splits["train"]), repo)
    before = hub.files(repo)
    with pytest.raises(UsageError, match=problem):
        owner(work.push, str(splits[name]), repo + place)
    assert hub.files(repo) == before


def test_splits_of_a_configuration_have_the_same_columns(hub, owner, splits, repo):
    owner(work.push, str(splits["vectors"]), repo)
    with pytest.raises(
        UsageError, match=r"^the configuration default has .* push to ORG/NAME/CONF"
    ):
        owner(work.push, str(splits["test"]), f"{repo}/test")
    assert owner(work.push, str(splits["test"]), f"{repo}/digits/test")["commit"]


def test_a_repository_without_a_dump_at_its_top_names_those_it_has(
    hub, owner, stranger, splits, repo
):
    for name in ("train", "test"):
        owner(work.push, str(splits[name]), f"{repo}/{name}")
    assert stranger(work.splits_of, repo) == {"test": 597, "train": 1200}
    with pytest.raises(
        StoreError, match=rf"in folders of {repo} are {repo}/test, {repo}/train: name"
    ):
        stranger(work.first_logits, repo)
    with pytest.raises(StoreError, match="has no revision 'v1/test'"):
        stranger(work.first_logits, f"{repo}@v1/test")


def test_what_is_pulled_is_a_dump_of_its_own(hub, owner, stranger, splits, repo, tmp_path):
    owner(work.push, str(splits["train"]), repo)
    owner(work.push, str(splits["test"]), f"{repo}/test")
    owner(work.tag, repo, "v1")
    for name, place in (("train", repo), ("test", f"{repo}/test@v1")):
        out = tmp_path / name
        stranger(work.pull, place, out=str(out))
        assert softlabels.verify(dump=str(out)).good
        assert stored(out) == stored(splits[name])
        found = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
        assert {split: len(rows) for split, rows in found.items()} == {name: len(stored(out))}
        assert "Dumps in folders" not in (out / "README.md").read_text()
    assert stranger(work.pull, f"{repo}/test", shards="0")["path"].endswith("/test")
    assert owner(work.push, str(tmp_path / "train"), repo)["commit"] is None


@pytest.mark.slow
def test_offline_a_copy_of_another_commit_is_named(hub, owner, splits, repo, tmp_path):
    first = owner(work.push, str(splits["train"]), repo)["commit"]
    home = environment(hub, tmp_path / "home", READER)
    with client(home) as run:
        run(work.first_logits, repo)
        owner(work.push, str(splits["test"]), f"{repo}/test")
        run(work.first_logits, f"{repo}/test")
    with client(home | {"HF_HUB_OFFLINE": "1"}) as run:
        assert run(work.first_logits, f"{repo}/test") == stored(splits["test"])
        with pytest.raises(StoreError, match=f"another commit is here: {repo}@{first}"):
            run(work.first_logits, repo)
        assert run(work.first_logits, f"{repo}@{first}") == stored(splits["train"])


def test_a_card_that_tells_of_other_dumps_is_told_where_these_are_not(
    hub, owner, stranger, splits, repo, tmp_path
):
    owner(work.push, str(splits["train"]), repo)
    owner(work.push, str(splits["test"]), f"{repo}/test")
    alone = Path(shutil.copytree(splits["train"], tmp_path / "d"))
    (alone / "README.md").write_bytes(hub.files(repo)["README.md"])
    (found,) = softlabels.verify(dump=str(alone)).findings
    assert found.file == "README.md"
    assert stranger(work.is_good, repo)
