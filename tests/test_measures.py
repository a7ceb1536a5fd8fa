"""Every measure, by hand and in blocks."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import softlabels
from softlabels.errors import SourceError
from softlabels.logits import DenseLogits
from softlabels.measures import (
    BINS,
    PARTS,
    Calibration,
    Diversity,
    LabelScore,
    Softness,
    TeacherScore,
    in_bins,
    is_like_guessing,
)
from softlabels.multilabel import AveragePrecision, MultiLabelScore, average_precision, mean_of


def of_confidence(*confidences: float) -> DenseLogits:
    """Logits of two classes, the first of which has so much probability, more than a half."""
    p = torch.tensor(confidences, dtype=torch.float64)
    return DenseLogits(torch.stack([p.log(), (1 - p).log()], -1))


def test_measures_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.0]])
    found = LabelScore.of(DenseLogits(logits), torch.tensor([0, 0, 0, -1])).measures
    assert (found["rows"], found["errors"], found["accuracy"]) == (3, 1, 2 / 3)
    log = torch.log_softmax(logits[:3], -1)[:, 0]
    assert found["nll"] == pytest.approx(float(-log.mean()), rel=1e-6)
    same = TeacherScore.of(logits, DenseLogits(logits)).measures
    assert same["agreement"] == 1
    assert same["kl"] == pytest.approx(0, abs=1e-7)
    other = TeacherScore.of(logits.flip(-1), DenseLogits(logits)).measures
    assert other["agreement"] == 0.25, "of equal logits the first class is the top one"
    q = torch.softmax(logits, -1)
    assert other["kl"] == pytest.approx(float((q * (q / q.flip(-1)).log()).sum(-1).mean()))


def test_the_calibration_error_by_hand():
    """0.95 and 0.94 are in bin 15, 0.55 in bin 9; of the last, the label is the other class."""
    labels = torch.tensor([0, 1, 0, 1])
    expected = (abs(1 - 1.89) + abs(1 - 0.55) + abs(0 - 0.6001)) / 4
    calibration = Calibration.of(of_confidence(0.95, 0.94, 0.55, 0.6001), labels)
    assert calibration.error == pytest.approx(expected, abs=1e-9)
    assert calibration.counts.nonzero()[:, 0].tolist() == [8, 9, 14]
    assert calibration.hits.tolist()[8:10] == [1, 0]


def test_a_confidence_on_an_edge_is_in_the_bin_below():
    on_edges = torch.tensor([0, 1 / 15, 1 / 3, 0.6, 14 / 15, 1], dtype=torch.float64)
    above = torch.nextafter(on_edges, torch.tensor(2.0, dtype=torch.float64))
    for dtype in (torch.float32, torch.float64):
        assert in_bins(on_edges.to(dtype), BINS).tolist() == [0, 0, 4, 8, 13, 14]
    assert in_bins(above, BINS).tolist() == [0, 1, 5, 9, 14, 14]
    sure = Calibration.of(DenseLogits(torch.tensor([[200.0, 0.0]])), torch.tensor([0]))
    assert (sure.counts[-1], sure.error) == (1, 0), "a confidence of exactly 1"


@given(st.data())
def test_blocks_in_any_split_measure_as_all_at_once(data):
    rows, classes = data.draw(st.integers(1, 40)), data.draw(st.integers(2, 5))
    seed = data.draw(st.integers(0, 2**32 - 1))
    draw = np.random.default_rng(seed)
    student, teacher = torch.from_numpy(draw.normal(0, 3, (2, rows, classes)).astype("f4"))
    labels = torch.from_numpy(draw.integers(-1, classes, rows))
    order = torch.from_numpy(draw.permutation(rows))
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=5)))
    blocks = [order[a:b] for a, b in zip([0, *cuts], [*cuts, rows], strict=True)]
    label, close, soft = LabelScore(), TeacherScore(), Softness()
    for block in blocks:
        label += LabelScore.of(DenseLogits(student[block]), labels[block])
        close += TeacherScore.of(student[block], DenseLogits(teacher[block]))
        soft += Softness.of(DenseLogits(teacher[block]).temper(4), classes)
    whole = LabelScore.of(DenseLogits(student), labels)
    assert label.calibration.counts.equal(whole.calibration.counts)
    assert label.calibration.hits.equal(whole.calibration.hits)
    assert label.measures == pytest.approx(whole.measures, rel=1e-12, abs=1e-12)
    together = TeacherScore.of(student, DenseLogits(teacher))
    assert (close.positions, close.same) == (rows, together.same)
    assert close.measures == pytest.approx(together.measures, rel=1e-12, abs=1e-12)
    assert soft.counts.equal(Softness.of(DenseLogits(teacher).temper(4), classes).counts)
    differ = Diversity.none(2)
    for block in blocks:
        differ += Diversity.of([DenseLogits(teacher[block]), DenseLogits(student[block])])
    (pair,) = differ.pairs
    back = TeacherScore.of(teacher, DenseLogits(student)).measures
    assert pair["agreement"] == back["agreement"] == together.measures["agreement"]
    expected = [together.measures["kl"], back["kl"]]
    assert [pair["kl"], pair["kl_back"]] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert differ.measures["kl"] == pytest.approx(sum(expected) / 2, rel=1e-4, abs=1e-5)


def test_diversity_by_hand():
    """The second says what the first one says, but for the second row; of equal classes the first
    is the top one."""
    one = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    other = torch.tensor([[0.0, 0.0], [0.0, math.log(3)]])
    found = Diversity.of([DenseLogits(one), DenseLogits(other), DenseLogits(one)])
    there, back = (0.5 * math.log(4 / 3), 0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert [pair["agreement"] for pair in found.pairs] == [0.5, 1, 0.5]
    assert found.pairs[0]["kl"] == pytest.approx(there / 2, rel=1e-6)
    assert found.pairs[0]["kl_back"] == pytest.approx(back / 2, rel=1e-6)
    assert found.measures["agreement"] == pytest.approx(2 / 3)
    assert Diversity.none(2).measures == Diversity.of([DenseLogits(one)]).measures == {}


def test_classes_without_probability_make_an_infinite_kl_in_one_direction_alone():
    some = DenseLogits(torch.tensor([[0.0, -math.inf, 0.0]]))
    every = DenseLogits(torch.zeros(1, 3))
    (pair,) = Diversity.of([some, every]).pairs
    assert pair["kl"] == pytest.approx(math.log(3 / 2), rel=1e-6)
    assert pair["kl_back"] == math.inf


def test_softness_counts_the_ends_of_the_range():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [900.0, 0.0, 0.0, 0.0]])
    counts = Softness.of(DenseLogits(logits).temper(1), 4).counts
    assert counts.nonzero()[:, 0].tolist() == [0, PARTS - 1]
    assert Softness.of(DenseLogits(torch.zeros(3, 1)).temper(1), 1).counts[0] == 3


def test_no_labels_give_no_measures(made, tmp_path):
    assert LabelScore.of(DenseLogits(torch.zeros(3, 2)), torch.full((3,), -1)).measures == {}
    assert TeacherScore().measures == {}
    assert Calibration().error is None
    lines = [",".join(f"{i % 7}" for i in range(64))] * 3
    names = ",".join(f"x{i}" for i in range(64))
    (tmp_path / "d.csv").write_text("\n".join([names, *lines]))
    with pytest.raises(SourceError, match="has no labels to measure against"):
        softlabels.evaluate(checkpoint=str(made / "t.pt"), data=str(tmp_path / "d.csv"),
                            split="train")  # fmt: skip


@pytest.mark.parametrize(
    ("correct", "labelled", "classes", "each", "guessed"),
    [
        (19, 19, 2, 1, False),  # too few
        (20, 20, 2, 1, False),
        (500, 1000, 2, 1, True),
        (547, 1000, 2, 1, True),  # 0.5 + 3 · 0.5 / √1000 = 0.5474
        (548, 1000, 2, 1, False),
        (548, 1000, 2, 10, True),  # of 100 rows: 0.65
        (650, 1000, 2, 10, True),
        (651, 1000, 2, 10, False),
        (100, 190, 2, 10, False),  # of 19 rows
        (50, 50, 1, 1, False),
    ],
)
def test_guessing_is_judged_by_rows(correct, labelled, classes, each, guessed):
    assert is_like_guessing(correct, labelled, classes, each) is guessed
    assert math.sqrt(0.25 / 100) * 3 + 0.5 == 0.65


def test_average_precision_by_hand():
    """Rows in the order of the first label's logits: it is there, not, there, not. Of the second,
    two rows are equal, and count together; no row has the third."""
    logits = torch.tensor([[4.0, 1.0, 0], [3.0, 0.0, 0], [2.0, 0.0, 0], [-0.0, -1.0, 0]])
    labels = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]])
    found = average_precision(logits, labels)
    assert found[:2].tolist() == [(1 / 1 + 2 / 3) / 2, 1 / 3]
    assert found[2].isnan()
    assert mean_of(found) == pytest.approx((5 / 6 + 1 / 3) / 2)
    assert mean_of(average_precision(logits, torch.zeros(4, 3))) is None


def slow_average_precision(z: list[float], there: list[bool]) -> float:
    """Σ over thresholds, from the highest on, of (recall − the one before) · precision."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(z), reverse=True):
        chosen = [one for value, one in zip(z, there, strict=True) if value >= threshold]
        recall = sum(chosen) / sum(there)
        total += (recall - before) * sum(chosen) / len(chosen)
        before = recall
    return total


