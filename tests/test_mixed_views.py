"""Views that are mixed with other inputs, over the whole road.

What is drawn, and how two pictures become one, is tested in tests/inputs/test_mixing.py.
"""

import json
import re
import shutil
import signal
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import cross_entropy

import softlabels
from softlabels.errors import DamagedDump, SourceError, UsageError
from softlabels.hub.labels_only import without_inputs
from softlabels.inputs.tables import parquet
from softlabels.inputs.views.chance import counters
from softlabels.inputs.views.mixing import partners_of
from softlabels.places.folders import open_folder
from softlabels.store.plan import Plan
from softlabels.store.reader import DumpReader
from softlabels.store.records import Commit, Manifest
from softlabels.store.shard_check import _check_mixing
from softlabels.teachers import resolve
from softlabels.verification.partners import wrong_partners
from tests.capture import harm
from tests.conftest import Lines, png, save_script
from tests.dumps import rewrite
from tests.students.test_augment import seen
from tests.test_cropped_views import run

ROOT = Path(__file__).parent.parent
COUNT, SPOILT = 60, "né-41"
ALONE = "random_resized_crop(8, 0.3, 1)|flip"
MIXED = f"{ALONE}|mixup(0.5)|cutmix(1.0)"


class Flat(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(3 * 8 * 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1) * 4)


