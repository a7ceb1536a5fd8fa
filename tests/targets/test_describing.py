"""What `info` measures of several teachers over the same rows, and of their mixture."""

import numpy as np
import pytest
import torch

import softlabels
from softlabels.errors import AlignmentError, LabelSpaceMismatch, StoreError, UsageError
from softlabels.logits import DenseLogits
from softlabels.measures import LabelScore, TeacherScore
from softlabels.multilabel import average_precision, mean_of
from softlabels.soft_targets import LabelTargets
from tests.conftest import Linear, Lines, make_vectors, save_script
from tests.dumps import OTHER_WRITERS, copy_to_memory, make_dump
from tests.targets.test_loading import rewritten
from tests.targets.test_mixed import raw, three
from tests.test_several_labels import CLASSES, HOT, NUMBERS, write

WEIGHTS = {"a": 0.5, "b": 0.3, "c": 0.2}


def mixture(z: dict[str, torch.Tensor], space: str) -> DenseLogits:
    if space == "logit":
        return DenseLogits(sum(WEIGHTS[name] * z[name] for name in z))
    return DenseLogits(sum(WEIGHTS[name] * torch.softmax(z[name], -1) for name in z).log())


def close(found: dict, expected: dict) -> bool:
    return {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("space", ["prob", "logit"])
def test_the_measures_are_those_of_all_rows_at_once(tmp_path, space):
    folders = three(tmp_path, classes=7)
    z, labels = raw(folders), torch.arange(120) % 7
    found = softlabels.info(folders, mix=space, mix_weights=WEIGHTS)
    of_each = {name: DenseLogits(z[name]) for name in z} | {"mixture": mixture(z, space)}
    for name, logits in of_each.items():
        told = found["teachers"].get(name, found["mixture"])
        expected = dict(LabelScore.of(logits, labels).measures)
        assert expected.pop("rows") == found["rows"] == found["labelled"] == 120
        assert close(told, expected)
        assert told["entropy"] == pytest.approx(float(logits.temper(1).entropy().mean()), rel=1e-5)
        assert told.get("weight") == WEIGHTS.get(name)
    pairs = {tuple(pair["teachers"]): pair for pair in found["diversity"]["pairs"]}
    assert list(pairs) == [("a", "b"), ("a", "c"), ("b", "c")]
    kls = []
    for (one, other), pair in pairs.items():
        there, back = (
            TeacherScore.of(z[other], of_each[one]),
            TeacherScore.of(z[one], of_each[other]),
        )
        kls += [there.measures["kl"], back.measures["kl"]]
        assert pair["kl"] == pytest.approx(kls[-2:], rel=1e-5)
        assert pair["agreement"] == there.measures["agreement"]
    assert found["diversity"]["kl"] == pytest.approx(np.mean(kls), rel=1e-5)
    mean = np.mean([pair["agreement"] for pair in pairs.values()])
    assert found["diversity"]["agreement"] == pytest.approx(mean)
    dataset = softlabels.load(folders, inputs=False)
    assert softlabels.info(dataset)["mixture"] is None
    assert softlabels.info(dataset.mix(space, WEIGHTS))["mixture"] == found["mixture"]
    assert repr(found) == "TeachersInfo(a, b, c: 120 rows × 7 classes)"
    assert "<th>mixture, nll</th>" in found._repr_html_()


def test_wherever_they_lie_and_in_whatever_order(tmp_path):
    folders = three(tmp_path)
    expected = softlabels.info(folders, mix="prob")
    order = np.random.default_rng(0).permutation(120)
    z = softlabels.load(folders["b"], inputs=False)["logits"].numpy()
    others = {
        "a": copy_to_memory(folders["a"], "described/a"),
        "b": make_dump(tmp_path / "shuffled", z[order], 8, ids=order),
        "c": make_dump(tmp_path / "zstd", softlabels.load(folders["c"], inputs=False)["logits"]
                       .numpy(), rewritten=OTHER_WRITERS["zstd"]),
    }  # fmt: skip
    found = softlabels.info(others, mix="prob")
    assert found["mixture"] == pytest.approx(expected["mixture"])
    assert found["diversity"]["kl"] == pytest.approx(expected["diversity"]["kl"])


def test_rows_of_a_teacher_in_another_order_are_not_fetched_again_and_again(tmp_path, monkeypatch):
    """Then it is mapped."""
    monkeypatch.setattr("softlabels.targets.streamed_together.MOST_KEPT", 8)
    monkeypatch.setattr("softlabels.targets.streamed_together.KEPT", 8)
    rows = 1600
    order = np.random.default_rng(0).permutation(rows)
    logits = np.random.default_rng(1).normal(size=(rows, 3)).astype(np.float16)
    a = make_dump(tmp_path / "a", logits, 4)
    b = make_dump(tmp_path / "b", logits[order], 4, ids=order)
    said = Lines()
    assert softlabels.info({"a": a, "b": b}, progress=said)["diversity"]["agreement"] == 1
    assert not said.lines, "for how streams would be read does not matter"


def test_at_the_command_line(tmp_path, cli):
    three(tmp_path / "all", rows=400)
    (tmp_path / "all" / "d").mkdir()
    (tmp_path / "all" / "d" / "plan.json").write_text("{}")
    done = cli("info", "all", "--mix", "prob", "--mix-weights", "fit")
    assert done.code == 0
    assert "d in all is not complete and left out" in done.err
    about, beware, fitted, blank, head, *table = done.out.splitlines()
    assert about == "measured on  400 rows of toy, split train"
    assert beware.endswith("where a teacher was trained on these rows, its measures flatter it")
    assert fitted.startswith("mixture      by prob, weights fitted on 40 held-out rows: a ")
    assert head.split() == ["teacher", "weight", "accuracy", "NLL", "ECE", "entropy"]
    assert [line.split()[0] for line in table[:4]] == ["a", "b", "c", "mixture"]
    assert table[5].split() == ["pair", "agreement", "KL(1‖2)", "KL(2‖1)"]
    assert table[-1].startswith("mean of 3 pairs")
    assert not blank + table[4]


def test_without_labels_there_are_entropies_and_diversity(tmp_path):
    data = make_vectors(tmp_path / "v.parquet", rows=18)
    data = rewritten(data, lambda d: d.remove_columns("label"))
    for name, k in (("a", 1.0), ("b", 3.0)):
        script = save_script(Linear(k), tmp_path / f"{name}.pt")
        softlabels.dump(teacher=script, data=data, out=str(tmp_path / name))
    found = softlabels.info([tmp_path / "a", tmp_path / "b"], mix="logit")
    assert found["labelled"] == 0
    assert set(found["mixture"]) == {"mix", "entropy"}
    assert found["diversity"]["agreement"] == 1
    assert found["diversity"]["kl"] > 0.01
    assert found.lines[0].startswith("measured on  18 rows, without labels, of changed.parquet")
    assert "beware" not in str(found.lines)
    with pytest.raises(UsageError, match="weights are fitted on held-out rows with labels"):
        softlabels.info([tmp_path / "a", tmp_path / "b"], mix="prob", mix_weights="fit")


def test_labels_of_mixed_inputs_do_not_count(teacher, tmp_path):
    for name in "ab":
        words = {"views": 1, "augment": "mixup(0.5)", "split": "test", "data_seed": 3}
        softlabels.dump(teacher=teacher, out=str(tmp_path / name), **words)
    teachers = softlabels.load({name: tmp_path / name for name in "ab"}, inputs=False)
    mixed = int((teachers["mix_weight"] != 1).sum())
    assert mixed > 100
    found = softlabels.info(teachers)
    clean = softlabels.evaluate(checkpoint=teacher, split="test")
    assert found["labelled"] == found["rows"] - mixed == 2 * 597 - mixed
    assert found["diversity"]["kl"] == pytest.approx(0, abs=1e-9)
    assert f"(views 0, 1 of 597 inputs), {found['labelled']:,} with a label" in found.lines[0]
    assert found["teachers"]["a"]["errors"] >= clean["errors"]


@pytest.mark.parametrize("space", ["prob", "logit"])
def test_teachers_of_several_labels_a_row(tmp_path, space):
    data = write(
        tmp_path / "x.parquet", [None if row == 7 else NUMBERS[row] for row in range(200)], CLASSES
    )
    for name, k in (("a", 3.0), ("b", 1.0)):
        script = save_script(Linear(k), tmp_path / f"{name}.pt")
        words = {"teacher": script, "data": data, "task": "multilabel", "shard_rows": 64}
        softlabels.dump(out=str(tmp_path / name), **words)
    teachers = softlabels.load({name: tmp_path / name for name in "ab"}, inputs=False)
    found = softlabels.info(teachers.mix(space, [3, 1]))
    z = {name: logits.double() for name, logits in teachers["logits"].items()}
    p = {name: torch.sigmoid(values) for name, values in z.items()}
    q = 0.75 * p["a"] + 0.25 * p["b"]
    z["mixture"] = 0.75 * z["a"] + 0.25 * z["b"] if space == "logit" else q.logit()
    there = torch.arange(200) != 7
    for name, logits in z.items():
        told = found["teachers"].get(name, found["mixture"])
        hot = HOT[there].double()
        loss = torch.nn.functional.binary_cross_entropy_with_logits
        nll = loss(logits[there], hot, reduction="sum") / 199
        assert told["nll"] == pytest.approx(float(nll), rel=1e-4)
        precision = mean_of(average_precision(logits[there].float(), HOT[there]))
        assert told["map"] == pytest.approx(precision, rel=1e-4)
        entropy = LabelTargets(DenseLogits(logits), 1).entropy().mean()
        assert told["entropy"] == pytest.approx(float(entropy), rel=1e-4)
    (pair,) = found["diversity"]["pairs"]
    there = p["a"] * (p["a"] / p["b"]).log() + (1 - p["a"]) * ((1 - p["a"]) / (1 - p["b"])).log()
    assert pair["kl"][0] == pytest.approx(float(there.sum(-1).mean()), rel=1e-4)
    same = ((z["a"] > 0) == (z["b"] > 0)).double().mean()
    assert pair["agreement"] == pytest.approx(float(same))
    assert "mAP" in "\n".join(found.lines)


def test_what_is_not_measured_is_refused(tmp_path):
    folders = three(tmp_path)
    cases = [
        ({"path": folders["a"], "mix_weights": "1"}, "--mix-weights is '1', and one dump is not"),
        ({"path": folders, "mix_weights": "1,1,1"}, "--mix-weights is '1,1,1', and several dumps"),
        ({"path": folders, "per_class": True}, "--per-class is True, and several dumps"),
        ({"path": [folders["a"]], "mix": "prob"}, "--mix is prob, and .*a is one dump"),
        ({"path": folders, "mix": "mean"}, "mix is 'mean'"),
        ({"path": folders, "mix": "prob", "mix_weights": [1, -1, 1]}, "0 or more"),
        ({"path": softlabels.load(list(folders.values()), inputs=False)}, "is not measured"),
        ({"path": softlabels.load(folders, inputs=False), "mix": "prob"}, "measured as it is"),
    ]
    for words, message in cases:
        with pytest.raises(UsageError, match=message):
            softlabels.info(**words)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="empty has no dump in it"):
        softlabels.info(tmp_path / "empty", mix="prob")
    folders["other"] = make_dump(tmp_path / "other", np.zeros((120, 5), np.float16))
    with pytest.raises(LabelSpaceMismatch, match="these are not the same classes"):
        softlabels.info(folders)
    more = {"a": folders["a"], "more": make_dump(tmp_path / "more", np.zeros((130, 4), "float16"))}
    said = Lines()
    assert softlabels.info(more, progress=said)["rows"] == 120
    assert "10 of 130 rows of more" in str(said)
    with pytest.raises(AlignmentError, match=r"10 of 130 rows of .*more are not in"):
        softlabels.info(more, mix="prob")
    one = softlabels.load(folders["a"], inputs=False)
    assert softlabels.info(one) == softlabels.info([folders["a"]])
