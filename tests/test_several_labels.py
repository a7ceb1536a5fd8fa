"""Hard labels of several a row: from the data to the dump, the batch, the loss and the measures."""

import json
import re

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from typer.testing import CliRunner

import softlabels
from softlabels.cli.app import app
from softlabels.errors import LabelSpaceMismatch, SourceError, UsageError
from softlabels.exchange import import_logits
from tests.conftest import Linear, png, save_script
from tests.students.test_ranks import train_in_two

NAMES = ["cat", "dog", "eel"]
ROWS = 200


def toy() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs, and which labels each row has: those that the teacher holds for likely, mostly."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, 6, generator=draw)
    with torch.no_grad():
        p = torch.sigmoid(Linear(3.0)(x))
    return x, (torch.rand(ROWS, 3, generator=draw) < p).to(torch.int8)


X, HOT = toy()
NUMBERS = [row.nonzero()[:, 0].tolist() for row in HOT]


def write(path, labels, feature=None) -> str:
    features = None
    if feature is not None:
        x = datasets.List(datasets.Value("float32"), length=6)
        features = datasets.Features({"x": x, "labels": feature})
    content = {"x": X.tolist()[: len(labels)], "labels": labels}
    datasets.Dataset.from_dict(content, features=features).to_parquet(str(path))
    return str(path)


CLASSES = datasets.List(datasets.ClassLabel(names=NAMES))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """net.pt, a teacher; x.parquet, data whose row 7 has unknown labels; dump, their dump."""
    place = tmp_path_factory.mktemp("several")
    save_script(Linear(3.0), place / "net.pt")
    labels = [None if row == 7 else [*reversed(NUMBERS[row])] for row in range(ROWS)]
    write(place / "x.parquet", labels, CLASSES)
    dump(place, place / "x.parquet", place / "dump", shard_rows=64)
    return place


def dump(folder, data, out, **options):
    return softlabels.dump(
        teacher=str(folder / "net.pt"), data=data if hasattr(data, "__len__") else str(data),
        out=str(out), **{"task": "multilabel"} | options,
    )  # fmt: skip


def expected() -> torch.Tensor:
    hot = HOT.clone()
    hot[7] = -1
    return hot


@pytest.mark.parametrize("streaming", [False, True])
def test_a_batch_has_a_row_of_flags_and_readers_have_lists(folder, streaming):
    found = softlabels.load(str(folder / "dump"), T=2, streaming=streaming)
    order = np.array([9, 7, 150, 0, 9])
    assert found.take(order)["label"].equal(expected()[order])
    assert found[7]["label"].tolist() == [-1, -1, -1]
    plain = pq.read_table(folder / "dump" / "data")["label"].to_pylist()
    assert plain[6:9] == [NUMBERS[6], None, NUMBERS[8]]
    plain = datasets.load_dataset(str(folder / "dump"), split="train")
    assert plain.features["label"] == CLASSES
    assert plain[8]["label"] == NUMBERS[8]
    plan = json.loads((folder / "dump" / "plan.json").read_text())
    assert plan["source"]["columns"]["label_lists"] == "numbers"
    assert plan["source"]["class_names"] == NAMES


class Rows(torch.utils.data.Dataset):
    """A data set in memory: an input, and its labels as `write` has them."""

    def __init__(self, write) -> None:
        self.write = write

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row):
        return {"x": X[row], "labels": self.write(row)}


@pytest.mark.parametrize(
    ("labels", "feature", "names"),
    [
        (NUMBERS, None, None),
        (NUMBERS, CLASSES, NAMES),
        ([[NAMES[i] for i in row] for row in NUMBERS], None, NAMES),
        (HOT.tolist(), None, None),
        (HOT.tolist(), datasets.List(datasets.Value("int8"), length=3), None),
        (HOT.bool().tolist(), None, None),
        (HOT.float().tolist(), None, None),
        (lambda row: HOT[row], None, None),
        (lambda row: NUMBERS[row], None, None),
        (lambda row: [NAMES[i] for i in NUMBERS[row]], None, NAMES),
    ],
    ids=[
        "numbers",
        "classes",
        "names",
        "flags",
        "fixed",
        "bool",
        "float",
        "live flags",
        "live numbers",
        "live names",
    ],
)
def test_the_ways_to_write_labels_give_the_same(folder, tmp_path, labels, feature, names):
    live = callable(labels)
    data = Rows(labels) if live else write(tmp_path / "d.parquet", labels, feature)
    out = tmp_path / "d"
    softlabels.dump(teacher=str(folder / "net.pt"), data=data, out=str(out), task="multilabel")
    found = softlabels.load(str(out), inputs=False)
    assert found.take(np.arange(ROWS))["label"].equal(HOT)
    assert found.class_names == names
    source = data if live else None
    assert softlabels.verify(dump=str(out), source=True, data=source).good
    opened = softlabels.examples(data, task="multilabel")
    assert opened.take(np.arange(ROWS))["label"].equal(HOT)


