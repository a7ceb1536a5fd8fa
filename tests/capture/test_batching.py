"""How many rows go through a teacher at once: found, and fewer where memory runs out."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import softlabels
from softlabels.capture import batching
from softlabels.errors import OutOfMemory, TeacherError, UsageError
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from softlabels.system.progress import Advance
from tests.conftest import Linear, Lines, every, make_vectors

ROWS = 600


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return make_vectors(tmp_path_factory.mktemp("data") / "v.parquet", ROWS)


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory) -> Path:
    """The dump in batches of a given size."""
    out = tmp_path_factory.mktemp("expected") / "d"
    softlabels.dump(teacher=Linear(), **words(data, out))
    return out


@pytest.fixture
def sizes_gain(monkeypatch) -> None:
    """Each larger size gains, on a busy machine too."""
    monkeypatch.setattr(batching, "GAIN", 0.0)
    monkeypatch.setitem(batching.SECONDS, "cpu", 60.0)


def words(data: str, out: Path, **more) -> dict:
    return {"name": "t", "data": data, "out": str(out), "shard_rows": 400} | more


class Full(Linear):
    """Has memory for `most` rows at once; after so many batches `left` only for 20."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.left = 10**9
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        self.most, self.left = self.most if self.left else 20, max(0, self.left - 1)
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x)


