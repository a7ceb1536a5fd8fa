"""`eval`: top 5, class by class, several labels, the held-out rows, other names of classes."""

import json
import shutil

import datasets
import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import (
    AlignmentError,
    LabelSpaceMismatch,
    SourceError,
    StoreError,
    UsageError,
)
from softlabels.targets.holdout import choose_rows
from tests.conftest import Lines, make_vectors

ROWS, C = 120, 8
NAMES = [f"c{i}" for i in range(C)]


def write(path, x: np.ndarray, labels: list, label) -> str:
    """A file whose inputs are the logits of `torch.nn.Identity`."""
    inputs = datasets.List(datasets.Value("float32"), length=x.shape[1])
    features = datasets.Features({"x": inputs, "label": label})
    content = {"x": x.tolist(), "label": labels}
    datasets.Dataset.from_dict(content, features=features).to_parquet(str(path))
    return str(path)


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 2, (ROWS, C)).astype(np.float32)


def evaluate(data, **options):
    given = {"checkpoint": torch.nn.Identity(), "split": "train", **options}
    return softlabels.evaluate(data=data, **given)


def test_a_file_or_a_data_set_needs_no_split(tmp_path, logits):
    label = datasets.ClassLabel(names=NAMES)
    data = write(tmp_path / "d.parquet", logits, logits.argmax(-1).tolist(), label)
    table = datasets.load_dataset("parquet", data_files=data, split="train")
    table.save_to_disk(tmp_path / "saved")
    for one in (data, table, list(table), str(tmp_path / "saved")):
        found = evaluate(one, split=None)
        assert (found["errors"], found["rows"], found["split"]) == (0, ROWS, "train")
    several = tmp_path / "several"
    several.mkdir()
    shutil.copy(data, several / "train.parquet")
    with pytest.raises(SourceError, match="has no split 'test'; it has train: use --split"):
        evaluate(str(several), split=None)


def test_top_5_and_each_class(tmp_path, logits):
    draw = np.random.default_rng(1)
    labels = np.where(draw.random(ROWS) < 0.5, logits.argmax(-1), draw.integers(-1, C - 1, ROWS))
    data = write(tmp_path / "d.parquet", logits, labels.tolist(), datasets.ClassLabel(names=NAMES))
    found = evaluate(data, per_class=True)
    known = labels >= 0
    x, y = torch.from_numpy(logits[known]), torch.from_numpy(labels[known])
    in_top = (x.topk(5).indices == y[:, None]).any(-1)
    assert found["top5"] == pytest.approx(float(in_top.float().mean()))
    assert f"top-5 {found['top5']:.4f}" in found.lines[0]
    top = x.argmax(-1)
    for number, one in enumerate(found["per_class"]):
        of_class, taken = y == number, top == number
        assert (one["name"], one["rows"]) == (NAMES[number], int(of_class.sum()))
        assert one["predicted"] == int(taken.sum())
        if one["rows"]:
            assert one["recall"] == pytest.approx(float(taken[of_class].float().mean()))
            errors = top[of_class & ~taken].bincount(minlength=C)
            most = errors.max() and errors[NAMES.index(one["taken_for"])]
            assert most == errors.max()
            assert (one["taken_for"] is None) == (errors.max() == 0)
        if one["predicted"]:
            assert one["precision"] == pytest.approx(float(of_class[taken].float().mean()))
    assert found["per_class"][C - 1]["recall"] is None or labels.max() == C - 1
    shown = [line.split()[0] for line in found.lines[2:]]
    recalls = {one["name"]: one["recall"] for one in found["per_class"]}
    ordered = [recalls[name] for name in shown[1:] if recalls[name] is not None]
    assert shown[0] == "class"
    assert ordered == sorted(ordered)
    json.dumps(found)


def test_classes_that_no_row_is_about_are_counted_alone(tmp_path):
    """One of ImageNet's nets over eight of its classes."""
    logits = 5 * np.eye(1000)[[1, 1, 900]] - 1
    x = logits.astype(np.float32)
    data = write(tmp_path / "d.parquet", x, [1, 5, 1], datasets.ClassLabel(num_classes=1000))
    found = evaluate(data, per_class=True)
    assert [line.split()[0] for line in found.lines[3:-1]] == ["5", "1", "900"]
    assert found.lines[-1] == "and 997 more, which are no row's label or top class"
    assert len(found["per_class"]) == 1000


