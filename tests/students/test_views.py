"""Students that are shown the views of a dump: how many of them, in which epoch, and what is said.

That inputs, views and targets of a row agree is in tests/test_views_road.py.
"""

import json
import threading
from pathlib import Path

import pytest
import torch

import softlabels
from softlabels.errors import UsageError
from softlabels.inputs import decoding
from softlabels.inputs.decoding import decode_image
from softlabels.students import state_file
from softlabels.targets.soft_dataset import SoftDataset
from tests.conftest import Lines, save_script
from tests.students.test_augment import RESIZED, Flat, photos  # noqa: F401
from tests.students.test_ranks import train_in_two, weights
from tests.students.test_resume import assert_same_training, options

SHORT = {"student": "linear", "T": 4, "holdout": 0.25, "batch_size": 100}


@pytest.fixture(scope="module")
def dumps(teacher, views_folder, tmp_path_factory) -> Path:
    """The folders four and two, of digits with so many drawn views and the clean one."""
    folder = tmp_path_factory.mktemp("views")
    (folder / "two").symlink_to(views_folder)
    softlabels.dump(teacher=teacher, out=str(folder / "four"), views=4, augment="jitter(1)",
                    shard_rows=500, batch_size=400)  # fmt: skip
    return folder


@pytest.fixture
def shown(monkeypatch):
    """`shown(epochs, dump, …)`: the pairs of id and view of each epoch, and the result."""

    def run(epochs: int, dump: Path, **words) -> tuple[list[list[tuple[int, int]]], object]:
        pairs: list[tuple[int, int]] = []
        take = SoftDataset.take

        def taking(self, rows):
            batch = take(self, rows)
            pairs.extend(zip(batch["id"].tolist(), batch["view"].tolist(), strict=True))
            return batch

        monkeypatch.setattr(SoftDataset, "take", taking)
        words = SHORT | {"out": str(dump.parent / "s.pt")} | words
        result = softlabels.train(dump=str(dump), epochs=epochs, **words)
        monkeypatch.setattr(SoftDataset, "take", take)
        each = len(pairs) // epochs
        assert each * epochs == len(pairs)
        return [pairs[e * each : (e + 1) * each] for e in range(epochs)], result

    return run


def test_some_views_are_those_of_a_dump_that_has_no_others(dumps, shown):
    lines = Lines()
    some, result = shown(4, dumps / "four", views=2, progress=lines)
    assert (
        "3 views (0, 1, 2) of 5 of each input: an epoch sees one, in the order 1, 2, 0; held"
        in str(lines)
    )
    assert "warning" not in str(lines)
    whole, other = shown(4, dumps / "two")
    assert some == whole
    assert [{view for _, view in epoch} for epoch in some] == [{1}, {2}, {0}, {1}]
    assert result.metrics["held_out"]["errors"] == other.metrics["held_out"]["errors"]
    assert result.checkpoint.data["views"] == [0, 1, 2]
    assert result.checkpoint.data["augment"] == "jitter(1)"
    history = (dumps / "s.pt.history.jsonl").read_text().splitlines()
    assert [json.loads(line)["views"] for line in history] == [[1], [2], [0], [1]]


def test_views_that_no_epoch_shows_are_said(dumps, shown):
    lines = Lines()
    epochs, _ = shown(3, dumps / "four", progress=lines, rows=60)
    assert [{view for _, view in epoch} for epoch in epochs] == [{1}, {2}, {3}]
    assert "warning: 3 epochs show only 1, 2, 3 of 5 views; --epochs 5 shows each once" in str(
        lines
    )


@pytest.mark.parametrize(
    "how", [{}, {"streaming": True}, {"shuffle": "blocks(8, 16)"}, {"rows": 60}]
)
def test_an_epoch_can_show_every_view_of_every_input(dumps, shown, how):
    lines = Lines()
    epochs, result = shown(2, dumps / "two", views="all", progress=lines, **how)
    inputs = how.get("rows", 900)
    ids = {id for id, _ in epochs[0]}
    assert len(ids) == inputs, "the others are held out, in all views"
    for epoch in epochs:
        assert sorted(epoch) == [(id, view) for id in sorted(ids) for view in (0, 1, 2)]
    assert epochs[0] != epochs[1]
    assert "3 views of each input: each epoch sees them all; held-out inputs are sco" in str(lines)
    assert result.metrics["trained_rows"] == 3 * inputs
    assert result.metrics["held_out"]["rows"] == 300
    assert result.checkpoint.training["views"] == "all"


