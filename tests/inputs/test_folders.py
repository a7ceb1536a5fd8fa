"""Folders of data files: which file is in which split is a rule, and every file is counted."""

import datasets
import pytest

import softlabels
from softlabels.errors import SourceError
from softlabels.inputs.describing import describe
from softlabels.inputs.opening import open_source
from tests.conftest import make_vectors


def fill(folder, **files):
    """Each file gets as many rows as it is given."""
    for name, rows in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x,z,label\n" + "1,2,0\n" * rows)


def rows(folder, *splits):
    return [len(open_source(str(folder), split)) for split in splits]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        ({"a.csv": 1, "b.csv": 2}, {"train": 3}),
        ({"train.csv": 1, "test.csv": 2, "dev.csv": 3}, {"train": 1, "test": 2, "validation": 3}),
        ({"train/a.csv": 1, "val/a.csv": 2}, {"train": 1, "validation": 2, "val": 2}),
        ({"Train/x/a.csv": 1, "TEST/b.csv": 2}, {"train": 1, "test": 2}),
        ({"train-a.csv": 1, "train-b.csv": 2}, {"train": 3}),
        ({"data/train-a.csv": 1, "data/test.csv": 2, "README.md": 0}, {"train": 1, "test": 2}),
        ({"data/a.csv": 2}, {"train": 2}),
        ({"2024/a.csv": 1, "2025/b.csv": 2}, {"train": 3}),
        ({"a_train_b.csv": 1, "contest.csv": 2, "latest/x.csv": 4}, {"train": 7}),
        ({"extra-00000-of-00002.csv": 1, "extra-00001-of-00002.csv": 2}, {"extra": 3}),
        ({"extra-00000-of-00001-0a1b.csv": 2}, {"extra": 2}),
        ({"training/a.csv": 1, "testing/a.csv": 2}, {"train": 1, "test": 2}),
        ({"train/train_a.csv": 1, "train/contest.csv": 2, "val/eval.csv": 4}, {"train": 3}),
        ({"train/train_val.csv": 1, "test-dev.csv": 2}, {"train": 1, "test": 2}),
        ({"train.csv": 1, ".hidden.csv": 5, "__MACOSX/a.csv": 5}, {"train": 1}),
    ],
)  # fmt: skip
def test_splits(tmp_path, names, splits):
    fill(tmp_path, **names)
    assert rows(tmp_path, *splits) == list(splits.values())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"train.csv": 1, "a.csv": 1}, r"files of train, and 1 file \(a.csv\) in no split"),
        ({"trainval/a.csv": 1, "test/a.csv": 1}, r"1 file \(trainval/a.csv\) in no split"),
        ({"train.csv": 1, "train.jsonl": 1}, "two kinds: train.csv and train.jsonl"),
        ({"test.csv": 1}, "no split 'train'; it has test"),
        ({"a/train.csv": 1, "b/train.csv": 1}, "in several folders: a, b"),
        ({"train-00000-of-00003.csv": 1, "train-00002-of-00003.csv": 1}, "1 is missing, first num"),
        ({"train-00000-of-00001-ab12.csv": 1, "train-00000-of-00001-cd34.csv": 1}, "one number"),
        ({"train-00000-of-00001.csv": 1, "train-00000-of-00002.csv": 1}, "two sets of files"),
        ({"mnist_train.csv": 1, "mnist_test.csv": 2}, "mnist_test.csv and mnist_train.csv look li"),
        ({"xTrain.csv": 1, "xVal.csv": 2}, "xTrain.csv and xVal.csv look like splits"),
        ({"a/train_1/x.csv": 1, "a/test_1/x.csv": 2}, "a/test_1/x.csv and a/train_1/x.csv look"),
        ({"train/x_train.csv": 1, "train/x_test.csv": 1}, "train/x_test.csv lies in the folder of"),
        ({"train/yTrain.csv": 1, "train/xVal1.csv": 1}, "called like one of validation; its rows"),
        ({"train/a.csv": 1, "Train/EVAL/a.csv": 1}, "Train/EVAL/a.csv lies in the folder"),
        ({"train/a.csv": 1, "test/dev.csv": 1}, "test/dev.csv lies in the folder of the split"),
        ({"data/train/b_training.csv": 1, "data/train/b_dev.csv": 1}, "Move it to a folder valid"),
        ({"train-train.csv": 1, "train-test.csv": 1}, "train-test.csv and train-train.csv look"),
        ({"split=train/0.csv": 1, "split=test/0.csv": 1}, "column 'split' stands in names of fold"),
        ({"y=1/label=cat/0.csv": 1}, "column 'y' stands in names of folders, such as y=1, and in"),
        ({"0.csv": 1, "_temporary/0/1.csv": 1}, "_temporary is of a job that did not end"),
        ({"a.tar": 1, "b.wav": 1}, r"holds no data: 2 files \(a.tar, b.wav\)"),
    ],
)  # fmt: skip
def test_what_is_in_no_split_or_of_two_kinds_is_named(tmp_path, names, message):
    fill(tmp_path, **names)
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path))


def test_rows_of_several_folders_are_said(tmp_path):
    fill(tmp_path, **{"cat/a.csv": 1, "dog/a.csv": 2})
    begin = "2 folders (cat, dog): their rows follow each other"
    assert any(line.startswith(begin) for line in describe(open_source(str(tmp_path))))


def test_an_empty_name_is_not_the_folder_that_one_is_in(tmp_path, monkeypatch):
    fill(tmp_path, **{"train.csv": 1})
    monkeypatch.chdir(tmp_path)
    for name in ("", " "):
        with pytest.raises(SourceError, match=f"--data is '{name}'"):
            open_source(name)