def test_labels_of_a_data_set_in_memory(folder, tmp_path):
    pairs = [(X[row], NUMBERS[row]) for row in range(ROWS)]

    class Pairs(list):
        classes = NAMES

    dump(folder, Pairs(pairs), tmp_path / "d")
    found = softlabels.load(str(tmp_path / "d"), inputs=False)
    assert found.class_names == NAMES
    assert found.take(np.arange(ROWS))["label"].equal(HOT)
    mixed = Rows(lambda row: ["cat"] if row == ROWS - 1 else NUMBERS[row])
    with pytest.raises(SourceError, match=r"list of int in the first rows, and .* in another"):
        dump(folder, mixed, tmp_path / "e")
    with pytest.raises(SourceError, match="gives a row's labels in one entry"):
        dump(folder, Rows(lambda row: 0), tmp_path / "e", label_column="x,labels")


def test_columns_of_0_and_1_are_the_classes(folder, tmp_path):
    """As the CSV files of X-ray data sets have them."""
    heads = [*(f"x{i}" for i in range(6)), *NAMES]
    rows = [[*x, *hot] for x, hot in zip(X.tolist(), HOT.tolist(), strict=True)]
    rows[7][6:] = ["", "", ""]
    path = tmp_path / "d.csv"
    path.write_text("\n".join(",".join(map(str, line)) for line in [heads, *rows]))
    given = {"label_column": "cat, dog,eel", "input_column": ",".join(heads[:6])}
    dump(folder, path, tmp_path / "d", **given)
    found = softlabels.load(str(tmp_path / "d"))
    assert found.take(np.arange(ROWS))["label"].equal(expected())
    assert found.class_names == NAMES
    assert softlabels.verify(dump=str(tmp_path / "d"), source=True).good
    for cells, message in (
        (["1", "-1", "0"], "'dog' holds -1; .* unknown label can't be stored"),
        (["1", "", "0"], "empty cell in 'dog' and 1 in 'cat'"),
        (["1", "yes", "0"], "'dog' holds 'yes'; of several"),
    ):
        changed = [heads, *rows[:3], [*rows[3][:6], *cells], *rows[4:]]
        path.write_text("\n".join(",".join(map(str, line)) for line in changed))
        with pytest.raises(SourceError, match=message):
            dump(folder, path, tmp_path / "e", **given)
    with pytest.raises(SourceError, match="--label-column: no column 'cow'; the data has"):
        dump(folder, path, tmp_path / "e", label_column="cat,cow")


def test_the_dump_is_verified_against_its_data(folder, tmp_path):
    verdict = softlabels.verify(
        dump=str(folder / "dump"), source=True, replay=20, teacher=str(folder / "net.pt")
    )
    assert verdict.good
    known = HOT[np.arange(ROWS) != 7]
    assert (verdict.labelled, verdict.positives) == (ROWS - 1, int(known.sum()))
    labels = [NUMBERS[row] if row != 7 else None for row in range(ROWS)]
    labels[3] = [] if NUMBERS[3] else [0]
    other = write(tmp_path / "other.parquet", labels, CLASSES)
    verdict = softlabels.verify(dump=str(folder / "dump"), source=True, data=other)
    assert [str(finding) for finding in verdict.findings] == [
        "the source: 1 of 200 labels are not what the teacher saw, first those with id 3"
    ]