@pytest.mark.parametrize("how", [{"views": "all", "accumulate": 3}, {"views": 1}])
def test_a_training_on_views_goes_on_where_it_was(dumps, tmp_path, monkeypatch, how):
    """Stopped in its third epoch; with other views it is refused."""
    words = options(str(dumps / "two"), tmp_path / "calm.pt", epochs=4, rows=300, **how)
    rough = words | {"out": str(tmp_path / "rough.pt")}
    softlabels.train(**words)
    with monkeypatch.context() as patch:
        patch.setenv("INTERRUPT_AT", "37" if how["views"] == "all" else "12")
        patch.setattr(state_file, "EPOCH_SECONDS", 0)
        with pytest.raises(KeyboardInterrupt):
            softlabels.train(**rough)
    with pytest.raises(UsageError, match=f"--views is 2 and was {json.dumps(how['views'])}"):
        softlabels.train(**rough | {"views": 2}, resume=True)
    softlabels.train(**rough, resume=True)
    assert_same_training(tmp_path / "calm.pt", tmp_path / "rough.pt")


@pytest.mark.slow
def test_two_ranks_share_all_views(dumps, tmp_path):
    words = {"student": "linear", "epochs": 2, "batch_size": 64, "lr": 1e-2, "T": 2.0}
    words |= {"dump": str(dumps / "two"), "views": "all"}
    one = softlabels.train(**words, out=str(tmp_path / "one.pt"))
    two = train_in_two(tmp_path, **words)
    assert [rank["world"] for rank in two] == [2, 2]
    assert two[0]["metrics"]["trained_rows"] == one.metrics["trained_rows"] == 3 * 1080
    for name, value in weights(tmp_path / "one.pt").items():
        torch.testing.assert_close(weights(tmp_path / "s.pt")[name], value, rtol=1e-3, atol=1e-4)


def test_views_that_are_not_there_are_refused(dumps, dump_folder, tmp_path):
    out = tmp_path / "never.pt"
    four = str(dumps / "four")
    for dump, views, message in (
        (
            four,
            5,
            r"--views is 5, and .*four has 4 drawn views of each input: use 4 or less, or all",
        ),
        (dump_folder, 1, "--views is 1, and .*digits-t has each input as it is, without views"),
        (
            dump_folder,
            "all",
            "--views is all, and .*digits-t has each input as it is, without view",
        ),
        (four, 0, "--views is 0; it must be a whole number, 1 or more, or all"),
        (four, "many", "--views is 'many'; it must be a whole number, 1 or more, or all"),
    ):
        with pytest.raises(UsageError, match=message):
            softlabels.train(dump=dump, views=views, student="linear", epochs=1, out=out)
    assert not out.exists()


def test_cropped_views_are_decoded_ahead_once_an_epoch(photos, tmp_path, monkeypatch):  # noqa: F811
    """In training, the clean view once for all epochs; in a loop of timm they are the same ones."""
    out = tmp_path / "d"
    teacher = save_script(Flat(), tmp_path / "flat.pt")
    augment = "random_resized_crop(8)|flip"
    softlabels.dump(teacher=teacher, data=photos, preprocess=RESIZED, out=str(out), views=2,
                    augment=augment, batch_size=9)  # fmt: skip
    dataset = softlabels.load(out, streaming=True)
    expected = {(id, view): row for view in (0, 1, 2) for id, row in pictures(dataset.view(view))}
    decoded: list[str] = []
    threads: set[str] = set()

    def decode(cell, preprocess, id, *extra):
        decoded.append(str(id))
        threads.add(threading.current_thread().name)
        return decode_image(cell, preprocess, id, *extra)

    monkeypatch.setattr(decoding, "decode_image", decode)
    softlabels.train(dump=str(out), student="linear", epochs=4, holdout=0.25, batch_size=9,
                     out=str(tmp_path / "s.pt"))  # fmt: skip
    assert 36 * 3 + 48 <= len(decoded) < 36 * 3 + 48 + 10, "a few more are tried at the beginning"
    assert any(name.startswith("ahead") for name in threads)
    config = {"input_size": (3, 8, 8), "mean": [0.0] * 3, "std": [1 / 255] * 3}
    loader = softlabels.TimmLoader(out, config, 10, shuffle=False)
    for view in (0, 1, 2):
        rows = dataset.view(view)[:]
        inputs = torch.cat([input for input, _ in loader])
        for id, input in zip(rows["id"], inputs, strict=True):
            assert torch.equal(input, expected[id, view] * 255)


def pictures(dataset):
    rows = dataset[:]
    return zip(rows["id"], rows["input"], strict=True)