class Filling(Lines):
    """Memory runs out after two batches of the dump."""

    def __init__(self, net: Full) -> None:
        super().__init__()
        self.net = net

    @contextmanager
    def bar(self, what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        self.net.left = 2
        yield lambda n, note="": None


def commits(out: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(out.glob("commits/*.json"))]


def logits(out: Path) -> np.ndarray:
    return every(DumpReader(Folder(str(out))))


@pytest.mark.usefixtures("sizes_gain")
@pytest.mark.parametrize(
    ("most", "size", "why"),
    [(100, 64, "128 don't fit into memory"), (20, 16, "32 don't fit into memory"),
     (10_000, 256, "--shard-rows is 400, and ends a batch")],
)  # fmt: skip
def test_a_batch_size_is_found_that_fits_and_the_dump_is_the_same(
    data, expected, tmp_path, most, size, why
):
    net, out, progress = Full(most), tmp_path / "d", Lines()
    softlabels.dump(teacher=net, batch_size="auto", progress=progress, **words(data, out))
    [line] = [line for line in progress.lines if line.startswith("batches of ")]
    assert line.startswith(f"batches of {size} rows, ")
    assert line.endswith(why)
    assert max(net.sizes[-2:]) <= size
    plans = [json.loads((folder / "plan.json").read_text()) for folder in (out, expected)]
    assert plans[0]["batch_size"] is None
    assert plans[0]["source"] == plans[1]["source"]
    np.testing.assert_allclose(logits(out), logits(expected), atol=1e-3)
    assert {(one["at_once"], one["device"]) for one in commits(out)} == {(size, "cpu")}
    assert {one["at_once"] for one in commits(expected)} == {256}


def test_twice_as_many_rows_have_to_gain(data):
    def slow(inputs: Tensor) -> None:
        time.sleep(len(inputs) ** 2 / 1e5)  # ever slower

    cpu, inputs = torch.device("cpu"), torch.zeros(7, 6)
    found = batching.find(slow, inputs, cpu, batching.Most(4096, "no more"))
    assert (found.rows, found.why) == (32, "64 gain less than 5%")
    found = batching.find(lambda inputs: time.sleep(1.1), inputs, cpu, batching.Most(64, "no more"))
    assert (found.rows, found.why) == (32, "to try more would take too long")
    assert batching.Most.of(10**9, 1 << 50, 12).rows == 1


@pytest.mark.usefixtures("sizes_gain")
def test_memory_that_runs_out_in_a_dump_takes_fewer_rows_and_loses_none(data, expected, tmp_path):
    net, out = Full(128), tmp_path / "d"

    progress = Filling(net)
    softlabels.dump(teacher=net, batch_size="auto", progress=progress, **words(data, out))
    assert [line for line in progress.lines if line.startswith("out of memory")] == [
        "out of memory with 128 rows at once: 64 from now on",
        "out of memory with 64 rows at once: 32 from now on",
        "out of memory with 32 rows at once: 16 from now on",
    ]
    assert commits(out)[-1]["at_once"] == 16
    np.testing.assert_allclose(logits(out), logits(expected), atol=1e-3)
    assert softlabels.verify(dump=str(out), source=True).good


def test_a_size_that_was_given_stays_and_the_error_says_what_helps(data, tmp_path):
    net, given = Full(128), words(data, tmp_path / "d")
    with pytest.raises(OutOfMemory, match=r"^out of memory with 200 rows at once; use a smaller"):
        softlabels.dump(teacher=net, batch_size=200, **given)
    net = Full(128)
    progress = Filling(net)
    with pytest.raises(OutOfMemory, match=r"smaller --batch-size, or in a dump.*auto.*resume"):
        softlabels.dump(teacher=net, batch_size=50, progress=progress, **given)
    with pytest.raises(UsageError, match="--allow-batch-dependence is about a teacher whose"):
        softlabels.dump(teacher=net, batch_size="auto", allow_batch_dependence=True, **given)
    with pytest.raises(UsageError, match="--batch-size is 'some'; it must be a whole number, 1 or"):
        softlabels.dump(teacher=net, batch_size="some", **given)


class Named(nn.Module):
    """Takes two columns by name, and has memory for 40 rows at once."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if len(a) > 40:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.stack([a, 2 * b], 1)


def test_columns_that_go_by_name_are_counted_too(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(2, 100)).astype(np.float32)
    table = datasets.Dataset.from_dict({"a": numbers[0], "b": numbers[1], "label": [0, 1] * 50})
    table.to_parquet(tmp_path / "t.parquet")
    softlabels.dump(teacher=Named(), batch_size="auto", input_column=("a", "b"), dtype="float32",
                    **words(str(tmp_path / "t.parquet"), tmp_path / "d"))  # fmt: skip
    assert commits(tmp_path / "d")[0]["at_once"] == 32
    np.testing.assert_allclose(logits(tmp_path / "d"), (numbers * [[1], [2]]).T, atol=1e-6)


@pytest.mark.slow
def test_an_error_about_memory_elsewhere_is_shown_and_one_row_has_no_smaller_batch(data, tmp_path):
    def far(inputs: Tensor) -> Tensor:
        raise RuntimeError("HTTP 503 of a.example: its worker ran out of memory, try later")

    given = words(data, tmp_path / "d", version="1")
    for size, rows in (("auto", "1 row"), (64, "64 rows")):
        with pytest.raises(OutOfMemory, match=rf"with {rows} at once: HTTP 503 of a.example: its"):
            softlabels.dump(teacher=far, batch_size=size, **given)
    with pytest.raises(OutOfMemory, match=r"^out of memory with 1 row at once; fewer can't be: fr"):
        softlabels.dump(teacher=Full(0), batch_size=1, **words(data, tmp_path / "d"))


def test_fewer_rows_than_a_batch_are_halved_not_the_batch():
    lines: list[str] = []
    sizes = batching.Batching(512, adapts=True, say=lines.append)
    assert not sizes.can_shrink(1)
    sizes.shrink(torch.device("cpu"), 100)
    assert lines == ["out of memory with 100 rows at once: 50 from now on"]
    assert sizes.rows == 50


class Turned(Full):
    """Answers otherwise in batches of more than 300 rows."""

    def forward(self, x: Tensor) -> Tensor:
        logits_NC = super().forward(x)
        return -logits_NC if len(x) > 300 else logits_NC


@pytest.mark.usefixtures("sizes_gain")
def test_a_teacher_that_depends_on_more_rows_than_were_tried_is_refused(data, tmp_path):
    given = words(data, tmp_path / "d", shard_rows=600)
    with pytest.raises(TeacherError, match=r"in one of 512,.*in one of 256 .*--batch-size 256, in"):
        softlabels.dump(teacher=Turned(10_000), batch_size="auto", **given)
    assert not (tmp_path / "d" / "plan.json").exists()


class Reader(nn.Module):
    """Reads tokens, and has memory for 20 rows at once."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if len(input_ids) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return (self.table(input_ids) * attention_mask[..., None]).sum(1)


def test_tokens_of_several_lengths_go_in_fewer_rows_too(tmp_path):
    chance = np.random.default_rng(0)
    tokens = [chance.integers(1, 50, length).tolist() for length in chance.integers(1, 9, 100)]
    table = datasets.Dataset.from_dict({"input_ids": tokens, "label": [0] * 100})
    table.to_parquet(tmp_path / "t.parquet")
    net, out, progress = Reader(), tmp_path / "d", Lines()
    softlabels.dump(teacher=net, batch_size="auto", progress=progress, dtype="float32",
                    **words(str(tmp_path / "t.parquet"), out))  # fmt: skip
    assert [line for line in progress.lines if line.startswith("batches of 16 rows, ")]
    exact = torch.stack([net.table(torch.tensor(row)).sum(0) for row in tokens]).detach()
    np.testing.assert_allclose(logits(out), exact.numpy(), atol=1e-5)
    read = commits(out)[0]["statistics"]
    groups = np.sort([len(row) for row in tokens])
    padded = sum(16 * part.max() if len(part) == 16 else len(part) * part.max()
                 for part in np.split(groups, range(16, 100, 16)))  # fmt: skip
    assert read["padding"] == padded - groups.sum()
