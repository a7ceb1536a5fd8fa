"""What else stands in a repository, in a folder and in the caches, and what becomes of it."""

from pathlib import Path

import pytest

import softlabels
from tests.publishing import work
from tests.publishing.work import stored

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
