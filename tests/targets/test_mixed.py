"""Several teachers' dumps mixed into one, and weights fitted on held-out rows."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

import softlabels
from softlabels.errors import AlignmentError, LabelSpaceMismatch, StoreError, UsageError
from softlabels.mixtures import MixedProbs
from softlabels.targets.holdout import choose_rows
from tests.conftest import Linear, Lines, make_vectors, save_script
from tests.dumps import make_dump


def three(tmp_path: Path, rows: int = 120, classes: int = 4) -> dict[str, Path]:
    """Three teachers, of which a knows the label, row mod classes, best, and c nothing."""
    random = np.random.default_rng(5)
    shown = 3 * (np.arange(rows)[:, None] % classes == np.arange(classes))
    folders = {}
    for name, knows in (("a", 1.0), ("b", 0.5), ("c", 0.0)):
        logits = (knows * shown + random.normal(size=(rows, classes))).astype("float16")
        folders[name] = make_dump(tmp_path / name, logits, 16, 50)
    return folders


def raw(folders: dict[str, Path]) -> dict[str, torch.Tensor]:
    return {name: softlabels.load(f, inputs=False)["logits"].float() for name, f in folders.items()}


def test_rows_of_a_mixture(tmp_path):
    folders = three(tmp_path)
    z = raw(folders)
    teachers = softlabels.load(folders, T=3, inputs=False)
    dataset = teachers.mix("prob", weights={"a": 3, "c": 1, "b": 0})
    expected = 0.75 * torch.softmax(z["a"] / 3, -1) + 0.25 * torch.softmax(z["c"] / 3, -1)
    assert dict(dataset.weights) == {"a": 0.75, "c": 0.25}
    torch.testing.assert_close(dataset["soft_target"], expected)
    loader = DataLoader(dataset, batch_size=50, num_workers=2)
    for batches in (list(dataset.batches(50)), list(loader)):
        assert isinstance(batches[0]["targets"], MixedProbs)
        torch.testing.assert_close(torch.cat([b["soft_target"] for b in batches]), expected)
        assert "logits" not in batches[0]
    with pytest.raises(UsageError, match='by "prob" has no logits'):
        dataset[:3]["logits"]
    with pytest.raises(UsageError, match='by "prob" has no logits'):
        dataset["logits"]
    assert dataset.column_names == ["id", "view", "label", "soft_target"]
    row = dataset.with_temperature(1)[7]
    torch.testing.assert_close(
        row["soft_target"], 0.75 * z["a"][7].softmax(-1) + 0.25 * z["c"][7].softmax(-1)
    )
    copied = pickle.loads(pickle.dumps(dataset))
    torch.testing.assert_close(copied[[4, 2]]["soft_target"], expected[[4, 2]])
    assert repr(dataset) == "Mixed(0.75·a + 0.25·c by prob, 120 rows × 4 classes, T=3)"

    by_logit = teachers.mix("logit", weights=[1, 1, 2])
    logits = (z["a"] + z["b"] + 2 * z["c"]) / 4
    torch.testing.assert_close(by_logit["logits"], logits)
    torch.testing.assert_close(by_logit["soft_target"], torch.softmax(logits / 3, -1))
    assert [*teachers.mix().weights.values()] == pytest.approx([1 / 3] * 3)
    for large in (np.array([1.7e308] * 3), torch.ones(3)):
        assert [*teachers.mix("prob", large).weights.values()] == pytest.approx([1 / 3] * 3)
    assert teachers.mix("logit", "0.5,0.25, .25").weights == {"a": 0.5, "b": 0.25, "c": 0.25}


def test_members_are_chosen_without_a_new_dump(tmp_path):
    folders = three(tmp_path)
    z, teachers = raw(folders), softlabels.load(folders, T=1, inputs=False)
    some = teachers.only("c", "b")
    assert list(some[0]["logits"]) == ["c", "b"]
    torch.testing.assert_close(some.mix("logit")["logits"], (z["b"] + z["c"]) / 2)
    assert some.base is teachers.base, "whose inputs and labels are there"
    for names, words in (
        (("d",), "called 'd'; there are a, b, c"), ((), "no teacher is named"),
        ((["a", "b"],), r"called \['a', 'b'\]; there are a, b, c, to be named one by one"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            teachers.only(*names)


def test_an_epoch_goes_on_only_with_the_same_mixture(tmp_path):
    teachers = softlabels.load(three(tmp_path), T=1, inputs=False)
    state = teachers.mix("prob", [1, 1, 3]).batches(10, shuffle=True).state_dict()
    for same in ([2, 2, 6], [0.2, 0.2, 0.6]):  # the last digits of these differ
        teachers.mix("prob", same).batches(10, shuffle=True).load_state_dict(state)
    for other in (teachers.mix("logit", [1, 1, 3]), teachers.mix("prob", [1, 2, 1])):
        with pytest.raises(UsageError, match="this state is of batches whose data"):
            other.batches(10, shuffle=True).load_state_dict(state)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([0.5, -0.5, 1], "weights are .* of 0 or more"),
        ([0, 0, 0], "not all 0"),
        ([1, float("nan"), 1], "finite"),
        ([1, float("inf"), 1], "finite"),
        ([0.5, 0.5], "2 weights; there are 3 teachers, a, b, c"),
        ([1], "which is 1 weight; there are 3 teachers"),
        ({"a": 1, "b": 1}, "'c' has none of 3 teachers, a, b, c; give one of each"),
        ({"a": 1, "b": 1, "c": 1, "d": 1}, "'d' is none of 3 teachers"),
        ("0.5,half,0.1", "expected is a number of each of 3 teachers, a, b, c, or fit"),
        ([None, 1, 1], "expected is a number of each"),
        ({0.5, 0.2, 0.3}, "expected is a number of each"),
    ],
)
def test_weights_that_are_none(tmp_path, weights, words):
    teachers = softlabels.load(three(tmp_path), inputs=False)
    with pytest.raises(UsageError, match=words):
        teachers.mix("prob", weights)


def test_teachers_that_can_not_be_mixed(tmp_path):
    zeros = np.zeros((40, 4), "float16")
    a = make_dump(tmp_path / "a", zeros)

    def mixed(other: Path, space: str = "prob"):
        return softlabels.load({"a": a, "other": other}, inputs=False).mix(space)

    with pytest.raises(LabelSpaceMismatch, match=r"4 classes.*5 classes"):
        mixed(make_dump(tmp_path / "classes", np.zeros((40, 5), "float16")))
    more = make_dump(tmp_path / "more", np.zeros((47, 4), "float16"))
    words = r"7 of 47 rows of .*more are not in .*/a: first the ids 40, 41, .*the same rows"
    with pytest.raises(AlignmentError, match=words):
        mixed(more)
    few = make_dump(tmp_path / "few", np.zeros((33, 4), "float16"))
    with pytest.raises(AlignmentError, match=r"7 of 40 rows of .*/a are not in .*few"):
        mixed(few)
    views = make_dump(tmp_path / "views", np.zeros((2, 40, 4), "float16"))
    with pytest.raises(AlignmentError, match=r"40 of 80 rows of .*views are not in .*of view 1"):
        mixed(views)
    with pytest.raises(UsageError, match=r"mix is 'mean'; .* are mixed by"):
        mixed(a, "mean")


def test_teachers_of_other_class_names_and_tasks(tmp_path):
    data = make_vectors(tmp_path / "d.parquet", rows=40)
    script = save_script(Linear(1.0), tmp_path / "t.pt")
    outs = {}
    for name, names in (("one", "cat,dog,hen"), ("two", "cat,dog,cow"), ("three", "dog,cat,hen")):
        outs[name] = tmp_path / name
        file = tmp_path / f"{name}.txt"
        file.write_text(names.replace(",", "\n"))
        words = {"class_names": str(file), "labels": False}
        softlabels.dump(teacher=script, data=data, out=str(outs[name]), **words)
    with pytest.raises(LabelSpaceMismatch, match=r"'cow' of .*two is no class of .*one"):
        softlabels.load({"one": outs["one"], "two": outs["two"]}).mix()
    with pytest.raises(LabelSpaceMismatch, match="in another order: class 0 is 'dog' there"):
        softlabels.load({"one": outs["one"], "three": outs["three"]})


def nll(z: dict[str, torch.Tensor], weights: list[float], rows: np.ndarray, space: str) -> float:
    pairs = list(zip(weights, (one[rows].double() for one in z.values()), strict=True))
    if space == "prob":
        log_q = sum(w * torch.softmax(one, -1) for w, one in pairs).log()
    else:
        log_q = torch.log_softmax(sum(w * one for w, one in pairs), -1)
    labels = torch.from_numpy(rows % log_q.shape[-1])
    return float(-log_q.gather(-1, labels[:, None]).mean())


@pytest.mark.parametrize("space", ["prob", "logit"])
def test_fitted_weights_are_the_best_on_held_out_rows(tmp_path, space):
    folders = three(tmp_path, rows=600)
    z, teachers = raw(folders), softlabels.load(folders, inputs=False)
    fitted = teachers.fit_weights(space, holdout=0.5, data_seed=3)
    _, held = choose_rows(600, None, holdout=0.5, rows=None, data_seed=3)
    found = list(fitted.weights.values())
    assert fitted.rows == 300
    assert sum(found) == pytest.approx(1)
    assert fitted.nll == pytest.approx(nll(z, found, held, space), abs=1e-6)
    assert fitted.equal == pytest.approx(nll(z, [1 / 3] * 3, held, space), abs=1e-6)
    assert fitted.alone["b"] == pytest.approx(nll(z, [0, 1, 0], held, space), abs=1e-6)
    grid = [(i / 10, j / 10, (10 - i - j) / 10) for i in range(11) for j in range(11 - i)]
    best = min(nll(z, list(weights), held, space) for weights in grid)
    assert fitted.nll <= best + 1e-6  # below 1/10,000 a weight is 0
    with pytest.raises(UsageError, match="data_seed is -1; a seed is"):
        teachers.mix(space, "fit", data_seed=-1)
    mixed = teachers.mix(space, "fit", holdout=0.5, data_seed=3)
    assert dict(mixed.weights) == {n: w for n, w in fitted.weights.items() if w}
    text = f"weights fitted on 300 held-out rows: a {found[0]:.3f}, b {found[1]:.3f}"
    assert str(fitted).startswith(text)


def test_weights_are_fitted_where_labels_are(tmp_path):
    def unlabelled(shard: int, table: pa.Table) -> pa.Table:
        none = pa.array(np.full(len(table), -1))
        return table.set_column(table.schema.get_field_index("label"), "label", none)

    a, b = (
        make_dump(tmp_path / n, np.zeros((400, 4), "float16"), change=unlabelled, rewritten={})
        for n in "ab"
    )
    with pytest.raises(UsageError, match=r"labels, and of those of .*/a 0 have one; 30 are needed"):
        softlabels.load({"a": a, "b": b}, inputs=False).mix("prob", "fit")


def test_inputs_and_labels_are_those_of_the_first(tmp_path, teacher):
    outs = {name: str(tmp_path / name) for name in ("one", "two")}
    for out in outs.values():
        softlabels.dump(teacher=teacher, split="test", out=out)
    dataset = softlabels.load(outs, T=2).mix("logit", [0.2, 0.8])
    alone = softlabels.load(outs["one"], T=2)
    for name in ("input", "label", "id"):
        assert torch.equal(dataset[:9][name], alone[:9][name])
    torch.testing.assert_close(dataset[:9]["soft_target"], alone[:9]["soft_target"])
    assert (dataset.class_names, dataset.num_classes) == (alone.class_names, 10)
    assert len(list(dataset.batches(100, shuffle=True, rank=1, world=2))) == 3


def test_what_is_said_of_folders_of_dumps_and_of_twins(tmp_path):
    folders = three(tmp_path / "all")
    with pytest.raises(StoreError, match=r"all is no dump and holds 3 dumps, a, b, c: name one, "):
        softlabels.load(tmp_path / "all")
    said = Lines()
    shutil.copytree(folders["a"], tmp_path / "copy")
    softlabels.load({"a": folders["a"], "twin": tmp_path / "copy"}, inputs=False, progress=said)
    assert "/a) and twin (" in str(said)
    assert "are copies of one dump, with the same logits" in str(said)
