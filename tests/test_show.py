"""`softlabels show`: the top classes of some rows, as people and programs read them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import softlabels
from softlabels.errors import UsageError
from tests.conftest import Linear, make_vectors, save_script


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Path:
    """A dump of 300 vectors whose classes are a, b and c; a few of its labels are not the top."""
    folder = tmp_path_factory.mktemp("named")
    data = make_vectors(folder / "v.parquet")
    teacher = save_script(Linear(), folder / "net.pt")
    softlabels.dump(teacher=teacher, data=data, out=str(folder / "d"), shard_rows=100)
    return folder / "d"


def test_probabilities_are_those_of_the_loaded_rows(dump_folder):
    rows = softlabels.show(dump=dump_folder, rows=7, T=[1, 4, 20], top=3)
    assert rows.temperatures == [1, 4, 20]
    assert [row.id for row in rows.rows] == np.linspace(0, 1199, 7).round().astype(int).tolist()
    dataset = softlabels.load(dump_folder, inputs=False)
    for row in rows.rows:
        logits = dataset[row.id]["logits"].double()
        assert row.label == dataset[row.id]["label"]
        numbers = [one.number for one in row.top]
        assert numbers[:3] == logits.argsort(descending=True)[:3].tolist()
        assert row.label in numbers
        for place, T in enumerate(rows.temperatures):
            expected = torch.softmax(logits / T, -1)[numbers]
            got = torch.tensor([one.probabilities[place] for one in row.top])
            torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=0)


def test_wrong_rows_are_all_those_where_the_top_class_is_not_the_label(named):
    shown = softlabels.show(dump=named, wrong=True, rows=1000)
    dataset = softlabels.load(named, inputs=False)
    batch = dataset.take(np.arange(300))
    wrong = (batch["logits"].argmax(-1) != batch["label"]).nonzero()[:, 0]
    assert [row.id for row in shown.rows] == wrong.tolist()
    assert len(wrong) > 10
    for row in shown.rows:
        assert row.top[0].number != row.label
        assert row.top[0].name == "abc"[row.top[0].number]


def test_a_class_is_asked_for_by_name_or_number(named):
    by_name = softlabels.show(dump=named, class_="b", rows=1000)
    assert by_name == softlabels.show(dump=named, class_="1", rows=1000)
    assert {row.label_name for row in by_name.rows} == {"b"}
    labels = softlabels.load(named, inputs=False).take(np.arange(300))["label"]
    assert len(by_name.rows) == int((labels == 1).sum())
    both = softlabels.show(dump=named, class_="b", wrong=True, rows=1000).rows
    assert all(row.label == 1 and row.top[0].number != 1 for row in both)


def test_without_labels_a_class_is_the_teachers_top_class(tmp_path):
    torch.manual_seed(0)
    pq.write_table(pa.table({"x": torch.randn(50, 6).tolist()}), tmp_path / "x.parquet")
    teacher = save_script(Linear(), tmp_path / "net.pt")
    softlabels.dump(teacher=teacher, data=str(tmp_path / "x.parquet"), out=str(tmp_path / "d"))
    top = softlabels.load(tmp_path / "d", inputs=False).take(np.arange(50))["logits"].argmax(-1)
    shown = softlabels.show(dump=tmp_path / "d", class_="2", rows=50)
    assert [row.id for row in shown.rows] == (top == 2).nonzero()[:, 0].tolist()
    assert shown.rows[0].label is None
    with pytest.raises(UsageError, match="has no labels of the teacher's classes"):
        softlabels.show(dump=tmp_path / "d", wrong=True)


def test_ids_that_are_paths_lead_to_the_pictures(tmp_path, cli):
    random = np.random.default_rng(0)
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        path = tmp_path / "photos" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (1, 2, 3), np.uint8)).save(path)
    teacher = save_script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 2)),
                          tmp_path / "net.pt")  # fmt: skip
    assert cli("dump", "--teacher", teacher, "--data", "photos", "--out", "d").code == 0
    done = cli("show", "d", "--id", "dog/1.png", "--id", "cat/1.png", "--T", "2")
    assert done.code == 0
    assert "id cat/1.png   label cat *   " in done.out
    assert str(tmp_path / "photos" / "train" / "dog" / "1.png") in done.out
    assert "cat/2.png" not in done.out
    assert "T = 2" in done.out
    assert "T = 1" not in done.out


def test_labels_of_other_classes_are_shown_apart(tmp_path):
    table = pa.table({"x": torch.randn(40, 6).tolist(), "label": ["cat", "dog"] * 20})
    pq.write_table(table, tmp_path / "x.parquet")
    teacher = save_script(Linear(), tmp_path / "net.pt")
    softlabels.dump(
        teacher=teacher, data=str(tmp_path / "x.parquet"), own_labels=True, out=str(tmp_path / "d")
    )
    dogs = softlabels.show(dump=tmp_path / "d", class_="dog", rows=50)
    assert [row.id for row in dogs.rows] == list(range(1, 40, 2))
    assert {(row.label_source, row.label) for row in dogs.rows} == {("dog", None)}
    assert "id 1   own label dog\n" in str(dogs)
    top = softlabels.load(tmp_path / "d", inputs=False).take(np.arange(40))["logits"].argmax(-1)
    of_teacher = softlabels.show(dump=tmp_path / "d", class_="2", rows=50)
    assert [row.id for row in of_teacher.rows] == (top == 2).nonzero()[:, 0].tolist()


def test_all_views_of_an_id_are_shown_and_one_of_others(tmp_path):
    teacher = str(tmp_path / "t.pt")
    softlabels.fit(data="digits", model="linear", epochs=1, out=teacher)
    softlabels.dump(
        teacher=teacher, data="digits", out=str(tmp_path / "d"), views=2, augment="jitter(1)"
    )
    rows = softlabels.show(dump=tmp_path / "d", id=["77"]).rows
    assert [(row.id, row.view) for row in rows] == [(77, 0), (77, 1), (77, 2)]
    assert {row.view for row in softlabels.show(dump=tmp_path / "d", rows=30).rows} == {0}


def test_the_command_prints_bars_and_json_of_the_same_rows(named, cli):
    text = cli("show", named, "--rows", 2, "--wrong")
    value = cli("show", named, "--rows", 2, "--wrong", "--json").value
    assert value == softlabels.show(dump=named, rows=2, wrong=True).as_json
    for row in value["rows"]:
        assert f"id {row['id']}   label {row['label_name']} *" in text.out
        for one in row["top"]:
            assert f"{one['name']}  {one['probabilities'][0]:.4f}" in text.out
    assert "█" * 16 in text.out
    (named.parent / "show.yaml").write_text("class: c\nT: [1, 8]\nrows: 1\n")
    shown = cli("show", named, "--config", named.parent / "show.yaml", "--json").value
    assert shown == softlabels.show(dump=named, class_="c", T=(1, 8), rows=1).as_json
    json.dumps(shown)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"id": "x7"}, "has no id 'x7'; near it are '7'"),
        ({"id": "-1"}, "has no id '-1'"),
        ({"class_": "d"}, "no class 'd'; use 'a', 'b', 'c'"),
        ({"class_": "3"}, "no class '3'"),
        ({"T": 0}, "--T is 0; it must be a finite number above 0"),
        ({"T": (1, 1e9)}, "T is 1e\\+09, where all classes are alike"),
        ({"rows": 0}, "--rows is 0"),
    ],
)
def test_what_can_not_be_shown_is_said(named, given, message):
    with pytest.raises(UsageError, match=message):
        softlabels.show(dump=named, **given)