def test_two_files_with_other_columns(tmp_path):
    fill(tmp_path, **{"train-a.csv": 1})
    (tmp_path / "train-b.csv").write_text("x,w,label\n1,2,0\n")
    with pytest.raises(SourceError, match=r"train-a.csv and train-b.csv .* has w, z"):
        open_source(str(tmp_path))


HEADER = """---
configs:
- config_name: {name}
  data_files:
  - split: train
    path: {train}
  - split: held
    path: ["more/*.csv", "b[1].csv"]
---
"""


def test_a_header_says_which_files_are_which_split(tmp_path):
    folder = tmp_path / "x [v2]"
    fill(folder, **{"a.csv": 1, "more/c.csv": 2, "more/d.csv": 4, "b[1].csv": 8, "b1.csv": 16})
    (folder / "README.md").write_text(HEADER.format(name="default", train="a.csv"))
    assert rows(folder, "train", "held") == [1, 14]
    with pytest.raises(SourceError, match="no split 'test'; it has train, held"):
        open_source(str(folder), "test")
    (folder / "README.md").write_text(HEADER.format(name="default", train="../a.csv"))
    with pytest.raises(SourceError, match="no data file here"):
        open_source(str(folder))
    (folder / "README.md").write_text("---\nconfigs: [1, 2\n---\n")
    with pytest.raises(SourceError, match="header can't be read"):
        open_source(str(folder))


def test_a_header_names_the_classes(tmp_path):
    fill(tmp_path, **{"train.csv": 2})
    (tmp_path / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n"
        "        names:\n          '0': 'no'\n          '1': {}\n---\n"
    )
    header = (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(header.format("'yes'"))
    source = open_source(str(tmp_path))
    assert source.class_names == ["no", "yes"]
    assert source.labels.tolist() == [0, 0]
    (tmp_path / "README.md").write_text(header.format("yes"))
    with pytest.raises(SourceError, match="put them in quotes"):
        open_source(str(tmp_path))


def test_rows_are_held_against_those_that_a_header_tells_of(tmp_path):
    fill(tmp_path, **{"train.csv": 2})
    header = (
        "---\ndataset_info:\n  features:\n  - name: label\n    dtype: int64\n  splits:\n"
        "  - name: train\n    num_bytes: 1\n    num_examples: {}\n---\n"
    )
    for rows, doubted in ((2, False), (300, True)):
        (tmp_path / "README.md").write_text(header.format(rows))
        line = "warning: README.md tells of 300 rows in the split 'train'; its 1 file hold 2"
        assert (line in describe(open_source(str(tmp_path)))) == doubted


def test_a_dump_with_its_inputs_is_a_folder_of_data(made, tmp_path):
    out = str(tmp_path / "d")
    softlabels.dump(teacher=str(made / "t.pt"), data="digits", out=out, store_inputs="original")
    source = open_source(out, input_column="input", id_column="id")
    assert source.fingerprint == open_source("digits").fingerprint
    assert source.class_names == list("0123456789")


def test_saved_datasets_and_arrow_files(tmp_path):
    path = make_vectors(tmp_path / "v.parquet", rows=40)
    whole = datasets.load_dataset("parquet", data_files=path, split="train")
    expected = open_source(path).fingerprint
    whole.save_to_disk(str(tmp_path / "disk"))
    arrow = next((tmp_path / "disk").glob("*.arrow"))
    assert open_source(str(arrow)).fingerprint == expected
    with pytest.raises(SourceError, match="no split 'test'; it has train"):
        open_source(str(tmp_path / "disk"), "test")
    datasets.DatasetDict({"val": whole}).save_to_disk(str(tmp_path / "dict"))
    assert open_source(str(tmp_path / "dict"), "val").fingerprint == expected


def test_a_split_has_one_name_in_records_whatever_it_was_asked_for(tmp_path, cli):
    for split in ("train", "val"):
        (tmp_path / "pets" / split).mkdir(parents=True)
        make_vectors(tmp_path / "pets" / split / "a.parquet", 40)
    assert cli("fit", "--data", "pets", "--model", "linear", "--epochs", 1).code == 0
    first, second = (
        cli("dump", "--teacher", "t.pt", "--data", "pets", "--split", split)
        for split in ("val", "dev")
    )
    assert first.code == 0
    assert "nothing to do" in second.err
    out = tmp_path / "data" / "pets-validation-t"
    assert [p.name for p in (out / "data").iterdir()] == ["validation-00000-of-00001.parquet"]
    assert softlabels.load(str(out), T=2).reader.plan.source.split == "validation"
    assert "split: validation" in (out / "README.md").read_text()
    measured = cli("eval", "t.pt", "--data", "pets", "--split", "VALID", "--json").value
    assert measured["split"] == "validation"


def test_a_split_is_called_as_the_data_call_it(tmp_path):
    path = make_vectors(tmp_path / "v.parquet", 40)
    whole = datasets.load_dataset("parquet", data_files=path)
    datasets.DatasetDict({"val": whole["train"]}).save_to_disk(str(tmp_path / "dict"))
    for split in ("val", "validation", "dev"):
        assert open_source(str(tmp_path / "dict"), split).split == "val"
    datasets.DatasetDict(dict.fromkeys(["val", "dev"], whole["train"])).save_to_disk(
        str(tmp_path / "two")
    )
    assert open_source(str(tmp_path / "two"), "dev").split == "dev"
    with pytest.raises(SourceError, match="no split 'validation'; it has val, dev"):
        open_source(str(tmp_path / "two"), "validation")
    assert open_source("digits", "eval").split == "test"