def test_a_changed_list_is_damage_even_with_a_matching_hash(folder, tmp_path):
    """A file whose record was made to fit it: its lists are held against the plan."""
    from softlabels.store.folder import Folder
    from softlabels.store.reader import DumpReader
    from softlabels.store.records import Commit
    from softlabels.store.shard_check import check_shard, sha256_of

    reader = DumpReader(Folder(str(folder / "dump")))
    record = reader.records[0]
    table = pq.read_table(folder / "dump" / record.file)
    for change, message in (
        ([3], r"labels of the row with id 0 are \[3\]; expected are numbers of the 3 classes"),
        ([1, 0], "which ascend"),
        ([0, 1, 2] if NUMBERS[0] != [0, 1, 2] else [], "its ids or labels are not those|record"),
    ):
        lists = [change, *table["label"].to_pylist()[1:]]
        place = table.schema.get_field_index("label")
        changed = table.set_column(
            place, table.schema.field("label"), pa.array(lists, pa.list_(pa.int64()))
        )
        path = tmp_path / record.file
        path.parent.mkdir(exist_ok=True)
        pq.write_table(changed, path, row_group_size=reader.plan.group_rows)
        fitting = {"bytes": path.stat().st_size, "sha256": sha256_of(str(path))}
        commit = json.loads((folder / "dump" / "commits" / "00000.json").read_text()) | fitting
        checked = check_shard(Folder(str(tmp_path)), reader.plan, Commit.model_validate(commit))
        assert [f for f in checked.findings if re.search(message, str(f))], checked


def test_a_dump_goes_on_and_a_change_of_labels_is_seen(folder, tmp_path):
    data, out = write(tmp_path / "d.parquet", NUMBERS, CLASSES), tmp_path / "d"
    dump(folder, data, out, shard_rows=64)
    before = (out / "data").glob("*.parquet")
    hashes = {path.name: path.read_bytes() for path in before}
    (out / "commits" / "00001.json").unlink()
    (out / "softlabels.json").unlink()
    dump(folder, data, out, shard_rows=64, resume=True)
    assert {path.name: path.read_bytes() for path in (out / "data").glob("*.parquet")} == hashes
    write(
        tmp_path / "d.parquet", [[0] if row == 70 else NUMBERS[row] for row in range(ROWS)], CLASSES
    )
    with pytest.raises(softlabels.errors.PlanMismatch, match=r"rows 64 to 127 differ \(shard 1\)"):
        dump(folder, data, out, shard_rows=64, resume=True)


def test_views_and_left_out_rows_keep_their_lists(tmp_path):
    """Pictures, one of which can't be read, in two views each."""
    draw = np.random.default_rng(0)
    pictures = [png(draw.integers(0, 255, (6, 6))) for _ in range(40)]
    pictures[5] = b"no picture"
    table = pa.table({"image": pictures, "tags": [["b", "a"][: i % 3] for i in range(40)]})
    pq.write_table(table, tmp_path / "p.parquet")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2))
    softlabels.dump(
        teacher=save_script(net, tmp_path / "net.pt"),
        data=str(tmp_path / "p.parquet"), label_column="tags", input_column="image",
        task="multilabel", out=str(tmp_path / "d"), views=1, augment="jitter(1)",
        on_error="skip", store_inputs="original", shard_rows=16,
    )  # fmt: skip
    manifest = softlabels.info(str(tmp_path / "d"))["manifest"]
    assert manifest["skipped"][0]["label"] == [0, 1]
    assert softlabels.verify(dump=str(tmp_path / "d"), source=True).good
    found = softlabels.load(str(tmp_path / "d"))
    rows = np.flatnonzero(found.ids == 4)
    assert found.take(rows)["label"].tolist() == [[0, 1], [0, 1]]


