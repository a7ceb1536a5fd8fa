"""Data sets in memory as `data=` and `source=`: the same dump as from files, and honest records."""

import json
import random
import threading
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

import softlabels
from softlabels.errors import AlignmentError, PlanMismatch, SourceError, UsageError
from softlabels.inputs.opening import open_source
from tests.conftest import Linear, Lines, make_vectors, save_script, whole

NAMES = ["cat", "dog", "owl"]


@pytest.fixture
def linear(tmp_path: Path) -> str:
    return save_script(Linear(), tmp_path / "linear.pt")


@pytest.fixture
def dataset(vectors: str) -> datasets.Dataset:
    return datasets.Dataset.from_parquet(vectors)


class Pairs(torch.utils.data.Dataset):
    """(tensor, label), as torchvision's data sets give them; counts what is read."""

    def __init__(self, dataset: datasets.Dataset, beside: bool = False) -> None:
        self.x = torch.tensor(dataset["x"])
        self.y = list(dataset["label"])
        self.classes = dataset.features["label"].names
        self.reads = np.zeros(len(self.y), int)
        if beside:
            self.targets = self.y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        self.reads[row] += 1
        return self.x[row], self.y[row]


class Pictures(torch.utils.data.Dataset):
    """(PIL picture, label) in one of several modes, flipped at random where `flips` says so."""

    classes = NAMES

    def __init__(self, mode: str = "RGB", flips: bool = False) -> None:
        chance = np.random.default_rng(3)
        self.pixels = chance.integers(0, 256, (12, 8, 6, 3), dtype=np.uint8)
        self.mode, self.flips = mode, flips

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        picture = Image.fromarray(self.pixels[row]).convert(self.mode)
        if self.flips and random.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return picture, row % 3


def plan_of(folder: Path) -> dict:
    return json.loads((folder / "plan.json").read_text())


def pages(folder: Path) -> list[dict]:
    files = sorted(map(str, folder.glob("data/*.parquet")))
    return pq.ParquetDataset(files).read().to_pylist()


def test_a_data_set_of_datasets_gives_the_dump_that_its_file_gives(
    dataset, vectors, linear, tmp_path
):
    softlabels.dump(teacher=linear, data=vectors, out=str(tmp_path / "file"))
    out = tmp_path / "live"
    result = softlabels.dump(teacher=linear, data=dataset, out=str(out))
    assert result.rows_run == 300
    assert pages(out) == pages(tmp_path / "file")
    source, theirs = plan_of(out)["source"], plan_of(tmp_path / "file")["source"]
    assert (source["origin"], source["data"]) == ("live", "Dataset")
    assert "files" not in source
    assert dataset._fingerprint not in json.dumps(source)
    assert source["fingerprint"] == theirs["fingerprint"]
    card = (out / "README.md").read_text()
    assert "softlabels.dump(" in card
    assert "data=DATA" in card


