"""A teacher over data whose labels are of other classes, or that are to have none."""

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from torch import nn

import softlabels
from softlabels.errors import (
    LabelSpaceMismatch,
    LogitsError,
    SourceError,
    UsageError,
)
from softlabels.exchange import import_logits
from tests.conftest import Lines, png, save_script

PETS = ["cat", "dog"]
IDS = [f"{pet}/{number}.png" for pet in PETS for number in range(4)]
LABELS = [0] * 4 + [1] * 4
KINDS = [f"kind {number}" for number in range(12)]


class Flat(nn.Module):
    """Twelve classes for pictures of 8×8."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(64, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with t.pt, names.txt and photos/. Not to be changed."""
    folder = tmp_path_factory.mktemp("own")
    save_script(Flat(), folder / "t.pt")
    (folder / "names.txt").write_text("\n".join(KINDS) + "\n")
    for seed, id in enumerate(IDS):
        path = folder / "photos" / id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(np.random.default_rng(seed).integers(0, 256, (8, 8))))
    return folder


@pytest.fixture(scope="module")
def dump(place) -> str:
    out = str(place / "d")
    softlabels.dump(
        teacher=str(place / "t.pt"), data=str(place / "photos"), out=out, shard_rows=5,
        own_labels=True, class_names=str(place / "names.txt"),
    )  # fmt: skip
    return out


def run(place: Path, out: Path, **options) -> list[str]:
    lines = Lines()
    options = {"teacher": str(place / "t.pt"), "data": str(place / "photos")} | options
    softlabels.dump(progress=lines, out=str(out), **options)
    return lines.lines


def test_a_dump_over_other_classes_is_refused_with_both_ways_out(cli, place, tmp_path):
    words = ("--teacher", place / "t.pt", "--data", place / "photos")
    for options in ((), ("--class-names", place / "names.txt")):
        refused = cli("dump", *words, *options)
        assert refused.code == 1
        assert "--own-labels" in refused.err
        assert "--no-labels" in refused.err
    assert cli("dump", *words, "--no-labels", "--out", "d").code == 0
    row = softlabels.load(tmp_path / "d", inputs=False)[0]
    assert set(row) == {"id", "view", "label", "logits"}
    assert row["label"] == -1
    assert softlabels.verify(dump=str(tmp_path / "d"), source=True).good
    assert "--no-labels" in (tmp_path / "d" / "README.md").read_text()


@pytest.mark.parametrize("streaming", [False, True])
def test_own_labels_are_a_column_of_their_own_and_score_nothing(dump, streaming):
    dataset = softlabels.load(dump, T=2, streaming=streaming)
    batch = dataset.take(range(8))
    assert batch["label_source"].tolist() == LABELS
    assert batch["label"].tolist() == [-1] * 8
    assert dataset[6]["label_source"] == 1
    assert "label_source" in dataset.column_names
    assert dataset.class_names == KINDS
    assert dataset.label_source_names == PETS
    manifest = softlabels.info(dump)["manifest"]
    assert manifest["statistics"]["labelled"] == 0
    assert "accuracy" not in manifest["statistics"]
    assert manifest["plan"]["source"]["columns"]["label"] is None
    assert manifest["plan"]["source"]["columns"]["label_source"] == "label"
    assert softlabels.verify(dump=dump, source=True).good


def test_datasets_reads_the_names_of_both(dump, tmp_path):
    rows = datasets.load_dataset(dump, split="train", cache_dir=str(tmp_path))
    assert rows.features["label_source"] == datasets.ClassLabel(names=PETS)
    assert rows["label_source"] == LABELS
    assert "label" not in rows.features
    soft = softlabels.with_soft_targets(rows, dump, T=2)
    assert soft[5]["label_source"] == 1
    card = (Path(dump) / "README.md").read_text()
    assert "of the data's own 2 classes, cat, dog, in label_source" in card
    assert "--own-labels" in card
    assert "--class-names NAMES" in card


def test_a_student_learns_from_the_logits_alone(dump, place, tmp_path):
    words = {"dump": dump, "student": "linear", "epochs": 1, "out": str(tmp_path / "s.pt")}
    with pytest.raises(UsageError, match=r"label_source is of others\. Use --alpha 1"):
        softlabels.train(**words)
    softlabels.train(**words, alpha=1, holdout=0.25)
    with pytest.raises(LabelSpaceMismatch, match=r"'cat' of .* is no class of"):
        softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), split="train")
    with pytest.raises(UsageError, match=r"--no-labels leaves nothing to measure .* --against"):
        softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), split="train", labels=False)
    words = {"checkpoint": str(tmp_path / "s.pt"), "split": "train", "labels": False}
    measured = softlabels.evaluate(**words, against=dump)
    assert 0 <= measured["against"]["agreement"] <= 1
    assert "accuracy" not in measured
    assert len(measured.lines) == 1


def test_labels_that_changed_are_found_and_a_resume_refuses_them(dump, place, tmp_path):
    data = tmp_path / "photos"
    for id in IDS:
        path = data / (id if id != "cat/3.png" else "dog/3b.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((place / "photos" / id).read_bytes())
    words = {"own_labels": True, "class_names": str(place / "names.txt"), "shard_rows": 5}
    with pytest.raises(softlabels.errors.PlanMismatch, match="differ"):
        run(place, Path(dump), data=str(data), resume=True, **words)
    data.rename(tmp_path / "moved")
    for id in IDS:
        path = data / id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((place / "photos" / id).read_bytes())
    others = [{"file_name": id, "label": PETS[1 - n]} for id, n in zip(IDS, LABELS, strict=True)]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, others)))
    verdict = softlabels.verify(dump=dump, source=True, data=str(data))
    assert any("8 of 8 labels are not what" in str(finding) for finding in verdict.findings)


