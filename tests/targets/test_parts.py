"""Some shards of a dump: the others need not be there."""

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import softlabels
from softlabels.errors import DamagedDump, UsageError
from softlabels.store.shard_numbers import parse_numbers, write_numbers
from tests.conftest import png, save_script
from tests.dumps import OTHER_WRITERS, make_dump

LOGITS = np.random.default_rng(3).normal(size=(1000, 10)).astype(np.float16)


class Flat(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1)[:, :3]


@settings(max_examples=20)
@given(
    writer=st.sampled_from([None, *OTHER_WRITERS]), shard_rows=st.integers(60, 200),
    how=st.sampled_from([{"keep": "disk"}, {"streaming": True}]),
    cached=st.booleans(), shuffle=st.booleans(), data=st.data(),
)  # fmt: skip
def test_chosen_shards_give_their_rows_and_no_other_file_is_looked_at(
    tmp_path_factory, writer, shard_rows, how, cached, shuffle, data
):
    folder = tmp_path_factory.mktemp("d")
    logits = LOGITS[:300]
    make_dump(folder, logits, 16, shard_rows, OTHER_WRITERS.get(writer))
    files = sorted(folder.glob("data/*"))
    chosen = data.draw(st.sets(st.integers(0, len(files) - 1), min_size=1))
    for number, file in enumerate(files):
        if number not in chosen:
            file.unlink()
    cache = tmp_path_factory.mktemp("cache") if cached else False
    dataset = softlabels.load(folder, T=2, inputs=False, shards=chosen, cache=cache, **how)
    rows = [row for number in sorted(chosen) for row in range(300) if row // shard_rows == number]
    assert len(dataset) == len(rows)
    batches = list(dataset.batches(32, shuffle=shuffle))
    dataset.settle()
    ids = torch.cat([batch["id"] for batch in batches])
    assert sorted(ids.tolist()) == rows
    assert torch.equal(
        torch.cat([b["logits"] for b in batches]), torch.from_numpy(logits[ids.numpy()])
    )
    assert torch.equal(torch.cat([b["label"] for b in batches]), ids % 10)


@given(st.sets(st.integers(0, 400), min_size=1))
def test_numbers_are_read_as_they_are_written(numbers):
    assert parse_numbers(write_numbers(sorted(numbers)), 401) == sorted(numbers)


@pytest.mark.parametrize(
    ("words", "numbers"),
    [("3", [3]), (" 0 - 2, 5 ", [0, 1, 2, 5]), ("4,1-2,2", [1, 2, 4]), ([5, 0], [0, 5]),
     (None, [0, 1, 2, 3, 4, 5])],
)  # fmt: skip
def test_how_shards_are_written(words, numbers):
    assert parse_numbers(words, 6) == numbers


@pytest.mark.parametrize("words", ["6", "2-1", "0-9", "", "-1", "a", "1.5", "0,", [], [-1], [7]])
def test_shards_that_are_not_there_are_refused(words):
    with pytest.raises(UsageError, match=r"--shards .*the dump has 6 shards"):
        parse_numbers(words, 6)


def test_a_state_is_of_the_same_shards(tmp_path):
    folder = make_dump(tmp_path / "d", LOGITS, 16, 500)
    first, second = (
        softlabels.load(folder, T=2, inputs=False, shards=[number]) for number in (0, 1)
    )
    state = first.batches(100).state_dict()
    with pytest.raises(UsageError, match=r"shards 0.*shards 1"):
        second.batches(100).load_state_dict(state)


def test_a_student_learns_from_some_shards(dump_folder, tmp_path):
    out = str(tmp_path / "s.pt")
    result = softlabels.train(dump=dump_folder, T=4, epochs=1, shards="0", out=out)
    assert result.metrics["trained_rows"] + result.metrics["held_out"]["rows"] == 500
    assert result.checkpoint.training["shards"] == "0"


def test_a_chosen_shard_that_is_missing_is_damage(tmp_path):
    folder = make_dump(tmp_path / "d", LOGITS, 16, 300)
    sorted(folder.glob("data/*"))[2].unlink()
    assert len(softlabels.load(folder, T=2, inputs=False, shards="0-1")) == 600
    with pytest.raises(DamagedDump, match=r"00002-of-00004.* is missing"):
        softlabels.load(folder, T=2, inputs=False, shards="1-2")


def test_shards_of_which_nothing_is_left_are_refused(tmp_path):
    images = [{"bytes": b"bad" if 3 <= row < 6 else png(np.full((8, 8), row)), "path": None}
              for row in range(9)]  # fmt: skip
    data = {"image": images, "label": [0] * 9}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(data, features=features).to_parquet(str(tmp_path / "i.parquet"))
    out = str(tmp_path / "d")
    teacher = save_script(Flat(), tmp_path / "flat.pt")
    softlabels.dump(teacher=teacher, data=str(tmp_path / "i.parquet"), out=out, shard_rows=3,
                    store_inputs="original", on_error="skip")  # fmt: skip
    for words in ({}, {"streaming": True}, {"inputs": False}):
        with pytest.raises(UsageError, match=r"--shards 1 of .* have no rows.*choose others too"):
            softlabels.load(out, T=2, shards="1", **words)
        assert len(softlabels.load(out, T=2, shards="1-2", **words)) == 3
