"""Label spaces that meet are compared by name: others are refused, another order is mapped."""

import re

import datasets
import numpy as np
import pytest

import softlabels
from softlabels.errors import LabelSpaceMismatch, SourceError
from softlabels.exchange import import_logits
from softlabels.inputs.opening import open_source
from tests.conftest import Lines, make_vectors


def relabelled(path, names: list[str] | None, order: list[int] | None = None) -> str:
    """The digits of the test split under these names, class i of ours being `order[i]` there."""
    digits = open_source("digits", "test").dataset
    order = order or list(range(10))
    label = datasets.Value("int64") if names is None else datasets.ClassLabel(names=names)
    found = digits.map(
        lambda row: {"label": order[row["label"]]},
        features=datasets.Features({**digits.features, "label": label}),
    )
    found.to_parquet(str(path))
    return str(path)


@pytest.fixture(scope="module")
def right(teacher) -> dict:
    return softlabels.evaluate(checkpoint=teacher)


def evaluate(teacher, data, **options) -> tuple[dict, list[str]]:
    heard = Lines()
    return softlabels.evaluate(
        progress=heard, checkpoint=teacher, data=data, split="train", **options
    ), [line for line in heard.lines if "by name" in line or "unknown" in line]


def test_the_same_classes_in_another_order_are_matched_by_name(teacher, tmp_path, right):
    order = [1, 0, 3, 4, 2, 5, 6, 7, 8, 9]
    names = [str(order.index(i)) for i in range(10)]
    found, said = evaluate(teacher, relabelled(tmp_path / "d.parquet", names, order))
    assert (found["errors"], found["nll"]) == (right["errors"], right["nll"])
    assert "class 0 is '1' there and '0' here; they are matched by name" in said[0]


def test_numbers_without_names_are_compared_as_numbers_and_that_is_said(teacher, tmp_path, right):
    found, said = evaluate(teacher, relabelled(tmp_path / "d.parquet", None))
    assert found["errors"] == right["errors"]
    assert re.fullmatch("class names of '.*', split 'train', unknown, numbers compared", said[0])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*"012345678", "nine"], r"t.pt has 10 classes \('0', '1', '2', …\), .* has 10 classes .*"
                                 r"'nine' of .* is no class of"),
        ([*"0123456789", "ten", "eleven"], "has 12 classes .* 'ten' of .* is no class of"),
        ([*"01234567", " 8", "9"], "' 8' of .* is spelled '8' by the other"),
    ],
)  # fmt: skip
def test_other_classes_are_refused(teacher, tmp_path, names, message):
    data = relabelled(tmp_path / "d.parquet", names)
    with pytest.raises(LabelSpaceMismatch, match=message):
        evaluate(teacher, data)
    with pytest.raises(LabelSpaceMismatch, match=message.replace("t.pt", "the teacher t")):
        softlabels.dump(teacher=teacher, data=data, out=str(tmp_path / "d"))
    assert not (tmp_path / "d").exists()


def test_fewer_or_more_classes_are_refused(teacher, tmp_path):
    few = make_vectors(tmp_path / "v.parquet")
    softlabels.fit(data=few, model="linear", epochs=1, out=str(tmp_path / "few.pt"))
    dataset = datasets.load_dataset("parquet", data_files=few, split="train")
    for names in (["a", "b"], ["A", "b", "c"]):
        label = datasets.ClassLabel(names=names)
        rows = dataset.filter(lambda row: row["label"] < 2)
        path = str(tmp_path / f"{len(names)}.parquet")
        rows.cast(datasets.Features({**rows.features, "label": label})).to_parquet(path)
        expected = "'A' of .* is spelled 'a'" if len(names) == 3 else "'c' of .* is no class of"
        with pytest.raises(LabelSpaceMismatch, match=expected):
            evaluate(str(tmp_path / "few.pt"), path)
    texts = dataset.map(
        lambda row: {"label": "Abc"[row["label"]]},
        features=datasets.Features({**dataset.features, "label": datasets.Value("string")}),
    )
    texts.to_parquet(str(tmp_path / "texts.parquet"))
    with pytest.raises(SourceError, match=r"label 'A' .* a, b, c; it is spelled 'a' by"):
        evaluate(str(tmp_path / "few.pt"), str(tmp_path / "texts.parquet"))


def test_a_dump_in_another_order_is_matched_too(teacher, dump_folder, tmp_path):
    """The same dump by a teacher whose classes are turned round: agreement is that of the dump."""
    order = list(range(9, -1, -1))
    names = [str(i) for i in order]
    data = relabelled(tmp_path / "d.parquet", names, order)
    softlabels.dump(teacher=teacher, data="digits", split="test", out=str(tmp_path / "a"))
    plain = softlabels.evaluate(checkpoint=teacher, against=str(tmp_path / "a"))["against"]
    values = softlabels.load(str(tmp_path / "a"), inputs=False).take(np.arange(597))["logits"]
    np.save(tmp_path / "z.npy", values.flip(1).numpy())

    import_logits(file=str(tmp_path / "z.npy"), data=data, out=str(tmp_path / "b"), name="z")
    found, said = evaluate(teacher, data, against=str(tmp_path / "b"))
    assert found["against"]["kl"] == pytest.approx(plain["kl"], abs=1e-6)
    assert found["against"]["agreement"] == 1 == plain["agreement"]
    assert len(said) == 2
    dumps = {"a": str(tmp_path / "a"), "b": str(tmp_path / "b")}
    with pytest.raises(LabelSpaceMismatch, match="another order: class 0 is '9' there"):
        softlabels.load(dumps, T=1, inputs=False)
    verdict = softlabels.verify(dump=str(tmp_path / "b"), source=True)
    assert verdict.good


def test_verify_sees_that_classes_were_renamed(teacher, tmp_path):
    names = [*"0123456789"]
    data, out = relabelled(tmp_path / "d.parquet", names), str(tmp_path / "d")
    softlabels.dump(teacher=teacher, data=data, out=out)
    assert softlabels.verify(dump=out, source=True).good
    names[3:5] = ["4", "3"]
    relabelled(tmp_path / "e.parquet", names)
    verdict = softlabels.verify(dump=out, source=True, data=str(tmp_path / "e.parquet"))
    assert [str(f) for f in verdict.findings if "class 3 is '4' there and '3' here" in str(f)]


def test_labels_that_are_numbers_are_said_to_be_the_teachers(teacher, tmp_path):
    heard = Lines()
    data = relabelled(tmp_path / "d.parquet", None)
    softlabels.dump(progress=heard, teacher=teacher, data=data, out=str(tmp_path / "d"))
    assert "labels of d are numbers, taken as the teacher's: 0 is '0', 1 is '1', 2 is '2'" in (
        heard.lines
    )
