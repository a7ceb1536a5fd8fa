"""Soft targets for those who stay with `datasets`."""

import datasets
import pytest
import torch
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import AlignmentError, UsageError
from tests.targets.test_loading import vectors_dump


@pytest.mark.parametrize("ids", ["numbers", "text"])
def test_a_dataset_gets_tempered_columns_by_id(ids, dump_folder, tmp_path):
    folder = dump_folder if ids == "numbers" else vectors_dump(tmp_path)[1]
    plain = datasets.load_dataset(folder, split="train", cache_dir=str(tmp_path / "hf"))
    plain = plain.shuffle(seed=0)
    dataset = softlabels.with_soft_targets(plain, folder, T=5)
    expected = softlabels.load(folder, T=5, inputs=False)
    batch = dataset[7:30]
    stored = torch.tensor(plain[7:30]["logits"])
    assert batch["logits"].dtype == torch.float16
    assert torch.equal(batch["logits"].float(), stored.float())
    assert torch.equal(batch["soft_target"], torch.softmax(stored.float() / 5, -1))
    assert batch["id"] == plain[7:30]["id"]
    assert torch.equal(dataset[7]["soft_target"], batch["soft_target"][0])
    assert set(dataset[7]) == {*plain.column_names, "soft_target"} - {"input_hash"}
    hotter = softlabels.with_soft_targets(plain, folder, T=50)
    assert hotter[7]["soft_target"].max() < dataset[7]["soft_target"].max()
    loader = DataLoader(dataset, batch_size=20, num_workers=2)
    targets = torch.cat([b["soft_target"] for b in loader])
    rows = {row["id"]: row["soft_target"] for row in map(expected.__getitem__, range(len(plain)))}
    assert torch.equal(targets, torch.stack([rows[id] for id in plain["id"]]))


def test_what_can_not_be_joined(dump_folder, tmp_path):
    plain = datasets.Dataset.from_dict({"id": [5, 1200, -1], "x": [1, 2, 3]})
    dataset = softlabels.with_soft_targets(plain, dump_folder, T=5)
    assert dataset[0]["x"] == 1
    with pytest.raises(AlignmentError, match=r"2 of 3 rows are not in .*first the ids 1200, -1"):
        dataset[:]
    with pytest.raises(UsageError, match="no column id; it has x"):
        softlabels.with_soft_targets(plain.remove_columns("id"), dump_folder, T=5)
    with pytest.raises(UsageError, match=r"a DatasetDict; give one split, such as dataset\['tr"):
        softlabels.with_soft_targets(datasets.DatasetDict(train=plain), dump_folder, T=5)
