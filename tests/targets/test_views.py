"""Rows of several views: whatever way a batch comes, its ids, views, inputs, labels and logits are
those of the files, read by pyarrow and shifted by hand."""

from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np
import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import UsageError
from softlabels.targets import as_it_is
from tests.test_views_road import moved

VIEWS = [0, 1, 2]


@pytest.fixture(scope="module")
def stored(views_folder) -> dict[str, np.ndarray]:
    """Each column of the files by name, and the inputs; the row with id i and view v is 3·i + v."""
    table = pq.read_table(views_folder / "data")
    columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    order = np.lexsort([columns["view"], columns["id"]])
    columns = {name: values[order] for name, values in columns.items()}
    clean = softlabels.examples("digits").take(columns["id"])["input"]
    shifts = np.stack([columns["shift_down"], columns["shift_right"]], axis=1)
    return columns | {"input": moved(clean, shifts).numpy()}


def resumed(dataset) -> Iterable:
    """An epoch that is taken up in its middle by another object."""
    words = {"batch_size": 128, "shuffle": True, "views": "turn", "epoch": 2}
    first = dataset.batches(**words)
    passing = iter(first)
    yield next(passing)
    yield next(passing)
    second = dataset.batches(**words | {"epoch": 0})
    second.load_state_dict(first.state_dict())
    yield from second


def of_epochs(dataset, **words) -> Iterable:
    batches = dataset.batches(200, shuffle=True, seed=4, **words)
    for epoch in range(4):
        batches.set_epoch(epoch)
        yield from batches


LOADER = {"batch_size": None, "collate_fn": as_it_is}
WAYS: dict[str, tuple[dict, Callable, list[int]]] = {
    "all": ({}, lambda d: d.batches(100, shuffle=True), [0, 1, 2]),
    "in turn": ({}, lambda d: of_epochs(d, views="turn"), [0, 1, 2, 0]),
    "some in turn": ({}, lambda d: of_epochs(d, views=1), [0, 1, 0, 1]),
    "streamed": ({"streaming": True}, lambda d: d.batches(100, shuffle=True), [0, 1, 2]),
    "streamed in turn": ({"streaming": True}, lambda d: of_epochs(d, views="turn"), [0, 1, 2, 0]),
    "blocks in turn": ({}, lambda d: d.batches(90, shuffle="blocks(8, 16)", views="turn", epoch=1),
                       [1]),
    "workers in turn": ({}, lambda d: d.batches(150, shuffle=True, views="turn", epoch=2,
                                                workers=2), [2]),
    "ranks in turn": ({}, lambda d: chain(*(d.batches(70, shuffle=True, views="turn", epoch=2,
                                                      rank=r, world=3) for r in range(3))), [2]),
    "resumed": ({}, resumed, [2]),
    "a DataLoader": ({}, lambda d: DataLoader(d, batch_size=100, shuffle=True), [0, 1, 2]),
    "one of batches": ({}, lambda d: DataLoader(d.batches(99, views="turn", epoch=4), **LOADER),
                       [1]),
    "one view": ({}, lambda d: d.view(2).batches(100, shuffle=True), [2]),
    "one view, streamed": ({"streaming": True}, lambda d: d.view(1).batches(100, shuffle=True),
                           [1]),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_all_that_a_batch_has_is_of_the_same_rows(views_folder, stored, way):
    options, batches_of, views = WAYS[way]
    dataset = softlabels.load(views_folder, **options)
    assert dataset.view_numbers == VIEWS
    given = []
    for batch in batches_of(dataset):
        rows = batch["id"].numpy() * 3 + batch["view"].numpy()
        for name in ("input", "label", "logits"):
            assert np.array_equal(batch[name].numpy(), stored[name][rows]), name
        given.append(rows)
    expected = np.concatenate([3 * np.arange(1200) + view for view in views])
    assert np.array_equal(np.sort(np.concatenate(given)), np.sort(expected))


def test_several_dumps_of_views(views_folder, stored):
    both = softlabels.load([views_folder, views_folder])
    for batch in both.batches(400, shuffle=True, views="turn", epoch=1):
        assert set(batch["view"].tolist()) == {1}
        rows = batch["id"].numpy() * 3 + 1
        assert np.array_equal(batch["input"].numpy(), stored["input"][rows])
        assert np.array_equal(batch["logits"].numpy(), stored["logits"][rows])
    beside = softlabels.load({"a": views_folder, "b": views_folder})
    for batch in beside.batches(400, shuffle=True, views=2, epoch=2):
        rows = batch["id"].numpy() * 3 + 2
        assert np.array_equal(batch["input"].numpy(), stored["input"][rows])
        for logits in batch["logits"].values():
            assert np.array_equal(logits.numpy(), stored["logits"][rows])
    some = softlabels.load(views_folder, shards="1-2")
    assert len(some.batches(100, views="turn")) == 6


def test_a_state_of_other_views_is_refused_and_so_are_words(views_folder, dump_folder):
    dataset = softlabels.load(views_folder)
    state = dataset.batches(100, views="turn").state_dict()
    with pytest.raises(
        UsageError, match=r"whose data is .*, views 0, 1, 2 in turn'; here it is .*"
    ):
        dataset.batches(100, views=1).load_state_dict(state)
    for views, message in (
        ("every", "views is 'every'; use all, turn, or how many drawn views, 1 or more"),
        (0, "views is 0; use all, turn, or how many"),
        (
            3,
            "views is 3, and .*digits-views has 2 drawn views of each input: use 2 or less, or all",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            dataset.batches(100, views=views)
    plain = softlabels.load(dump_folder)
    assert len(plain.batches(100, views="turn")) == 12
    with pytest.raises(UsageError, match=r"has each input as it is, without views. Leave it out"):
        plain.batches(100, views=1)