def test_a_torch_data_set_is_joined_read_and_verified_like_a_file(dataset, linear, tmp_path):
    live, out = Pairs(dataset), str(tmp_path / "d")
    softlabels.dump(teacher=linear, data=live, out=out, shard_rows=100)
    assert plan_of(tmp_path / "d")["source"]["class_names"] == ["a", "b", "c"]
    loaded = softlabels.load(out, T=2, source=live)
    expected = Linear()(live.x)
    torch.testing.assert_close(whole(loaded).float(), expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(loaded["input"], live.x, atol=0, rtol=0)
    assert loaded["label"].tolist() == live.y
    assert softlabels.verify(dump=out, source=True, data=live).good
    assert softlabels.verify(dump=out, replay=50, teacher=linear, data=live).good
    backwards = Pairs(dataset.select(range(299, -1, -1)))
    verdict = softlabels.verify(dump=out, source=True, data=backwards)
    assert not verdict.good, "rows in another order have other ids"
    changed = Pairs(dataset)
    changed.x[150] += 1
    with pytest.raises(AlignmentError, match="first the rows with id 150"):
        _ = softlabels.load(out, source=changed)["input"]


def test_load_and_train_say_what_they_need_without_the_object(dataset, linear, tmp_path, cli):
    live, out = Pairs(dataset), str(tmp_path / "d")
    softlabels.dump(teacher=linear, data=live, out=out)
    with pytest.raises(SourceError, match=r"'Pairs', was a data set in memory.*source=DATASET"):
        softlabels.load(out)
    assert len(softlabels.load(out, inputs=False)) == 300
    done = cli("train", out, "--epochs", 1)
    assert (done.code, "was a data set in memory" in done.err) == (1, True)
    student = str(tmp_path / "s.pt")
    softlabels.train(dump=out, source=live, epochs=1, student="linear", out=student)
    with pytest.raises(UsageError, match="was trained on 'Pairs', a data set in memory"):
        softlabels.evaluate(checkpoint=student, split="train")
    assert softlabels.evaluate(checkpoint=student, data=live)["rows"] == 300
    stored = str(tmp_path / "stored")
    softlabels.dump(teacher=linear, data=live, out=stored, store_inputs="original")
    torch.testing.assert_close(softlabels.load(stored)["input"], live.x, atol=0, rtol=0)


def test_pictures_have_the_pixels_that_the_data_set_gives(tmp_path):
    live = Pictures()
    softlabels.fit(data=live, model="linear", epochs=1, out=str(tmp_path / "t.pt"))
    out = str(tmp_path / "d")
    softlabels.dump(teacher=str(tmp_path / "t.pt"), data=live, out=out)
    loaded = softlabels.load(out, source=live)
    assert loaded.class_names == NAMES
    assert str(loaded.preprocess) == "upright|scale(255)"
    expected = torch.from_numpy(live.pixels.transpose(0, 3, 1, 2)) / 255
    torch.testing.assert_close(loaded["input"], expected)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
def test_a_picture_of_any_mode_is_the_same_picture(mode):
    live = Pictures(mode)
    source = open_source(live)
    assert source.kind == "image"
    rows = softlabels.examples(live, preprocess="rgb")
    for row in range(3):
        expected = np.asarray(live[row][0].convert("RGB")).transpose(2, 0, 1)
        np.testing.assert_array_equal(rows[row]["input"].numpy(), expected)


def test_a_data_set_that_augments_at_random_is_refused(tmp_path, linear):
    with pytest.raises(SourceError, match=r"row \d+ of Pictures is not what it was.*at random"):
        open_source(Pictures(flips=True))


def test_a_row_that_changes_later_is_refused_when_it_is_read_again(dataset, linear, tmp_path):
    live = Pairs(dataset)
    source = open_source(live)
    source.read(100, 120)
    live.x[110] += 1
    with pytest.raises(SourceError, match="row 110 of Pairs is not what it was"):
        source.read(100, 120)


def test_rows_are_read_once_where_labels_lie_beside_them(dataset, linear, tmp_path):
    live, few = Pairs(dataset, beside=True), Pairs(dataset)
    softlabels.dump(teacher=linear, data=live, out=str(tmp_path / "a"), batch_size=32)
    softlabels.dump(teacher=linear, data=few, out=str(tmp_path / "b"), batch_size=32)
    assert np.median(live.reads) == 1
    assert np.median(few.reads) == 2, "once for the label"
    live = Pairs(dataset, beside=True)
    live.targets = [*live.y[:150], (live.y[150] + 1) % 3, *live.y[151:]]
    with pytest.raises(SourceError, match=r"row 150 of Pairs has the label ., and its `targets`"):
        softlabels.dump(teacher=linear, data=live, out=str(tmp_path / "c"))


def test_rows_may_be_dicts_named_tuples_subsets_and_inputs_alone(dataset, vectors):
    pairs = Pairs(dataset)
    rows = [{"pixels": pairs.x[i].numpy(), "y": y, "key": f"r{i}"} for i, y in enumerate(pairs.y)]
    source = open_source(rows, id_column="key")
    assert (source.columns.inputs, source.columns.label) == (("pixels",), "y")
    assert source.ids[:2].tolist() == ["r0", "r1"]
    plain = open_source(vectors)
    assert source.read(0, 300).hashes.tolist() == plain.read(0, 300).hashes.tolist()
    subset = open_source(Subset(pairs, [5, 3]))
    assert (subset.name, subset.class_names) == ("Pairs-subset", ["a", "b", "c"])
    assert subset.labels.tolist() == [pairs.y[5], pairs.y[3]]
    alone = open_source(pairs.x)
    assert not alone.labelled
    assert alone.read(0, 9).hashes.tolist() == plain.read(0, 9).hashes.tolist()


def test_a_transform_of_datasets_is_not_applied_and_said(dataset):
    lines = Lines()

    def augment(batch):
        return {
            name: cells if name != "x" else np.random.rand(len(cells), 6)
            for name, cells in batch.items()
        }

    source = open_source(dataset.with_transform(augment), progress=lines)
    assert "warning: the data set's transform is not applied" in str(lines)
    same = open_source(dataset.with_format("torch", columns=["x"]))
    assert source.read(0, 50).hashes.tolist() == same.read(0, 50).hashes.tolist()
    assert same.labelled


def test_splits_have_the_names_that_the_data_set_knows(dataset):
    both = datasets.DatasetDict({"train": dataset, "val": dataset.select(range(10))})
    assert len(open_source(both)) == 300
    assert (len(open_source(both, "validation")), open_source(both, "validation").split) == (
        10,
        "val",
    )
    with pytest.raises(SourceError, match="the DatasetDict has no split 'test'; it has train, val"):
        open_source(both, "test")
    assert open_source(Pairs(dataset), "test").split == "test"
    with pytest.raises(SourceError, match="the data set is the split 'train', not 'test'"):
        open_source(dataset, "test")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d.to_iterable_dataset(), "a IterableDataset, is a stream.*to_parquet"),
        (lambda d: torch.utils.data.DataLoader(Pairs(d)), "gives batches.*its .dataset"),
        (lambda d: iter([1]), "is a stream"),
        (lambda d: d.to_pandas(), r"is a table; give datasets.Dataset.from_pandas\(data\)"),
        (lambda d: {"x": [1]}, "has its rows by key"),
        (lambda d: 7, "--data is 7; it must be text, or in Python a datasets.Dataset or a torch"),
        (lambda d: [(1, 2, 3)], "a row of list is a tuple of 3; expected an input"),
        (lambda d: [object()], "'input' of list holds a object|no column is an image"),
        (lambda d: [(torch.zeros(2), 0), (torch.zeros(3), 1)], r"is float32 \[3\] in a row"),
        (lambda d: [(torch.zeros(2), 0), {"x": 1}], "rows have the same entries"),
        (lambda d: [], "has no rows"),
    ],
)  # fmt: skip
def test_what_is_no_data_set_with_rows_by_number_is_refused_in_words(
    make, message, dataset, linear
):
    with pytest.raises((SourceError, UsageError), match=message):
        softlabels.dump(teacher=linear, data=make(dataset), out="never")


