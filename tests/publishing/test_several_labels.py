"""A dump of several labels a row on the Hub: its card, with and without its inputs."""

import datasets
import numpy as np
import pytest
import torch

import softlabels
from tests.conftest import Linear, save_script
from tests.publishing import work

NAMES = ["cat", "dog|hound", "eel"]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    draw = np.random.default_rng(0)
    rows = {
        "x": draw.normal(size=(60, 6)).astype(np.float32).tolist(),
        "labels": [[0, 1, 2][: i % 3] for i in range(60)],
    }
    features = datasets.Features(
        {
            "x": datasets.List(datasets.Value("float32"), length=6),
            "labels": datasets.List(datasets.ClassLabel(names=NAMES)),
        }
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(folder / "x.parquet"))
    softlabels.dump(
        teacher=save_script(Linear(3.0), folder / "net.pt"), data=str(folder / "x.parquet"),
        task="multilabel", store_inputs="original", out=str(folder / "d"), shard_rows=25,
    )  # fmt: skip
    return folder / "d"


def push(dump: str, repo: str) -> dict:
    return work.push(dump, repo, include_inputs=True)


def pull(repo: str, **options) -> dict:
    return work.pull(repo, **options)


def test_lists_of_labels_go_and_come(hub, owner, stranger, original, repo, tmp_path):
    owner(push, str(original), repo)
    card = hub.files(repo)["README.md"].decode()
    table = softlabels.info(str(original), per_class=True)
    assert f"Mean average precision {table['facts']['mean average precision']:.4f} over 2" in card
    dog = next(label for label in table["per_class"] if label["class"] == 1)
    assert f"| `dog\\|hound` | {dog['positives']} | {dog['prevalence']:.4f} |" in card
    assert "| eel | 0 | 0.0000 |" in card
    assert "| labels of a row | 1 on average |" in card
    assert "accuracy" not in card
    bare = tmp_path / "bare"
    stranger(pull, repo, out=str(bare), labels_only=True)
    assert softlabels.verify(dump=str(bare)).good
    found, whole = (softlabels.load(d, inputs=False).take(range(60)) for d in (bare, original))
    assert torch.equal(found["label"], whole["label"])
    assert found["label"][5].tolist() == [1, 1, 0]
    assert datasets.load_dataset(str(bare), split="train").features["label"].feature.names == NAMES