@given(st.data())
def test_average_precision_is_the_area_under_its_steps(data):
    rows, classes = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 4))
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    digits = data.draw(st.sampled_from([0, 1, 9]))  # with few, many logits are equal
    z = draw.normal(0, 3, (rows, classes)).round(digits).astype("f4")
    there = draw.random((rows, classes)) < data.draw(st.sampled_from([0.1, 0.5, 0.9]))
    ranked, cut = AveragePrecision(classes), data.draw(st.integers(0, rows))
    blocks = [(torch.from_numpy(z[part]), torch.from_numpy(there[part]))
              for part in (slice(0, cut), slice(cut, rows))]  # fmt: skip
    for block in blocks:
        ranked.collect(*block)
    for logits, _ in blocks:
        ranked.count(logits)
    each = [AveragePrecision(classes), AveragePrecision(classes)]  # of two processes
    for one, block in zip(each, blocks, strict=True):
        one.collect(*block)
    positives = [one.positives for one in each]
    for one, (logits, _) in zip(each, blocks, strict=True):
        one.begin_count(positives)
        one.count(logits)
    each[0].end_count([one.changes for one in each])
    assert torch.equal(each[0].of_each.nan_to_num(-1), ranked.of_each.nan_to_num(-1))
    for c, found in enumerate(ranked.of_each.tolist()):
        if there[:, c].any():
            slow = slow_average_precision(z[:, c].tolist(), there[:, c].tolist())
            assert found == pytest.approx(slow, abs=1e-12)
        else:
            assert math.isnan(found)


