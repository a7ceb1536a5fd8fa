"""What a notebook shows of each object, and how rows and columns are asked for."""

import pickle

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import UsageError
from tests.conftest import Linear, make_vectors, save_script


@pytest.fixture(scope="module")
def dataset(dump_folder):
    opened = softlabels.load(dump_folder, T=8)
    yield opened
    decoded(opened)


def decoded(dataset) -> None:
    """Let no thread go on decoding while other tests count what is decoded."""
    dataset.examples._kept.filler.wait()


def test_what_a_notebook_shows_is_one_line(made, dataset, dump_folder, tmp_path):
    other = softlabels.load({"a": dump_folder, "b": dump_folder}, inputs=False)
    size = "1,200 rows × 10 classes"
    shown = {
        f"Dump({dump_folder}, {size}, T=8)"[:20]: dataset,
        "Concatenated(": softlabels.load([dump_folder, dump_folder]),
        "SideBySide(a=": other,
        "Batch(4 rows, T=8: id, view, input, label, logits, soft_target, targets)": dataset[:4],
        "Row(id=0, view=0, input=float32 [1, 8, 8], label=": dataset[0],
        "KeysView(Batch(": dataset[:2].keys(),
        "DenseLogits(2 × 10, float16, cpu)": dataset[:2]["targets"],
        "DenseTargets(T=4, DenseLogits(2 × 10": dataset[:2]["targets"].temper(4),
        "Rows(Batch(2 rows": dataset.__getitems__([0, 1]),
        f"Info({dump_folder}: 1,200 rows × 10 classes)": softlabels.info(dump_folder),
        "Plan(t on digits, split train: 1,200 rows × 10 classes, 3 shards, ": dataset.reader.plan,
        "Verdict(": softlabels.verify(dump=dump_folder),
        "Evaluation(": softlabels.evaluate(checkpoint=str(made / "t.pt"), against=dump_folder),
        "TrainResult(": softlabels.train(
            dump=dump_folder, student="linear", epochs=1, out=tmp_path / "s.pt"
        ),
    }
    for start, value in shown.items():
        assert repr(value).startswith(start), repr(value)
        assert "\n" not in repr(value)
        assert len(repr(value)) < 400, repr(value)
        assert " object at 0x" not in repr(value)
    assert size in repr(dataset)
    assert repr(dataset).endswith(", T=8)")
    assert "2,400 rows × 10 classes" in repr(softlabels.load([dump_folder, dump_folder]))


def test_results_of_a_dump_show_as_one_line(tmp_path, vectors):
    teacher = save_script(Linear(), tmp_path / "v.pt")
    softlabels.dump(teacher=teacher, data=vectors, out=tmp_path / "c", codec="int8")
    batch = softlabels.load(tmp_path / "c", inputs=False)[:4]
    assert repr(batch["targets"]).startswith("Int8Logits(4 × 3, uint8 float16 float16, cpu)")
    done = softlabels.dump(teacher=teacher, data=vectors, out=tmp_path / "d")
    assert repr(done).startswith(f"DumpResult({tmp_path / 'd'}: 300 rows, ")
    assert repr(done).endswith("300 run now)")
    assert repr(done.manifest).startswith("Manifest(300 rows × 3 classes, 1 shard, ")
    estimate = softlabels.plan(teacher=teacher, data=vectors, out=tmp_path / "e")
    assert repr(estimate).startswith(f"Estimate({tmp_path / 'e'}: 300 rows, 1 shard, ")
    assert repr(estimate).endswith(f", bound by {estimate.bound})")
    np.save(tmp_path / "z.npy", softlabels.load(tmp_path / "d")["logits"].numpy())
    found = softlabels.import_logits(file=tmp_path / "z.npy", data=vectors, out=tmp_path / "i")
    assert repr(found).startswith(f"Imported({tmp_path / 'i'}: 300 rows, ")


def test_facts_and_measures_are_tables_in_a_notebook(made, dump_folder):
    shown = softlabels.info(dump_folder)._repr_html_()
    assert "<tr><th>classes</th><td>10</td></tr>" in shown
    shown = softlabels.evaluate(checkpoint=str(made / "t.pt"), against=dump_folder)._repr_html_()
    assert "<th>accuracy</th>" in shown
    assert "<th>against, kl</th>" in shown