def test_the_teacher_of_a_dump_class_by_class(made, dump_folder):
    """Of the rows that it was fitted to, so that it knows most of them."""
    found = softlabels.info(dump_folder, per_class=True)
    measured = softlabels.evaluate(checkpoint=str(made / "t.pt"), split="train", per_class=True)
    assert found["per_class"] == measured["per_class"]
    assert found.table.lines == measured.lines[2:]


def test_five_classes_have_no_top_5(tmp_path, logits):
    data = write(tmp_path / "d.parquet", logits[:, :5], [0, 4] * 60, datasets.Value("int64"))
    found = evaluate(data)
    assert "top5" not in found
    assert "top-5" not in found.lines[0]


def test_several_labels(tmp_path, logits, cli):
    hot = np.random.default_rng(2).random((ROWS, C)) < 0.3
    hot[:, 5] = False
    lists = [np.flatnonzero(row).tolist() for row in hot]
    lists[9] = None
    label = datasets.List(datasets.ClassLabel(names=NAMES))
    data = write(tmp_path / "d.parquet", logits, lists, label)
    found = evaluate(data, task="multilabel", per_class=True)
    known = np.arange(ROWS) != 9
    z, there = torch.from_numpy(logits[known]), torch.from_numpy(hot[known])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z, there.float(), reduction="none")
    assert found["nll"] == pytest.approx(float(loss.sum(-1).mean()), rel=1e-5)
    ranks = [
        [(hot_N & (z_N >= one)).sum() / (z_N >= one).sum() for one in z_N[hot_N]]
        for z_N, hot_N in zip(z.T, there.T, strict=True) if hot_N.any()
    ]  # fmt: skip
    assert found["map"] == pytest.approx(np.mean([np.mean(of_label) for of_label in ranks]))
    assert (found["labels"], found["rows"], found["per_class"][5]["ap"]) == (7, ROWS - 1, None)
    assert f"mAP {found['map']:.4f} over 7 labels" in found.lines[0]
    assert found.lines[-1].split()[0] == "c5"
    with pytest.raises(softlabels.errors.SourceError, match="say --task multilabel"):
        evaluate(data, label_column="label")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """t.pt, fitted to x.parquet; d, its dump of these rows; s.pt, a student of shards 1 and 2."""
    place = tmp_path_factory.mktemp("held")
    data = make_vectors(place / "x.parquet", name=[f"r{i}" for i in range(300)])
    given = {"model": "linear", "epochs": 4, "lr": 0.05, "holdout": 0.2, "data_seed": 3}
    softlabels.fit(data=data, id_column="name", **given, out=str(place / "t.pt"))
    softlabels.dump(teacher=str(place / "t.pt"), out=str(place / "d"), shard_rows=100)
    softlabels.train(
        dump=str(place / "d"), shards="1-2", T=2, student="linear", epochs=3, lr=0.05, holdout=0.3,
        data_seed=5, out=str(place / "s.pt"),
    )  # fmt: skip
    return place


def test_the_rows_that_training_held_out(trained):
    held = torch.load(trained / "t.pt", weights_only=True)["metrics"]["held_out"]
    found = softlabels.evaluate(checkpoint=str(trained / "t.pt"), holdout=True)
    assert (found["split"], found["held_out"], found["rows"]) == ("train", 60, 60)
    assert (found["errors"], found["nll"]) == (held["errors"], pytest.approx(held["nll"]))
    assert "the rows that training held out: " in found.lines[0]
    copy = shutil.copy(trained / "x.parquet", trained / "copy.parquet")
    moved = softlabels.evaluate(
        checkpoint=str(trained / "t.pt"), holdout=True, data=str(copy), id_column="name"
    )
    assert moved["nll"] == found["nll"]


def test_the_rows_that_a_student_of_some_shards_held_out(trained):
    held = torch.load(trained / "s.pt", weights_only=True)["metrics"]["held_out"]
    found = softlabels.evaluate(
        checkpoint=str(trained / "s.pt"), holdout=True, against=str(trained / "d")
    )
    assert (found["rows"], found["against"]["rows"]) == (60, 60)
    assert (found["errors"], found["nll"]) == (held["errors"], pytest.approx(held["nll"]))
    assert found["against"]["kl"] == pytest.approx(held["kl"], abs=1e-6)
    _, rows = choose_rows(200, None, holdout=0.3, rows=None, data_seed=5)
    model = softlabels.evaluate(checkpoint=str(trained / "s.pt"), split="train")
    assert model["rows"] == 300, "without --holdout all rows count"
    assert len(rows) == 60
    teacher = softlabels.evaluate(
        checkpoint=str(trained / "t.pt"), holdout=True, against=str(trained / "d")
    )
    assert (teacher["against"]["rows"], teacher["against"]["agreement"]) == (60, 1)


