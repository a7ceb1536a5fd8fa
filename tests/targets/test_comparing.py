"""`compare`: two dumps over the same rows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import softlabels
from softlabels.errors import AlignmentError, LabelSpaceMismatch, StoreError, UsageError
from softlabels.measures import LabelScore
from softlabels.reports.wording import sign_test
from tests.conftest import Linear, Lines, save_script
from tests.dumps import copy_to_memory, make_dump
from tests.onnx_files import save_net
from tests.pages.html import read
from tests.test_several_labels import CLASSES, HOT, NUMBERS, write

TEMPERATURES = (1, 0.5, 8)


def log_softmax(z_NC: np.ndarray, T: float) -> np.ndarray:
    """In 64 bits of precision, where the machine has more than double's 53."""
    scaled = z_NC.astype(np.longdouble) / T
    scaled -= scaled.max(-1, keepdims=True)
    return scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))


def tops(z_NC: np.ndarray, count: int) -> np.ndarray:
    return np.argsort(-z_NC, axis=-1, kind="stable")[:, :count]


def shuffled(where: Path, z_NC: np.ndarray, group: int, seed: int) -> Path:
    order = np.random.default_rng(seed).permutation(len(z_NC))
    return make_dump(where, z_NC[order], group, ids=order)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 99),
    rows=st.integers(1, 60),
    classes=st.integers(2, 9),
    noise=st.sampled_from([0, 1e-5, 1e-2, 3]),
    dtypes=st.tuples(*[st.sampled_from(["float32", "float16"])] * 2),
)
def test_all_is_what_numpy_finds_of_all_rows_at_once(
    seed, rows, classes, noise, dtypes, tmp_path_factory
):
    place, draw = tmp_path_factory.mktemp("compared"), np.random.default_rng(seed)
    z = draw.normal(size=(rows, classes)) * 3
    a, b = z.astype(dtypes[0]), (z + noise * draw.normal(size=z.shape)).astype(dtypes[1])
    folders = make_dump(place / "a", a), shuffled(place / "b", b, 7, seed)
    found = softlabels.compare(*folders, T=TEMPERATURES, rows=3)
    labels, top_a, top_b = np.arange(rows) % classes, tops(a, 1)[:, 0], tops(b, 1)[:, 0]
    for at, T in zip(found.temperatures, TEMPERATURES, strict=True):
        log_q, log_p = log_softmax(a, T), log_softmax(b, T)
        kl = (np.exp(log_q) * (log_q - log_p)).sum(-1).astype(np.float64)
        percentiles = np.percentile(kl, [50, 90, 99, 99.9])
        expected = dict(zip(["p50", "p90", "p99", "p99.9"], percentiles, strict=True))
        expected |= {"mean": kl.mean(), "max": kl.max()}
        assert at.kl == pytest.approx(expected, rel=1e-5, abs=1e-16)
        variation = np.abs(np.exp(log_q) - np.exp(log_p)).sum(-1) / 2
        expected = {"mean": float(variation.mean()), "max": float(variation.max())}
        assert at.total_variation == pytest.approx(expected, rel=1e-6, abs=1e-14)
    kl = {row.id: row.kl[0] for row in found.worst}
    log_q, log_p = log_softmax(a, 1), log_softmax(b, 1)
    of_rows = (np.exp(log_q) * (log_q - log_p)).sum(-1).astype(np.float64)
    assert sorted(kl.values(), reverse=True) == list(kl.values())
    assert list(kl.values()) == pytest.approx([of_rows[id] for id in kl], rel=1e-5, abs=1e-16)
    assert max(kl.values(), default=0) == found.temperatures[0].kl["max"]
    assert found.agreement == pytest.approx((top_a == top_b).mean())
    shared = [len(set(x) & set(y)) / 5 for x, y in zip(tops(a, 5), tops(b, 5), strict=True)]
    assert found.top5_agreement == (pytest.approx(np.mean(shared)) if classes > 5 else None)
    back = softlabels.compare(folders[1], folders[0])
    assert (back.agreement, back.top5_agreement) == pytest.approx(
        (found.agreement, found.top5_agreement)
    )
    flips = found.flips
    assert (flips.decisions, flips.changed) == (rows, (top_a != top_b).sum())
    lost, won = (top_a == labels) & (top_b != labels), (top_a != labels) & (top_b == labels)
    assert (flips.right_to_wrong, flips.wrong_to_right) == (lost.sum(), won.sum())
    assert back.flips.right_to_wrong == flips.wrong_to_right
    for pair in flips.pairs:
        which = (top_a == pair["from"]) & (top_b == pair["to"]) & (top_a != top_b)
        told = (pair["rows"], pair["right_to_wrong"], pair["wrong_to_right"])
        assert told == (which.sum(), lost[which].sum(), won[which].sum())
    assert sum(pair["rows"] for pair in flips.pairs) == flips.changed
    for one in flips.classes:
        number = one["class"]
        assert (one["reference"], one["other"]) == (
            (top_a == number).sum(),
            (top_b == number).sum(),
        )
        assert one["reference"] - one["left"] + one["came"] == one["other"]
        assert one["right_to_wrong"] == lost[labels == number].sum()
    for side, z_NC in ((found.reference, a), (found.other, b)):
        logits = softlabels.DenseLogits(torch.from_numpy(z_NC))
        expected = dict(LabelScore.of(logits, torch.from_numpy(labels)).measures)
        assert expected.pop("rows") == found.labelled == rows
        assert {name: side.measures[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_a_copy_differs_in_nothing(tmp_path):
    z = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float16)
    folder = make_dump(tmp_path / "a", z)
    shutil.copytree(folder, tmp_path / "b")
    said = Lines()
    found = softlabels.compare(folder, tmp_path / "b", progress=said)
    assert "are copies of one dump, with the same logits" in str(said)
    assert {value for at in found.temperatures for value in at.kl.values()} == {0}
    assert (found.agreement, found.top5_agreement, found.flips.changed) == (1, 1, 0)
    assert not found.worst
    itself = softlabels.compare(folder, f"{folder}/")
    assert (itself.reference.name, itself.other.name) == ("a", "a, again")
    assert (itself.temperatures, itself.summary) == (found.temperatures, found.summary)
    assert found.summary[:2] == [
        "Is B still A? Yes: the soft targets are the same in all rows.",
        "B makes the same top-1 predictions as A in all rows.",
    ]
    assert repr(found) == ("Comparison(a and b: 50 rows, agreement 1.0000, mean KL 0 nats at T=1)")


def test_view_by_view(tmp_path):
    z = np.random.default_rng(1).normal(size=(3, 20, 4)).astype(np.float32)
    other = z + np.float32([0, 0.1, 1])[:, None, None] * z[:, ::-1]
    a, b = make_dump(tmp_path / "a", z), make_dump(tmp_path / "b", other)
    found = softlabels.compare(a, b)
    assert [one["view"] for one in found.views] == [0, 1, 2]
    assert found.rows == sum(one["rows"] for one in found.views) == 60
    kls = [one["kl"][0] for one in found.views]
    assert kls[0] == 0 < kls[1] < kls[2]
    assert np.mean(kls) == pytest.approx(found.temperatures[0].kl["mean"])
    assert found.worst[0].view == 2
    assert "significant" not in str(found), "views of an input are no independent rows"
    clean, said = make_dump(tmp_path / "clean", z[0]), Lines()
    with pytest.raises(AlignmentError, match=r"40 of 60 rows of .* are compared over") as refused:
        softlabels.compare(clean, a, progress=said)
    assert str(refused.value).count("are compared over") == 1
    assert "left out" not in str(said)
    drawn = make_dump(tmp_path / "drawn", other, augment="jitter(3)")
    with pytest.raises(AlignmentError, match=r"saw other pictures in views.*are compared over"):
        softlabels.compare(a, drawn)


def test_several_labels_a_row(tmp_path):
    data = write(tmp_path / "x.parquet", [None, *(NUMBERS[row] for row in range(1, 200))], CLASSES)
    for name, k in (("a", 3.0), ("b", 1.0)):
        words = {"teacher": save_script(Linear(k), tmp_path / f"{name}.pt"), "dtype": "float32"}
        softlabels.dump(data=data, task="multilabel", out=str(tmp_path / name), **words)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    found = softlabels.compare(a, b, T=[1, 2])
    z = [softlabels.load(one, inputs=False)["logits"].double() for one in (a, b)]
    for at in found.temperatures:
        q, p = (torch.sigmoid(values / at.T) for values in z)
        kl = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
        assert at.kl["mean"] == pytest.approx(float(kl.sum(-1).mean()), rel=1e-6)
        assert at.total_variation["max"] == pytest.approx(float((q - p).abs().max()), rel=1e-6)
    holds = [values > 0 for values in z]
    assert found.agreement == pytest.approx(float((holds[0] == holds[1]).double().mean()))
    known, has = torch.arange(200)[:, None] > 0, HOT > 0
    flips = holds[0] != holds[1]
    for one in found.flips.classes:
        number = one["class"]
        flip = flips[:, number]
        told = [one[name] for name in ("left", "came", "right_to_wrong", "wrong_to_right")]
        lost = (flip[:, None] & known & (holds[0] == has)[:, [number]]).sum()
        won = (flip[:, None] & known & (holds[1] == has)[:, [number]]).sum()
        assert told == [(flip & holds[0][:, number]).sum(), (flip & holds[1][:, number]).sum(),
                        lost, won]  # fmt: skip
    expected = softlabels.info(a, per_class=True)["per_class"]
    measures = [{k: v for k, v in one.items() if k not in ("class", "name")} for one in expected]
    assert found.reference.labels == measures
    assert (found.labelled, found.top5_agreement, found.flips.pairs) == (199, None, [])
    assert "mAP" in str(found)


@pytest.mark.slow  # trains a teacher, and draws charts
def test_what_storing_made_is_told_apart_from_what_the_models_differ_by(teacher, tmp_path):
    for name, words in {
        "exact": {"dtype": "float32"}, "half": {}, "codes": {"codec": "int8"},
    }.items():  # fmt: skip
        softlabels.dump(teacher=teacher, split="test", out=str(tmp_path / name), **words)
    exact, half, codes = (str(tmp_path / name) for name in ("exact", "half", "codes"))
    for other in (half, codes):
        found = softlabels.compare(exact, other, T=[1, 2, 3])
        for at in found.temperatures:
            assert 0.3 * at.storage < at.kl["mean"] < 3 * at.storage
    stated = softlabels.info(codes)["manifest"]["statistics"]["kl"]
    assert found.temperatures[0].storage == pytest.approx(stated, rel=1e-3)
    page = tmp_path / "page.html"
    found = softlabels.compare(half, codes, rows=4, out=page)
    pictures = read(page.read_text()).all("img")
    assert [one.attributes["alt"] for one in pictures] == [
        f"input of id {row.id}" for row in found.worst
    ]
    assert found.temperatures[0].is_of_storage
    assert "No difference shown" in found.summary[0]
    assert found.summary[-1].endswith("dump both with --codec dense --dtype float32.")
    drawn = make_dump(tmp_path / "a", np.eye(5, dtype=np.float32))
    other = make_dump(tmp_path / "b", 2 * np.eye(5, dtype=np.float32))
    found = softlabels.compare(drawn, other)
    assert not found.temperatures[0].is_of_storage
    assert "Storing" not in found.summary[-1], "float32: not worth a word"


def test_as_text_and_as_json(tmp_path, cli):
    z = np.random.default_rng(3).normal(size=(300, 12)).astype(np.float32)
    make_dump(tmp_path / "a", z)
    make_dump(tmp_path / "b", np.where(np.arange(12) == 3, z + 0.5, z).astype(np.float32))
    value = json.loads(cli("compare", "a", "b", "--T", "2", "--rows", "2", "--json").out)
    found = softlabels.compare(tmp_path / "a", tmp_path / "b", T=2, rows=2)
    for name in ("temperatures", "flips", "worst"):
        assert value[name] == json.loads(json.dumps(found.as_json[name]))
    assert value["summary"] == found.summary
    assert {pair["to"] for pair in value["flips"]["pairs"]} == {3}
    lines = str(found).splitlines()
    assert lines[0].startswith("A, the reference  ")
    assert lines[0].endswith("a (t, float32)")
    assert lines[2] == "measured on       300 rows of toy, split train"
    (head,) = [n for n, line in enumerate(lines) if line.startswith("KL(A‖B), nats")]
    assert lines[head + 1].startswith("T = 2 ")
    (worst,) = [n for n, line in enumerate(lines) if line.startswith("worst rows")]
    assert [line.split()[0] for line in lines[worst + 1 : worst + 3]] == ["id", "id"]
    assert any("of the top-1 predictions differ" in line for line in lines)


@pytest.mark.slow  # a store in memory takes seconds to start
def test_of_remote_dumps(tmp_path):
    z = np.random.default_rng(3).normal(size=(300, 12)).astype(np.float32)
    folders = make_dump(tmp_path / "a", z), make_dump(tmp_path / "b", z[:, ::-1].copy())
    found = softlabels.compare(*folders, T=2, rows=2)
    addresses = [copy_to_memory(folder, f"compared/{folder.name}") for folder in folders]
    remote = softlabels.compare(*addresses, T=2, rows=2)
    assert remote.temperatures == found.temperatures
    assert remote.worst == found.worst


def test_what_can_not_be_compared_is_refused(tmp_path):
    z = np.zeros((20, 4), np.float16)
    a, fewer = make_dump(tmp_path / "a", z), make_dump(tmp_path / "fewer", z[:15])
    for pair in ((a, fewer), (fewer, a)):
        with pytest.raises(AlignmentError, match=r"5 of 20 rows of .* not in .*from the same data"):
            softlabels.compare(*pair)
    wide = make_dump(tmp_path / "wide", np.zeros((20, 5), np.float16))
    with pytest.raises(LabelSpaceMismatch, match=r"not the same classes.*are compared over"):
        softlabels.compare(a, wide)
    empty = [make_dump(tmp_path / name, z[:0], shard_rows=1) for name in ("x", "y")]
    with pytest.raises(StoreError, match="has no rows"):
        softlabels.compare(*empty)
    with pytest.raises(UsageError, match="takes keywords alone after 'a' and 'b'; name what 4"):
        softlabels.compare(a, fewer, 4)
    with pytest.raises(UsageError, match="a is given twice"):
        softlabels.compare(a, a=fewer)
    with pytest.raises(UsageError, match="--T names no temperature"):
        softlabels.compare(a, fewer, T=())


def test_flips_that_rounding_may_have_made_are_counted_apart(tmp_path):
    """Logits closer than float16 tells apart are ties in one dump, and none in the other."""
    z = (20 + 1e-4 * np.random.default_rng(5).normal(size=(200, 6))).astype(np.float32)
    z[150:, 0] += np.float32(1)  # a clear winner
    half = z.astype(np.float16)
    half[190:, 1] += np.float16(2)  # what the model itself changed
    found = softlabels.compare(make_dump(tmp_path / "a", z), make_dump(tmp_path / "b", half))
    ties = int((z[:150].argmax(-1) != 0).sum())  # of equal logits the first class is the top one
    assert (found.flips.changed, found.flips.within_rounding) == (ties + 10, ties)
    assert f"rounding in storage alone may explain {ties} of these" in found.summary[1]
    same = softlabels.compare(tmp_path / "a", make_dump(tmp_path / "c", z.astype(np.float16)))
    assert same.flips.within_rounding == same.flips.changed > 0
    assert "may explain all of these" in same.summary[1]
    eye = np.eye(6, dtype=np.float32)
    clear = softlabels.compare(
        make_dump(tmp_path / "d", eye), make_dump(tmp_path / "e", eye[::-1].copy())
    )
    assert (clear.flips.changed, clear.flips.within_rounding) == (6, 0)


def test_what_storing_made_is_not_estimated_where_logits_are_coarse_for_the_temperature(tmp_path):
    """There the sum to the second order says 10 nats where 0.005 are true, or 8e-244."""
    z = np.random.default_rng(6).normal(size=(100, 9)).astype(np.float32) * 8
    a, b = make_dump(tmp_path / "a", z), make_dump(tmp_path / "b", z.astype(np.float16))
    found = softlabels.compare(a, b, T=(0.001, 0.5))
    assert [at.is_coarse for at in found.temperatures] == [True, False]
    assert found.temperatures[0].storage is None
    assert found.temperatures[1].storage > 0
    assert "–" in str(found)
    assert "rounded too coarsely for T = 0.001" in found.summary[-1]
    assert "dump both with --dtype float32" in found.summary[-1]


def test_whether_flips_are_significant_by_the_exact_test():
    for lost, won, p in ((0, 0, 1), (3, 3, 1), (12, 0, 2 / 2**12), (1, 8, 20 / 2**9)):
        assert sign_test(lost, won) == pytest.approx(p)
    assert sign_test(500_000, 503_000) == pytest.approx(0.00275, rel=0.01)  # as the normal


@pytest.mark.slow  # onnxruntime's quantiser alone takes seconds to import
def test_a_network_and_its_int8_self(tmp_path, vectors):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exact = save_net(tmp_path / "exact.onnx")
    quantize_dynamic(exact, tmp_path / "int8.onnx", weight_type=QuantType.QInt8)
    for name in ("exact", "int8"):
        softlabels.dump(teacher=str(tmp_path / f"{name}.onnx"), data=vectors, dtype="float32",
                        allow_batch_dependence=True, out=str(tmp_path / name))  # fmt: skip
    found = softlabels.compare(str(tmp_path / "exact"), str(tmp_path / "int8"))
    first = found.temperatures[0]
    assert 1e-7 < first.kl["mean"] < 1e-2
    assert found.agreement > 0.95
    assert not first.is_of_storage