def test_slices_and_numbers_give_columns_and_a_name_gives_the_column(dataset):
    four = dataset[:4]
    assert list(four) == ["id", "view", "input", "label", "logits", "soft_target"]
    assert four["id"].tolist() == [0, 1, 2, 3]
    assert torch.equal(dataset[[1, 2]]["logits"], four["logits"][1:3])
    assert torch.equal(dataset[np.array([-1])]["logits"], dataset[1199:]["logits"])
    assert dataset[5:5]["logits"].shape == (0, 10)
    assert dataset[np.int64(3)]["id"] == 3
    assert dataset["logits"].shape == (1200, 10)
    assert torch.equal(dataset["logits"][:4], four["logits"])
    assert dataset["soft_target"].sum(-1).allclose(torch.ones(1200))
    assert torch.equal(dataset["input"][:4], four["input"])
    assert dataset.column_names == list(four)
    assert (dataset.num_classes, dataset.class_names) == (10, [str(i) for i in range(10)])
    with pytest.raises(KeyError, match="no column 'logit'; there are id, view, input, label"):
        dataset["logit"]
    with pytest.raises(IndexError, match="row 1200 of a dump with 1200 rows"):
        dataset[1200]
    with pytest.raises(UsageError, match="give a list of whole numbers"):
        dataset[1.5]


def test_columns_of_several_dumps(dump_folder):
    both = softlabels.load([dump_folder, dump_folder], T=2, inputs=False)
    assert both["label"].shape == (2400,)
    assert torch.equal(both[[1203, 3]]["logits"][0], both[3]["logits"])
    beside = softlabels.load({"a": dump_folder, "b": dump_folder}, inputs=False)
    assert set(beside["logits"]) == {"a", "b"}
    assert beside[:3]["logits"]["b"].shape == (3, 10)
    streamed = softlabels.load(dump_folder, streaming=True)
    assert torch.equal(streamed["logits"], both["logits"][:1200])


def test_rows_are_found_by_their_ids(tmp_path, dataset, dump_folder):
    assert dataset.rows_of([7, 1199, 7]).tolist() == [7, 1199, 7]
    assert dataset.rows_of([]).tolist() == []
    with pytest.raises(UsageError, match=r"1 id of 2 are not in .*: 5000\. Ids are whole numbers"):
        dataset.rows_of([1, 5000])
    with pytest.raises(UsageError, match=r"1 id of 1 are not in .*: 'a'\. Ids are whole numbers"):
        dataset.rows_of(["a"])
    with pytest.raises(UsageError, match=r"7 is the id of 2 rows of .*; ask each dump of it alone"):
        softlabels.load([dump_folder, dump_folder]).rows_of([7])
    names = [f"row-{i}" for i in range(300)]
    data = make_vectors(tmp_path / "named.parquet", name=names)
    softlabels.dump(
        teacher=save_script(Linear(), tmp_path / "v.pt"), data=data, id_column="name",
        out=tmp_path / "d",
    )  # fmt: skip
    named = softlabels.load(tmp_path / "d")
    rows = named.rows_of(["row-12", "row-3"])
    assert named[rows]["id"] == ["row-12", "row-3"]
    with pytest.raises(UsageError, match=r": 12\. Ids are text here"):
        named.rows_of([12])


def test_examples_have_the_form_of_a_dump_without_one(dataset):
    test = softlabels.examples("digits", split="test", preprocess=str(dataset.preprocess))
    assert repr(test) == "LabelledExamples(digits, split test, 597 rows × 10 classes)"
    assert list(test[:2]) == ["id", "view", "input", "label"]
    assert test["label"].shape == (597,)
    assert test.class_names == dataset.class_names
    seen = list(test.batches(batch_size=100, shuffle=True, seed=1))
    assert sorted(torch.cat([b["id"] for b in seen]).tolist()) == sorted(test["id"].tolist())
    assert seen[0]["input"].shape == (100, 1, 8, 8)
    assert seen[0].to("cpu").rows == 100
    assert "logits" not in seen[0]
    with pytest.raises(UsageError, match="no logits, so no temperature"):
        test.with_temperature(4)
    again = pickle.loads(pickle.dumps(test))
    assert torch.equal(again[[5]]["input"], test[[5]]["input"])
    train = softlabels.examples("digits")
    assert torch.equal(train[:50]["input"], dataset[:50]["input"])
    assert torch.equal(train["label"], dataset["label"])
    for opened in (test, again, train):
        decoded(opened)