def pictures(path: Path, labels: list, feature, spoilt: bool = False) -> str:
    """A Parquet file of pictures with text ids."""
    chance = np.random.default_rng(0)
    sizes = chance.integers(9, 15, (COUNT, 2))
    files = [png(chance.integers(0, 255, (*size, 3))) for size in sizes]
    names = [f"né-{i}" for i in range(COUNT)]
    if spoilt:
        files[names.index(SPOILT)] = b"none"
    features = datasets.Features(
        {"image": datasets.Image(), "name": datasets.Value("string"), "label": feature}
    )
    rows = {"image": [{"bytes": f, "path": None} for f in files], "name": names, "label": labels}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(path))
    return str(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with t.pt, sorted.parquet, sorted by class, and d, its mixed views."""
    folder = tmp_path_factory.mktemp("mixed")
    save_script(Flat(), folder / "t.pt")
    labels, feature = [i * 3 // COUNT for i in range(COUNT)], datasets.ClassLabel(names=[*"abc"])
    pictures(folder / "sorted.parquet", labels, feature)
    pictures(folder / "spoilt.parquet", labels, feature, spoilt=True)
    softlabels.dump(**words(folder), out=str(folder / "d"))
    return folder


def words(place: Path, **changes) -> dict:
    return {
        "teacher": str(place / "t.pt"), "data": str(place / "sorted.parquet"), "id_column": "name",
        "views": 3, "augment": MIXED, "data_seed": 3, "shard_rows": 16, "batch_size": 25,
        "preprocess": "rgb|resize(8)|center_crop(8)|scale(255)", "dtype": "float32",
    } | changes  # fmt: skip


def in_format_md(name: str) -> dict:
    text = (ROOT / "docs" / "format.md").read_text()
    names: dict = {"np": np}
    exec(f"def {name}" + text.split(f"def {name}", 1)[1].split("```", 1)[0], names)
    return names[name]


def levels(inputs: torch.Tensor) -> np.ndarray:
    return (inputs * 255).round().to(torch.uint8).numpy()


def test_each_row_is_mixed_with_its_partner_as_the_format_says(place, tmp_path):
    """Beside a dump of the same views without mixing, which has what each row and its partner show
    alone."""
    softlabels.dump(**words(place, augment=ALONE), out=str(tmp_path / "alone"))
    alone = softlabels.load(tmp_path / "alone")[:]
    keys = zip(alone["id"], alone["view"].tolist(), strict=True)
    shown = dict(zip(keys, levels(alone["input"]), strict=True))
    table, mix = pq.read_table(place / "d" / "data").to_pylist(), in_format_md("mixed")
    batch = softlabels.load(place / "d")[:]
    assert {row["mix"] for row in table} == {0, 1, 2}
    for row, found in zip(table, levels(batch["input"]), strict=True):
        own, partner = (shown[row[name], row["view"]] for name in ("id", "partner"))
        assert np.array_equal(found, mix(own, partner, row)), (row["id"], row["view"])
    logits = resolve(str(place / "t.pt")).logits(batch["input"])
    torch.testing.assert_close(batch["logits"], logits, rtol=1e-5, atol=1e-5)
    assert batch["mix_weight"].tolist() == [row["mix_weight"] for row in table]
    assert batch["partner_label"].tolist() == [row["partner_label"] for row in table]


def test_partners_come_from_the_whole_set_though_it_is_sorted_by_class(place):
    table = pq.read_table(place / "d" / "data").to_pylist()
    names = [f"né-{i}" for i in range(COUNT)]
    for row in table:
        number = names.index(row["id"])
        drawn = partners_of(
            3, counters(np.array([row["id"]])), row["view"], np.array([number]), COUNT
        )
        assert names[drawn[0]] == row["partner"]
        assert names.index(row["partner"]) * 3 // COUNT == row["partner_label"]
        assert (row["partner"] == row["id"]) == (row["view"] == 0)
    pairs = {(row["label"], row["partner_label"]) for row in table}
    assert len(pairs) == 9, "of every class with every other one"


def test_neither_batches_nor_shards_change_what_is_drawn(place, tmp_path):
    def columns(out: Path) -> list[dict]:
        rows = pq.read_table(out / "data").drop_columns(["logits"]).to_pylist()
        return sorted(rows, key=lambda row: (row["id"], row["view"]))

    softlabels.dump(
        **words(place, batch_size=7, shard_rows=60, workers=1), out=str(tmp_path / "same")
    )
    assert columns(tmp_path / "same") == columns(place / "d")


def test_verify_makes_mixed_rows_again_and_knows_their_partners(place, tmp_path):
    teacher, d = str(place / "t.pt"), str(place / "d")
    verdict = softlabels.verify(dump=d, source=True, replay=200, teacher=teacher)
    assert verdict.good, verdict.findings
    assert verdict.replay.rows == 200
    reader = DumpReader(open_folder(d))
    reader.partners[5] = reader.partners[6]
    assert "1 of 240 rows name other partners" in wrong_partners(reader)[0]
    reader.partner_labels[7] = 1 - reader.partner_labels[7]
    assert "2 of 240 rows name other partners" in wrong_partners(reader)[0]


def test_a_partner_that_can_not_be_read_leaves_the_row_as_it_is(place, tmp_path):
    out, lines = tmp_path / "d", Lines()
    data = str(place / "spoilt.parquet")
    softlabels.dump(**words(place, data=data, on_error="skip"), out=str(out), progress=lines)
    table = pq.read_table(out / "data").to_pylist()
    assert len(table) == (COUNT - 1) * 4
    left = [row for row in table if row["partner"] == SPOILT]
    assert left
    assert {(row["mix"], row["mix_weight"], row["mix_height"]) for row in left} == {(0, 1.0, 0)}
    others = [row for row in table if row["view"] and row["partner"] != SPOILT]
    assert {row["mix"] for row in others} == {1, 2}
    assert f"{len(left)} of 236 rows are not mixed, since the picture of their partner" in str(
        lines
    )
    manifest = json.loads((out / "softlabels.json").read_text())
    assert manifest["statistics"]["unmixed"] == len(left)
    teacher = words(place)["teacher"]
    assert softlabels.verify(dump=str(out), source=True, replay=100, teacher=teacher).good
    batch = softlabels.load(out)[:]
    logits = resolve(teacher).logits(batch["input"])
    torch.testing.assert_close(batch["logits"], logits, rtol=1e-5, atol=1e-5)


def test_several_labels_a_row_and_pictures_that_a_dump_stores(place, tmp_path):
    feature = datasets.List(datasets.ClassLabel(names=[*"abc"]))
    lists = [[], None, [0], [0, 2], [1]]
    labels = [lists[i % 5] for i in range(COUNT)]
    data = pictures(tmp_path / "lists.parquet", labels, feature)
    out = str(tmp_path / "d")
    replaying = {"data": data, "teacher": words(place)["teacher"]}
    softlabels.dump(
        **words(place, data=data, task="multilabel", store_inputs="resized(8)", clean=False,
                augment="flip|mixup(0.5)|cutmix(1.0)"), out=out,
    )  # fmt: skip
    table = pq.read_table(Path(out, "data")).to_pylist()
    assert [row["view"] for row in table].count(0) == 0
    for row in table:
        assert row["partner_label"] == labels[int(row["partner"].removeprefix("né-"))]
    batch = softlabels.load(out)[:]
    logits = resolve(words(place)["teacher"]).logits(batch["input"])
    torch.testing.assert_close(batch["logits"], logits, rtol=1e-5, atol=1e-5)
    expected = [[-1] * 3 if r["partner_label"] is None else
                [int(i in r["partner_label"]) for i in range(3)] for r in table]  # fmt: skip
    assert batch["partner_label"].tolist() == expected
    assert softlabels.verify(dump=out).good
    reader, bare = DumpReader(open_folder(out)), open_folder(str(tmp_path / "bare"))
    without_inputs(reader, bare)
    verdict = softlabels.verify(dump=str(tmp_path / "bare"), replay=9, **replaying)
    assert verdict.good, verdict.findings
    manifest = json.loads(Path(out, "softlabels.json").read_text())
    assert manifest["statistics"]["labelled"] == 0, "no row has one right answer"


def test_a_students_loss_is_that_of_the_mixed_labels(place, tmp_path):
    """The teacher itself, which hardly learns: of view 1 by hand."""
    lines = Lines()
    words = {"dump": str(place / "d"), "T": 1, "epochs": 1, "lr": 1e-9, "batch_size": 30}
    words |= {"student": f"{__name__}:Flat", "out": str(tmp_path / "s.pt"), "progress": lines}
    batch = softlabels.load(place / "d").view(1)[:]
    student, w = resolve(str(place / "t.pt")).logits(batch["input"]), batch["mix_weight"]
    hard = w * cross_entropy(student, batch["label"], reduction="none")
    hard = hard + (1 - w) * cross_entropy(student, batch["partner_label"], reduction="none")
    for alpha, expected in ((0, hard.mean().item()), (1, 0.0)):
        result = softlabels.train(**words, alpha=alpha, holdout=0)
        assert result.metrics["loss"] == pytest.approx(expected, abs=1e-4)
    assert not any("held-out scores" in line for line in lines.lines)
    held = softlabels.train(**words, alpha=0.5, holdout=0.5).metrics["held_out"]
    assert held["labelled"] == 30, "on clean inputs"
    assert "about 50% of the mixed rows show something of an input that is held out" in str(lines)


def test_timms_loss_gets_the_shares_of_the_labels(place):
    config = {"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    loader = softlabels.TimmLoader(place / "d", config, COUNT, shuffle=False, epoch=1)
    [(_, target)] = loader
    batch = softlabels.load(place / "d").view(1)[:]
    for shares, label, other, w in zip(
        target.tolist(),
        *(batch[n].tolist() for n in ("label", "partner_label", "mix_weight")),
        strict=True,
    ):
        expected = [w * (c == label) + (1 - w) * (c == other) for c in range(3)]
        assert shares == pytest.approx(expected, abs=1e-6)


def test_without_clean_inputs_a_student_is_scored_by_the_teacher_alone(place, tmp_path):
    softlabels.dump(**words(place, clean=False, views=2), out=str(tmp_path / "d"))
    result = softlabels.train(
        dump=str(tmp_path / "d"), student="linear", epochs=2, alpha=0.5, holdout=0.3,
        out=str(tmp_path / "s.pt"),
    )  # fmt: skip
    assert "errors" not in result.metrics["held_out"], "a mixed input has no one right label"
    assert result.metrics["held_out"]["kl"] >= 0


def test_fit_mixes_what_it_trains_on_whatever_the_batches(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fitting = {
        "data": words(place)["data"], "id_column": "name", "augment": MIXED, "holdout": 0.3,
        "preprocess": words(place)["preprocess"], "data_seed": 3,
    }  # fmt: skip
    first, _ = seen(2, softlabels.fit, batch_size=14, **fitting)
    second, _ = seen(2, softlabels.fit, batch_size=42, **fitting)
    alone, _ = seen(2, softlabels.fit, batch_size=42, **fitting | {"augment": ALONE})
    assert first == second
    assert len(first[0] & alone[0]) < 25, "of some nearly nothing is mixed in"
    # each picture is shown once an epoch
    cut, _ = seen(1, softlabels.fit, batch_size=42, **fitting | {"augment": "cutmix(1)"})
    rest, _ = seen(1, softlabels.fit, batch_size=42, **fitting | {"augment": "jitter(1)"})
    assert len(cut[0]) == len(rest[0]) == 42


def test_held_out_inputs_are_mixed_into_none(place, tmp_path, monkeypatch):
    """Each picture is of one grey level, so that a cut one tells of two."""
    monkeypatch.chdir(tmp_path)
    levels = np.arange(COUNT) * 4
    files = [png(np.full((8, 8, 3), level)) for level in levels]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[*"abc"])}
    )
    rows = {"image": [{"bytes": f, "path": None} for f in files], "label": [0, 1, 2] * 20}
    datasets.Dataset.from_dict(rows, features=features).to_parquet("grey.parquet")
    shown, scored = seen(
        3, softlabels.fit, data="grey.parquet", augment="cutmix(1)", holdout=0.5, batch_size=30,
        preprocess="rgb|scale(255)",
    )  # fmt: skip
    held = {level for picture in scored for level in picture}
    trained = {level for epoch in shown for picture in epoch for level in picture}
    assert held | trained == set(levels.tolist())
    assert len(trained) == 30, "of the pictures that are trained on, and no others"
    assert any(len(set(picture)) == 2 for picture in shown[0])


def test_what_can_not_be_mixed_is_refused(place, tmp_path):
    d, out = str(place / "d"), str(tmp_path / "never")
    for how, message in (
        ({"streaming": True}, "mixed with others of the whole dump .* load it without streaming"),
        ({"shards": "0-1"}, r"\d+ of 128 rows of .* are mixed with inputs that are in other shar"),
    ):
        with pytest.raises(UsageError, match=message):
            softlabels.load(d, **how)
        batch = softlabels.load(d, inputs=False, **how)[:20]
        assert torch.equal(batch["partner_label"], softlabels.load(d)[:20]["partner_label"])
        assert torch.equal(batch["mix_weight"], softlabels.load(d)[:20]["mix_weight"])
    with pytest.raises(UsageError, match="mixup must come last, since it mixes two finished pict"):
        softlabels.dump(**words(place, augment="mixup(0.2)|flip"), out=out)
    one = pq.read_table(words(place)["data"]).slice(0, 1)
    pq.write_table(one, tmp_path / "one.parquet")
    with pytest.raises(
        UsageError, match=r"mixes an input with another one of the data, and .* has one"
    ):
        softlabels.dump(**words(place, data=str(tmp_path / "one.parquet")), out=out)
    clean = str(tmp_path / "clean")
    softlabels.dump(**words(place, views=None, augment=None, data_seed=None), out=clean)
    with pytest.raises(UsageError, match="the stored soft targets answer none that are mixed"):
        softlabels.train(dump=clean, augment="mixup(0.2)", student="linear", out=out)
    assert not Path(out).exists()


def test_a_file_that_is_slow_to_read_at_random_is_told_of(place, tmp_path, monkeypatch):
    lines, sample = Lines(), words(place, shard_rows=60)
    monkeypatch.setattr(parquet, "KEPT_BYTES", 20_000)
    softlabels.dump(**sample, out=str(tmp_path / "d"), progress=lines)
    assert "partners of mixed views lie anywhere in" in str(lines)
    assert re.search(r"of whose row groups [\d.]+ kB are more than is kept in memory", str(lines))


def test_a_shard_with_other_weights_is_damaged(place, tmp_path):

    plan = Plan.parse(json.loads((place / "d" / "plan.json").read_text()), "plan.json")
    table = pq.read_table(next((place / "d" / "data").glob("*00000*"))).slice(16, 16)
    _check_mixing(plan, plan.mixing, table, 1)
    for name, value, message in (
        ("mix_weight", 1.5, "outside 0 to 1"), ("mix", 3, "a mix beyond 2"),
        ("mix", 0, "a weight or a box, and is not mixed"), ("partner", None, "the wrong partner"),
        ("partner_label", 3, "the partner_label of the row with id .* is 3"),
    ):  # fmt: skip
        column = table[name].to_pylist()
        column[4] = table["id"][4].as_py() if value is None else value
        place_of = table.column_names.index(name)
        wrong = table.set_column(place_of, name, pa.array(column, table[name].type))
        with pytest.raises(DamagedDump, match=message):
            _check_mixing(plan, plan.mixing, wrong, 1)


@pytest.mark.parametrize(("name", "value"), [("mix_weight", np.nan), ("mix_weight", 2), ("mix", 7)])
def test_a_student_is_shown_no_mix_that_is_never_drawn(place, tmp_path, name, value):
    out = shutil.copytree(place / "d", tmp_path / "d")
    plan = Plan.parse(json.loads((out / "plan.json").read_text()), "plan.json")
    paths = sorted((out / "commits").iterdir())
    commits = [Commit.parse(json.loads(path.read_text()), path.name) for path in paths]

    def change(shard: int, table: pa.Table) -> pa.Table:
        column, at = table[name].to_pylist(), table.column_names.index(name)
        column[20] = value  # of view 1
        return table.set_column(at, table.field(at), pa.array(column, table[name].type))

    commits[0] = rewrite(out, plan, commits[0], {}, change)
    manifest = Manifest.derive(plan, commits, {}).as_json
    (out / "softlabels.json").write_text(json.dumps(manifest))
    with pytest.raises(SourceError, match=f"{name} .*{value}.* the row is damaged"):
        softlabels.load(out)


@pytest.mark.slow
def test_a_kill_loses_nothing_and_two_ranks_mix_with_each_others_rows(place, tmp_path):
    out = tmp_path / "d"
    options = [w for k, v in words(place).items() for w in (f"--{k.replace('_', '-')}", v)]
    command = ["dump", "--out", out, *options]
    process = run(*command)
    while not list(out.glob("commits/*.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = run(*command, "--resume", ranks=2)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert harm.contents(out) == harm.contents(place / "d")