def test_a_resume_wants_the_same_rows(dataset, linear, tmp_path):
    out = str(tmp_path / "d")
    softlabels.dump(teacher=linear, data=Pairs(dataset), out=out, shard_rows=100)
    next(iter((tmp_path / "d" / "data").iterdir())).unlink()
    other = Pairs(dataset)
    other.x += 1
    with pytest.raises(PlanMismatch, match=r"source\.sample is .* and was"):
        softlabels.dump(teacher=linear, data=other, out=out, resume=True)
    result = softlabels.dump(teacher=linear, data=Pairs(dataset), out=out, resume=True)
    assert result.rows_run == 100
    with pytest.raises(UsageError, match=r"--engine ray .* takes no data set in memory"):
        softlabels.dump(teacher=linear, data=Pairs(dataset), out=out, engine="ray")


def test_logits_are_imported_for_a_data_set_in_memory(dataset, tmp_path):
    live = Pairs(dataset)
    np.save(tmp_path / "logits.npy", Linear()(live.x).detach().numpy())
    made = softlabels.import_logits(
        file=str(tmp_path / "logits.npy"), data=live, ids=None, out=str(tmp_path / "d")
    )
    assert made.manifest.rows == 300


def test_no_thread_reads_behind_the_back_of_who_made_it(dataset, linear, tmp_path):
    class Seeded(Pairs):
        """Draws its rows from torch's own generator, as torchvision's FakeData does."""

        def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
            torch.manual_seed(row)
            time.sleep(1e-4)
            return torch.randn(6), super().__getitem__(row)[1]

    live, out = Seeded(dataset), str(tmp_path / "d")
    expected = torch.stack([live[row][0] for row in range(300)])
    softlabels.dump(teacher=linear, data=live, out=out, batch_size=16, workers=4)
    loaded = softlabels.load(out, source=live)
    torch.testing.assert_close(loaded[:8]["input"], expected[:8], atol=0, rtol=0)
    reads = live.reads.sum()
    for row in range(300):
        assert torch.equal(live[row][0], expected[row])
    assert live.reads.sum() == reads + 300
    other = softlabels.load(out, source=Seeded(dataset))
    torch.testing.assert_close(other["input"], expected, atol=0, rtol=0)


def test_training_in_blocks_does_not_read_it_beside_a_step(dataset, linear, tmp_path):
    class Watched(Pairs):
        def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
            threads.add(threading.current_thread().name)
            return super().__getitem__(row)

    threads: set[str] = set()
    live, out = Watched(dataset), str(tmp_path / "d")
    softlabels.dump(teacher=linear, data=live, out=out)
    threads.clear()
    softlabels.train(dump=out, source=live, student="linear", epochs=2, shuffle="blocks(8, 4)",
                     out=str(tmp_path / "s.pt"))  # fmt: skip
    assert threads == {threading.current_thread().name}


def test_workers_of_a_loader_read_it_after_a_fork(dataset, linear, tmp_path):
    live, out = Pairs(dataset), str(tmp_path / "d")
    softlabels.dump(teacher=linear, data=live, out=out)
    loaded = softlabels.load(out, T=1, source=live)
    loader = torch.utils.data.DataLoader(loaded, batch_size=100, num_workers=1)
    inputs = torch.cat([batch["input"] for batch in loader])
    torch.testing.assert_close(inputs, live.x, atol=0, rtol=0)


def test_a_file_of_the_same_rows_is_a_source_too(dataset, linear, tmp_path):
    softlabels.dump(teacher=linear, data=Pairs(dataset), out=str(tmp_path / "d"))
    file = str(tmp_path / "x.parquet")
    dataset.rename_column("x", "input").to_parquet(file)
    assert len(softlabels.load(str(tmp_path / "d"), source=file)["input"]) == 300
    other = make_vectors(tmp_path / "other.parquet", seed=1)
    with pytest.raises((AlignmentError, SourceError)):
        _ = softlabels.load(str(tmp_path / "d"), source=other)["input"]