def test_held_out_rows_that_can_not_be_drawn_again(trained, tmp_path, teacher, cli):
    changed = make_vectors(tmp_path / "x.parquet", seed=1, name=[f"r{i}" for i in range(300)])
    with pytest.raises(
        AlignmentError, match=r"is not what .*t\.pt was trained on: the fingerprint"
    ):
        softlabels.evaluate(
            checkpoint=str(trained / "t.pt"), holdout=True, data=changed, id_column="name"
        )
    with pytest.raises(AlignmentError, match=r"60 of the 60 rows .* first those with id r\d"):
        softlabels.evaluate(
            checkpoint=str(trained / "s.pt"), holdout=True, data=changed, id_column="name"
        )
    softlabels.fit(
        data=changed,
        model="linear",
        epochs=1,
        holdout=0,
        id_column="name",
        out=str(tmp_path / "a.pt"),
    )
    with pytest.raises(UsageError, match=r"held out no rows \(--holdout 0\)"):
        softlabels.evaluate(checkpoint=str(tmp_path / "a.pt"), holdout=True)
    with pytest.raises(UsageError, match="does not say which rows its training held out"):
        evaluate(changed, id_column="name", checkpoint=torch.nn.Linear(6, 3), holdout=True)
    shutil.copytree(trained / "d", tmp_path / "d")
    checkpoint = torch.load(trained / "s.pt", weights_only=True)
    checkpoint["data"]["dump"] = "data/moved"
    torch.save(checkpoint, tmp_path / "moved.pt")
    with pytest.raises(StoreError, match=r"student of the dump data/moved.* with --against"):
        softlabels.evaluate(checkpoint=str(tmp_path / "moved.pt"), holdout=True)
    found = softlabels.evaluate(
        checkpoint=str(tmp_path / "moved.pt"), holdout=True, against=str(tmp_path / "d")
    )
    assert found["rows"] == 60
    softlabels.dump(teacher=str(tmp_path / "a.pt"), out=str(tmp_path / "other"))
    done = cli("eval", tmp_path / "moved.pt", "--holdout", "--against", tmp_path / "other")
    assert "is not the dump that" in done.err
    assert done.code == 1


def relabelled(path, logits: np.ndarray, labels: list[int], names: list[str] | None) -> str:
    feature = datasets.Value("int64") if names is None else datasets.ClassLabel(names=names)
    return write(path, logits, labels, feature)


@pytest.fixture
def named(tmp_path):
    """A classifier of a, b and c, and vectors of them."""
    data = make_vectors(tmp_path / "v.parquet")
    softlabels.fit(data=data, model="linear", epochs=20, lr=0.05, out=str(tmp_path / "t.pt"))
    rows = datasets.load_dataset("parquet", data_files=data, split="train")
    x, labels = np.array(rows["x"], np.float32), list(rows["label"])
    return (
        tmp_path,
        x,
        labels,
        softlabels.evaluate(checkpoint=str(tmp_path / "t.pt"), split="train", per_class=True),
    )


def mapped(place, data, given, **options):
    heard = Lines()
    found = softlabels.evaluate(
        progress=heard, checkpoint=str(place / "t.pt"), data=data, split="train",
        map_labels=given if given == "by-number" else str(given), **options,
    )  # fmt: skip
    return found, "\n".join(heard.lines)


def test_a_map_of_classes(named):
    """x and y are both a; z is b, w is c, and what is junk is left out."""
    place, x, labels, _ = named
    names = ["w", "x", "junk", "y", "z"]
    to = {0: [1, 3], 1: [4], 2: [0]}
    theirs = [to[label][i % len(to[label])] for i, label in enumerate(labels)]
    theirs[:20] = [2] * 20
    data = relabelled(place / "d.parquet", x, theirs, names)
    (place / "m.json").write_text(
        json.dumps({"x": "a", "y": "a", "z": "b", "w": "c", "junk": None})
    )
    (place / "m.csv").write_text("data,model\nx,a\ny, a\nz,b\n w,c\njunk,\n")
    found, text = mapped(place, data, place / "m.json")
    assert found["rows"] == 280
    assert "'w' is 'c', 'x' is 'a', 'junk' is left out, 'y' is 'a', 'z' is 'b'" in text
    again, _ = mapped(place, data, place / "m.csv")
    assert again["nll"] == found["nll"]
    part = relabelled(place / "p.parquet", x[20:], labels[20:], ["a", "b", "c"])
    expected = softlabels.evaluate(checkpoint=str(place / "t.pt"), data=part, split="train")
    assert (found["errors"], found["nll"]) == (expected["errors"], expected["nll"])
    texts = write(place / "t.parquet", x, [names[i] for i in theirs], datasets.Value("string"))
    found, _ = mapped(place, texts, place / "m.json")
    assert found["nll"] == expected["nll"]
    numbers = relabelled(place / "n.parquet", x, theirs, None)
    (place / "n.json").write_text('{"0": "c", "1": "a", "2": null, "3": "a", "4": "b"}')
    assert mapped(place, numbers, place / "n.json")[0]["nll"] == expected["nll"]