def test_training_learns_from_soft_and_hard_labels(folder, tmp_path, cli):
    result = softlabels.train(
        dump=str(folder / "dump"), T=2, alpha=0.5, epochs=12, lr=0.05, student="linear",
        out=str(tmp_path / "s.pt"),
    )  # fmt: skip
    held = result.metrics["held_out"]
    assert held["map"] > 0.7
    assert held["labelled"] in (19, 20)
    assert 0 < held["nll"] < 2
    assert "mAP" in repr(result)
    again = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True)
    assert held["map"] == pytest.approx(again["map"], rel=1e-6)
    assert held["nll"] == pytest.approx(again["nll"], rel=1e-6)
    hard = softlabels.train(
        dump=str(folder / "dump"), T=2, alpha=0, epochs=1, batch_size=200, holdout=0, lr=1e-9,
        student="linear", out=str(tmp_path / "h.pt"),
    )  # fmt: skip
    model = torch.nn.Linear(6, 3)
    state = torch.load(tmp_path / "h.pt", weights_only=True)["state_dict"]
    model.load_state_dict(dict(zip(("weight", "bias"), state.values(), strict=True)))
    known = expected()[:, 0] >= 0
    z = model(X)[known]
    loss = binary_cross_entropy_with_logits(z, HOT[known].float(), reduction="sum") / ROWS
    assert hard.metrics["loss"] == pytest.approx(loss.item(), rel=1e-4)
    done = cli("info", folder / "dump", "--per-class")
    assert done.code == 0
    assert "teacher's top label is one" in done.out
    table = [line.split() for line in done.out.splitlines()[-4:]]
    assert table[0][:2] == ["label", "rows"]
    assert sorted(line[0] for line in table[1:]) == NAMES
    found = json.loads(cli("info", folder / "dump", "--per-class", "--json").out)["per_class"]
    assert {line[0]: int(line[1]) for line in table[1:]} == {
        label["name"]: label["positives"] for label in found
    }


@pytest.mark.slow
def test_ranks_share_the_order_of_all_logits(folder, tmp_path):
    """Average precision over two processes, each with its share of the held-out rows."""
    values = train_in_two(tmp_path, dump=str(folder / "dump"), alpha=0.5, student="linear",
                          holdout=0.4)  # fmt: skip
    held = values[0]["metrics"]["held_out"]
    assert values[1]["metrics"]["held_out"] == held
    found = softlabels.evaluate(checkpoint=str(tmp_path / "s.pt"), holdout=True)
    for name in ("map", "nll", "labels_each"):
        assert held[name] == pytest.approx(found[name], rel=1e-6), name


def test_fit_learns_several_labels(tmp_path):
    data = write(tmp_path / "d.parquet", NUMBERS, CLASSES)
    out = str(tmp_path / "t.pt")
    result = softlabels.fit(
        data=data, task="multilabel", model="linear", epochs=30, lr=0.05, out=out
    )
    assert result.metrics["held_out"]["map"] > 0.7
    with pytest.raises(UsageError, match=r"trained for multilabel, .* Say --task multilabel"):
        softlabels.dump(teacher=out, data=data, labels=False, out=str(tmp_path / "d"))
    softlabels.dump(teacher=out, task="multilabel", out=str(tmp_path / "d"))
    assert softlabels.load(str(tmp_path / "d")).class_names == NAMES


def test_a_file_of_logits_joins_them(folder, tmp_path):
    with torch.no_grad():
        logits = Linear(3.0)(X).numpy()
    np.savez(tmp_path / "z.npz", logits=logits[20:], ids=np.arange(20, ROWS))
    given = {"data": str(folder / "x.parquet"), "out": str(tmp_path / "d"), "name": "z"}
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    words += ["--task", "multilabel", "--on-missing", "skip"]
    done = CliRunner().invoke(app, ["import", str(tmp_path / "z.npz"), *words])
    assert done.exit_code == 0, done.output
    assert "; teacher's top label is one of the row's in " in done.output
    assert softlabels.verify(dump=str(tmp_path / "d"), source=True).good
    found = softlabels.load(str(tmp_path / "d"), inputs=False)
    assert found.take(np.arange(ROWS - 20))["label"].equal(HOT[20:])
    skipped = softlabels.info(str(tmp_path / "d"))["manifest"]["skipped"]
    assert [entry["label"] for entry in skipped] == [*NUMBERS[:7], None, *NUMBERS[8:20]]
    with pytest.raises(UsageError, match=r"z = T · log\(p / \(1 − p\)\): save that"):
        import_logits(file=str(tmp_path / "z.npz"), task="multilabel", probabilities=True, **given)