def test_dumps_with_stored_inputs_views_and_no_inputs_keep_the_column(place, dump, tmp_path):
    words = {"own_labels": True, "views": 1, "augment": "jitter(1)"}
    run(place, tmp_path / "d", store_inputs="original", **words)
    for streaming in (False, True):
        batch = softlabels.load(tmp_path / "d", streaming=streaming).take(range(16))
        assert batch["label_source"].tolist() == LABELS * 2
        assert batch["input"].shape == (16, 1, 8, 8)
    assert softlabels.verify(dump=str(tmp_path / "d"), source=True).good
    both = softlabels.load({"a": dump, "b": dump}, inputs=False)
    assert both.take([0, 7])["label_source"].tolist() == [0, 1]
    assert both.label_source_names == PETS
    run(place, tmp_path / "plain", labels=False, class_names=str(place / "names.txt"))
    with pytest.raises(UsageError, match="label_source 'there' and 'absent'"):
        softlabels.load([dump, tmp_path / "plain"], inputs=False)
    twice = softlabels.load([dump, dump], inputs=False)
    assert twice.take([7, 8])["label_source"].tolist() == [1, 0]


def test_an_import_takes_other_labels_apart_too(place, tmp_path):
    logits = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    file = str(tmp_path / "l.npz")
    np.savez(file, logits=logits, ids=np.array(IDS), labels=np.arange(8))
    words = {"file": file, "data": str(place / "photos"), "out": str(tmp_path / "d")}
    with pytest.raises(LogitsError, match=r"has 12 classes, .* 2 \(cat, dog\); .*--own-labels"):
        import_logits(**words)
    import_logits(**words, own_labels=True, class_names=str(place / "names.txt"))
    dataset = softlabels.load(tmp_path / "d", inputs=False)
    assert dataset.take(range(8))["label_source"].tolist() == LABELS
    assert dataset.class_names == KINDS
    plan = softlabels.info(tmp_path / "d")["manifest"]["plan"]
    assert "labels are of other classes" in plan["teacher"]["model"]


def test_what_excludes_each_other_is_refused(place, tmp_path):
    for options, message in (
        ({"labels": False, "own_labels": True}, "--own-labels says which .* --no-labels keeps"),
        ({"labels": False, "label_column": "label"}, "--label-column label says which"),
    ):
        with pytest.raises(UsageError, match=message):
            run(place, tmp_path / "d", **options)
    flat = tmp_path / "flat"
    flat.mkdir()
    (flat / "1.png").write_bytes((place / "photos" / IDS[0]).read_bytes())
    with pytest.raises(SourceError, match=r"--own-labels: .* has no label column"):
        run(place, tmp_path / "d", data=str(flat), own_labels=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("n.txt", "a\nb\n", r"n\.txt has 2 names, and the teacher t gives 12 logits"),
        ("n.txt", "a\n\nb\n", "the name of class 1 is empty"),
        ("n.txt", "\n", "names no class"),
        ("n.txt", "\n".join(["a"] * 12), "class 'a' comes twice among the 12"),
        ("n.json", '["a"', "is no JSON"),
        ("n.json", '"a"', "holds 'a'"),
        ("n.json", '["a", 5]', "the name of class 1 is 5"),
        ("n.json", '{"0": "a", "2": "b"}', "one of them for '2' and none for class 1"),
        ("n.json", None, "there is no file"),
    ],
)
def test_class_names_that_name_no_twelve_classes(place, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=message):
        run(place, tmp_path / "d", labels=False, class_names=str(tmp_path / name))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("form", [list, lambda names: dict(enumerate(names))])
def test_class_names_in_json(place, tmp_path, form):
    (tmp_path / "n").write_text("\ufeff" + json.dumps(form(KINDS)))
    lines = run(place, tmp_path / "d", labels=False, class_names=str(tmp_path / "n"))
    assert softlabels.load(tmp_path / "d", inputs=False).class_names == KINDS
    assert any("class names from" in line and "kind 0, kind 1" in line for line in lines)


def test_text_labels_are_numbered_by_the_file(place, tmp_path):
    rows = {"x": np.eye(3, 64).tolist(), "label": ["kind 7", "kind 0", "kind 11"]}
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "x.parquet"))
    words = {"data": str(tmp_path / "x.parquet"), "class_names": str(place / "names.txt")}
    run(place, tmp_path / "d", **words)
    assert softlabels.load(tmp_path / "d", inputs=False)["label"].tolist() == [7, 0, 11]
    rows["label"][1] = "other"
    datasets.Dataset.from_dict(rows).to_parquet(str(tmp_path / "x.parquet"))
    with pytest.raises(LabelSpaceMismatch, match=r"'other' .* none of the .*--own-labels"):
        run(place, tmp_path / "e", **words)
    run(place, tmp_path / "e", **words, own_labels=True)
    assert softlabels.load(tmp_path / "e", inputs=False).label_source_names == [
        "kind 11", "kind 7", "other"
    ]  # fmt: skip


def test_labels_beyond_the_classes_name_both_ways_out(place, tmp_path):
    rows = {"x": np.eye(3, 64).tolist(), "label": [3, 40, 41]}
    data = str(tmp_path / "x.parquet")
    datasets.Dataset.from_dict(rows).to_parquet(data)
    with pytest.raises(LabelSpaceMismatch, match=r"0 to 11, .*--own-labels.*--no-labels"):
        run(place, tmp_path / "d", data=data)
    run(place, tmp_path / "d", data=data, own_labels=True)
    dataset = softlabels.load(tmp_path / "d", inputs=False)
    assert dataset["label_source"].tolist() == [3, 40, 41]
    assert dataset.label_source_names is None
    assert softlabels.verify(dump=str(tmp_path / "d")).good