def test_classes_by_number(named):
    place, x, labels, right = named
    data = relabelled(place / "d.parquet", x, labels, ["uno", "due", "tre"])
    message = r"'uno' of .* is no class of .*--map-labels FILE .*--map-labels by-number takes them"
    with pytest.raises(LabelSpaceMismatch, match=message):
        softlabels.evaluate(checkpoint=str(place / "t.pt"), data=data, split="train")
    found, text = mapped(place, data, "by-number", per_class=True)
    assert found["per_class"] == right["per_class"]
    assert "'uno' is 'a', 'due' is 'b', 'tre' is 'c'" in text
    (place / "by-number").write_text("{}")  # the word, not the file of this name
    assert mapped(place, data, "by-number")[0]["errors"] == right["errors"]
    for names, message in (
        (["c", "a", "b"], "the same names in another order"),
        (["a", "b", "c", "d"], "only if there are as many"),
    ):
        data = relabelled(place / "o.parquet", x, labels, names)
        with pytest.raises(LabelSpaceMismatch, match=message):
            mapped(place, data, "by-number")


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("m.json", '{"uno": "a"}', LabelSpaceMismatch, "does not name 2 of .* due, tre"),
        ("m.json", '{"unos": "a"}', UsageError, "'unos', which is no class of .*near it are 'uno'"),
        ("m.json", '{"uno": "A"}', UsageError, "maps a class to 'A', which is no class of "),
        ("m.json", '{"uno": "a", "uno": "b"}', UsageError, "maps 'uno' to 'a' and to 'b'"),
        ("m.json", '{"uno": ["a"]}', UsageError, "maps 'uno' to .*write JSON"),
        ("m.json", '["a"]', UsageError, "holds .*write JSON"),
        ("m.json", "{", UsageError, "is no JSON"),
        ("m.json", "{}", UsageError, "maps no class"),
        ("m.csv", "uno,a\ndue\n", UsageError, "line 2 has 1 cell"),
        ("m.csv", None, UsageError, "there is no file .*by-number takes"),
        ("m.json", '{"uno": null, "due": null, "tre": null}', softlabels.errors.SourceError,
         "leaves out all"),
    ],
)  # fmt: skip
def test_maps_that_do_not_fit(named, name, content, error, message):
    place, x, labels, _ = named
    data = relabelled(place / "d.parquet", x, labels, ["uno", "due", "tre"])
    if content is not None:
        (place / name).write_text(content)
    with pytest.raises(error, match=message):
        mapped(place, data, place / name)


def test_a_map_of_several_labels_measures_what_it_names(tmp_path, logits):
    """Of 8 labels the data know 3, two of which are one of the model's."""
    lists = [[0], [1], [0, 1], [2], []] * 24
    label = datasets.List(datasets.ClassLabel(names=["p", "q", "r"]))
    data = write(tmp_path / "d.parquet", logits, lists, label)
    (tmp_path / "m.json").write_text('{"p": 6, "q": 6, "r": 1}')
    found = evaluate(data, task="multilabel", map_labels=str(tmp_path / "m.json"), per_class=True)
    assert [(one["name"], one["positives"]) for one in found["per_class"]] == [("1", 24), ("6", 72)]
    hot = torch.tensor([[0, 1], [0, 1], [0, 1], [1, 0], [0, 0]] * 24, dtype=torch.float32)
    z = torch.from_numpy(logits)[:, [1, 6]]
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z, hot, reduction="none")
    assert found["nll"] == pytest.approx(float(loss.sum(-1).mean()), rel=1e-5)


def test_no_labels_leave_nothing_for_them(cli, tmp_path):
    for option in ("--holdout", "--per-class", "--map-labels=m.json"):
        done = cli("eval", "t.pt", "--no-labels", "--against", "d", option)
        assert done.code == 2
        assert "is about labels" in done.err