@pytest.mark.parametrize(
    ("labels", "feature", "error", "message"),
    [
        ([0] * 9, datasets.ClassLabel(names=NAMES), SourceError,
         r"one label a row, in the column 'labels' \(ClassLabel\); expected a list .*--no-labels"),
        ([[0], [3], [1]], None, LabelSpaceMismatch, "the label 3 for the row with id 1.*0 to 2"),
        ([[0, 1, 1, 0]] * 3, None, LabelSpaceMismatch, "say of 4 classes .* has 3"),
        ([["cat"], ["cow"]], None, LabelSpaceMismatch, "'cow' in .* none of the model's 3 classes"),
        ([[0, 1, 1], [0, 1]], None, SourceError, "names the class 1 twice in one row"),
        ([[0, 2], [0, -1]], None, LabelSpaceMismatch, "holds -1 in a list; .* Leave out"),
        ([[0.0, 0.5, 1.0]] * 2, None, SourceError, "holds 0.5 in a list of 3 numbers"),
        ([[0.0, 1.0, -1.0]] * 2, None, SourceError, "holds -1 in a list, .* unknown"),
        ([[True, None, False]] * 2, None, SourceError, "holds null in a list"),
        ([[0.0, 1.0, 1.0], [0.0, 1.0]], None, SourceError, "a list of 2 flags where .* has 3"),
        ([[0, 1], [1, 0]], None, SourceError, "lists of 2 of the numbers 0 and 1, which may"),
        ([[[0], [1]]] * 2, None, SourceError, "holds lists of list"),
    ],
    ids=["one", "beyond", "count", "name", "twice", "negative", "half", "minus", "null", "short",
         "either", "nested"],
)  # fmt: skip
def test_labels_that_can_not_be(folder, tmp_path, labels, feature, error, message):
    data = write(tmp_path / "d.parquet", labels, feature)
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    named = {"class_names": str(tmp_path / "names.txt")} if labels[0] == ["cat"] else {}
    with pytest.raises(error, match=message):
        dump(folder, data, tmp_path / "d", input_column="x", label_column="labels", **named)
    assert not (tmp_path / "d").exists()


def test_lists_without_the_task_are_refused(folder, tmp_path, cli):
    with pytest.raises(SourceError, match=r"holds lists of .*say --task multilabel"):
        dump(folder, folder / "x.parquet", tmp_path / "d", task="classification",
             label_column="labels")  # fmt: skip
    dump(folder, folder / "x.parquet", tmp_path / "c", labels=False)
    with pytest.raises(UsageError, match=r"--per-class: .* has no labels of the teacher's classes"):
        softlabels.info(str(tmp_path / "c"), per_class=True)
    done = cli("info", folder, "--per-class")
    assert (done.code, "holds 1 dump; name one, such as" in done.err) == (2, True)


def test_the_teacher_is_measured_label_by_label(folder):
    info = softlabels.info(str(folder / "dump"), per_class=True)
    known = np.arange(ROWS) != 7
    z = softlabels.load(str(folder / "dump")).take(np.flatnonzero(known))["logits"].float()
    hot = HOT[known]
    for label, found in enumerate(info["per_class"]):
        z_N, there_N = z[:, label], hot[:, label].bool()
        assert found["name"] == NAMES[label]
        assert found["positives"] == int(there_N.sum())
        assert found["mean_probability"] == pytest.approx(float(torch.sigmoid(z_N).mean()))
        assert found["recall"] == pytest.approx(float((z_N > 0)[there_N].float().mean()))
        ranks = [float((there_N & (z_N >= one)).sum() / (z_N >= one).sum()) for one in z_N[there_N]]
        assert found["ap"] == pytest.approx(np.mean(ranks))
    assert info["facts"]["mean average precision"] == pytest.approx(
        np.mean([found["ap"] for found in info["per_class"]])
    )


def test_show_knows_several_labels(folder):
    shown = softlabels.show(dump=str(folder / "dump"), rows=200, class_="eel")
    assert [row.id for row in shown.rows] == [i for i in range(ROWS) if 2 in NUMBERS[i] and i != 7]
    assert shown.rows[0].label_name == [NAMES[i] for i in NUMBERS[shown.rows[0].id]]
    wrong = softlabels.show(dump=str(folder / "dump"), rows=200, wrong=True)
    z = softlabels.load(str(folder / "dump"), inputs=False).take(np.arange(ROWS))["logits"]
    errs = ((z > 0) != HOT.bool()).any(-1)
    errs[7] = False
    assert [row.id for row in wrong.rows] == errs.nonzero()[:, 0].tolist()
