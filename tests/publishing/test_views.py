"""A dump with several views of each input on the Hub: what goes, what comes, and without inputs."""

from pathlib import Path

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import UsageError
from tests.pictures import save_pictures
from tests.publishing import work


class Means(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


@pytest.fixture(scope="module")
def original(teacher, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("views") / "d"
    softlabels.dump(
        teacher=teacher, out=str(folder), shard_rows=500, views=2, augment="jitter(2)",
        store_inputs="original",
    )  # fmt: skip
    return folder


def same(one: str | Path, other: str | Path, **words: object) -> None:
    a, b = (softlabels.load(path, T=4, **words) for path in (one, other))
    rows = np.random.default_rng(0).permutation(3600)[:500]
    a, b = a.take(rows), b.take(rows)
    for name in ("id", "view", "input", "label", "soft_target"):
        assert torch.equal(a[name], b[name]), name


def test_views_go_and_come_with_and_without_inputs(hub, owner, stranger, original, repo, tmp_path):
    owner(work.push, str(original), repo, include_inputs=True)
    hub.forget()
    again = owner(work.push, str(original), repo, include_inputs=True)
    assert (again["files"], again["bytes"]) == ([], 0)
    whole, bare = tmp_path / "whole", tmp_path / "bare"
    stranger(work.pull, repo, out=str(whole))
    stranger(work.pull, repo, out=str(bare), labels_only=True)
    for folder in (whole, bare):
        assert softlabels.verify(dump=str(folder), source=True).good
        same(original, folder)
        same(original, folder, streaming=True)
    rows = stranger(work.rows_of, repo)
    assert len(rows) == 3600
    assert [row["input"] is None for row in rows] == [row["view"] != 0 for row in rows]
    bare_bytes = sum(path.stat().st_size for path in (bare / "data").iterdir())
    whole_bytes = sum(path.stat().st_size for path in (whole / "data").iterdir())
    assert bare_bytes < whole_bytes / 2, "inputs are left out, and not fetched"
    assert len(stranger(work.first_logits, repo, streaming=True, inputs=False)) == 3600


def test_labels_only_gives_the_bytes_of_a_dump_without_inputs(
    owner, stranger, teacher, original, repo, tmp_path
):
    owner(work.push, str(original), repo, include_inputs=True)
    stranger(work.pull, repo, out=str(tmp_path / "bare"), labels_only=True)
    table = softlabels.load(tmp_path / "bare", inputs=False)
    assert table.views.tolist() == softlabels.load(original, inputs=False).views.tolist()
    facts = softlabels.info(tmp_path / "bare")["facts"]
    assert (facts["rows"], facts["inputs"], facts["inputs stored"]) == (3600, 1200, "none")


def test_views_of_stored_pictures_are_not_published_without_these(owner, stranger, repo, tmp_path):
    """Their boxes would be taken for such of the source's pictures."""
    place = save_pictures(tmp_path)
    softlabels.dump(
        teacher=Means(), name="means", data=str(place), out=str(tmp_path / "d"), views=1,
        augment="random_resized_crop(16)", preprocess="rgb|resize(24)|center_crop(16)|scale(255)",
        store_inputs="resized(24)",
    )  # fmt: skip
    owner(work.push, str(tmp_path / "d"), repo, include_inputs=True)
    for refused in (
        lambda: owner(work.push, str(tmp_path / "d"), repo, labels_only=True),
        lambda: stranger(work.pull, repo, out=str(tmp_path / "bare"), labels_only=True),
    ):
        with pytest.raises(UsageError, match=r"cut from the pictures that it stores, resized\(24"):
            refused()
    assert not (tmp_path / "bare" / "plan.json").exists()


def trained(dump: str | Path, folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a student that has seen each of eight views."""
    out = str(folder / "s.pt")
    softlabels.train(dump=str(dump), T=4, student="linear", epochs=9, views=8, out=out)
    return torch.load(out, weights_only=True)["state_dict"]


@pytest.mark.slow
def test_a_student_of_eight_pulled_views_is_that_of_the_views_that_were_pushed(
    owner, stranger, teacher, repo, tmp_path
):
    words = "random_crop(8, 1)|flip|jitter(1)|color_jitter(0.4, 0.4)|erase(0.3)"
    softlabels.dump(teacher=teacher, out=str(tmp_path / "d"), views=8, augment=words)
    owner(work.push, str(tmp_path / "d"), repo)
    stranger(work.pull, repo, out=str(tmp_path / "pulled"))
    verdict = softlabels.verify(dump=str(tmp_path / "pulled"), source=True)
    assert verdict.good
    assert verdict.views_made > 100
    ours, theirs = (trained(tmp_path / name, tmp_path) for name in ("d", "pulled"))
    for name, weights in ours.items():
        assert torch.equal(weights, theirs[name]), name