def test_several_labels_by_hand():
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0], [-2.0, 0.0]])
    labels = torch.tensor([[1, 0], [0, 1], [-1, -1]])
    score = MultiLabelScore.of(DenseLogits(logits, link="sigmoid"), labels)
    p = torch.sigmoid(logits[:2]).double()
    nll = -(p[0, 0].log() + (1 - p[0, 1]).log() + (1 - p[1, 0]).log() + p[1, 1].log())
    assert score.measures["rows"] == 2
    assert score.measures["nll"] == pytest.approx(float(nll) / 2, rel=1e-6)
    first, second = score.of_labels(torch.tensor([0.25, math.nan]))
    assert (first["positives"], first["precision"], first["recall"]) == (1, 0.5, 1)
    assert first["mean_probability"] == pytest.approx(float(p[:, 0].mean()), rel=1e-6)
    assert (first["ap"], second["ap"]) == (0.25, None)
    halves = [DenseLogits(part, link="sigmoid") for part in logits.split(1)]
    parts = [MultiLabelScore.of(h, lab) for h, lab in zip(halves, labels.split(1), strict=True)]
    assert (parts[0] + parts[1] + parts[2]).measures == pytest.approx(score.measures)
    assert MultiLabelScore.none(2).measures == {}
    pairs = Calibration.of_pairs(DenseLogits(logits, link="sigmoid"), labels)
    assert (pairs.labelled, pairs.correct) == (4, 2)
    hits = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    assert pairs.error == pytest.approx(float((hits - p).abs().sum() / 4), rel=1e-6)


def test_guessing_among_several_labels():
    """Rows have 3 of 4 labels each: a top label that is one of them in three of four is a guess."""
    assert is_like_guessing(75, 100, 4, positives=300)
    assert not is_like_guessing(75, 100, 4)
    assert not is_like_guessing(95, 100, 4, positives=300)
