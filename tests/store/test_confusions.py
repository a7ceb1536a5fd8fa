"""Which classes a teacher confuses: sums beside numpy's, and the order of the classes."""

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from softlabels.logits import DenseLogits
from softlabels.reports.confusions import Confusions
from softlabels.reports.families import Families


def confusions(logits: np.ndarray, labels: np.ndarray | None, several: bool = False) -> Confusions:
    """Counted in three blocks of other sizes."""
    made = Confusions(logits.shape[1], labels is not None, several)
    link = "sigmoid" if several else "softmax"
    values = torch.from_numpy(logits)
    given = torch.full((len(values),), -1) if labels is None else torch.from_numpy(labels)
    for part in (slice(0, 1), slice(1, 20), slice(20, None)):
        made.count(DenseLogits(values[part], link=link), given[part])
    return made


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    return np.random.default_rng(3).normal(size=(70, 5)).astype(np.float32) * 3


def test_means_pairs_and_errors_of_labelled_rows(logits):
    labels = np.random.default_rng(4).integers(-1, 4, 70)  # none has the class 4
    found = confusions(logits, labels)
    top = logits.argmax(-1)
    for T in (1, 4):
        q = softmax(logits.astype(np.float64) / T, -1)
        expected = np.stack([q[labels == c].mean(0) if c < 4 else np.zeros(5) for c in range(5)])
        np.testing.assert_allclose(found.mean(T), expected, atol=1e-6)
    q = softmax(logits.astype(np.float64), -1)
    for pair in found.pairs(100):
        i, j = pair.first, pair.second
        there = [q[labels == a][:, b].mean() for a, b in ((i, j), (j, i)) if (labels == a).any()]
        assert pair.probability == pytest.approx(np.mean(there), abs=1e-6)
        both = ((labels == i) & (top == j)) | ((labels == j) & (top == i))
        assert pair.errors == both.sum()
        assert pair.rows == ((labels == i).sum(), (labels == j).sum())
    assert len(found.pairs(100)) == 10
    assert found.pairs(3) == found.pairs(100)[:3]


def test_rows_without_labels_count_for_their_top_class(logits):
    found, top = confusions(logits, None), logits.argmax(-1)
    q = softmax(logits.astype(np.float64), -1)
    assert found.by == "top class"
    assert found.rows.tolist() == np.bincount(top, minlength=5).tolist()
    np.testing.assert_allclose(found.mean(1)[2], q[top == 2].mean(0), atol=1e-6)
    assert {pair.errors for pair in found.pairs(9)} == {None}


def test_a_row_with_several_labels_counts_for_each(logits):
    hot = np.random.default_rng(5).integers(0, 2, logits.shape).astype(np.int8)
    hot[7] = -1  # unknown
    found, there = confusions(logits, hot, several=True), hot[:, 1] == 1
    q = expit(logits[there] / 4)
    expected = [q[hot[there][:, c] == 0, c].mean() if c != 1 else q[:, 1].mean() for c in range(5)]
    np.testing.assert_allclose(found.mean(4)[1], expected, atol=1e-6)
    assert found.rows.tolist() == (hot == 1).sum(0).tolist()


def test_what_two_labels_of_a_row_have_is_not_confused():
    """Both labels of half of the rows are certain, and right; each alone is told from the other."""
    hot = np.array([[1, 1], [1, 0], [0, 1]] * 20, np.int8)
    found = confusions(np.where(hot == 1, 9, -9).astype(np.float32), hot, several=True)
    (pair,) = found.pairs(9)
    assert pair.probability == pytest.approx(expit(-9.0), rel=1e-3)
    assert pair.rows == (20, 20)


def test_pairs_of_one_row_do_not_come_before_pairs_of_many():
    """Classes 0 and 1 are confused in a hundred rows; 2 and 3 in the only row of each."""
    labels = np.array([0, 1] * 50 + [2, 3])
    values = np.full((102, 4), -9, np.float32)
    values[:100, :2] = 1, 0.5
    values[100, [2, 3]] = values[101, [2, 3]] = 0
    found = confusions(values, labels)
    pairs = [(pair.first, pair.second, pair.rows) for pair in found.pairs(2)]
    assert pairs == [(0, 1, (50, 50)), (2, 3, (1, 1))]
    assert found.pairs(2)[1].probability == pytest.approx(0.5, abs=1e-3)


def test_classes_that_are_held_for_alike_are_a_family():
    """Four groups of three classes, dealt out at random, that share a bump of logits."""
    random = np.random.default_rng(6)
    groups = random.permutation(12).reshape(4, 3)
    labels = random.integers(0, 12, 600)
    values = random.normal(size=(600, 12))
    for row, label in enumerate(labels):
        values[row, groups[(groups == label).any(1)][0]] += 4
        values[row, label] += 2
    families = Families.of(confusions(values.astype(np.float32), labels))
    assert sorted(map(sorted, families.branches(largest=5))) == sorted(map(sorted, groups.tolist()))
    order = families.order
    assert sorted(order) == list(range(12))
    for group in groups:
        places = sorted(order.index(c) for c in group)
        assert places[2] - places[0] == 2
    within = [families.within(family) for family in families.branches(largest=5)]
    assert within == sorted(within, reverse=True)


@pytest.mark.parametrize("labels", [[1], [0, 1], [-1]])
def test_few_rows_have_families_too(labels):
    values = np.eye(2, dtype=np.float32)[: len(labels)]
    families = Families.of(confusions(values, np.array(labels)))
    assert sorted(families.order) == sorted({c for c in labels if c >= 0})
    assert families.branches() == ([families.order] if len(families.order) == 2 else [])
