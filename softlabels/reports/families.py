"""Classes whose soft targets are similar, side by side: a tree of them, and its branches that fit
a page. C classes."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from softlabels.reports.confusions import SOFT, Confusions
from softlabels.system.extras import need

ORDERED = 256  # classes whose order within the tree is the best one: for 1,000 that takes seconds
LARGEST = 10  # classes of a family
JOINED = 0.2  # the least share between two halves of one; below, they are two families


@dataclass(frozen=True)
class Families:
    """A tree over the classes that have rows, by average linkage (UPGMA).

    The distance of two classes is Hellinger's, √(1 − Σ √(p q)), of their mean soft targets at
    T = 4: from 0, the same, to 1, nothing in common.

    classes: their numbers, int64 [K].
    tree: as scipy's `linkage` gives it, float64 [K − 1, 4]; empty for fewer than two classes.
    between: of all C classes, how probable one is for rows of the other at T = 4, float64 [C, C].
    """

    classes: np.ndarray
    tree: np.ndarray
    between: np.ndarray

    @classmethod
    def of(cls, confusions: Confusions) -> "Families":
        """Raises MissingExtra without scipy."""
        hierarchy: Any = need("scipy.cluster.hierarchy", "plot", "the order of classes")
        distance: Any = need("scipy.spatial.distance", "plot", "the order of classes")
        classes = np.flatnonzero(confusions.rows.numpy())
        between = confusions.between(SOFT)
        if len(classes) < 2:
            return cls(classes, np.empty((0, 4)), between)
        mean = confusions.mean(SOFT)[classes]
        # of several labels a row sums to more than 1: what counts is how it is spread
        roots = np.sqrt(mean / np.maximum(mean.sum(-1, keepdims=True), 1e-300))
        apart = np.sqrt(np.clip(1 - roots @ roots.T, 0, 1))
        np.fill_diagonal(apart, 0)
        pairs = distance.squareform(apart, checks=False)
        tree = hierarchy.linkage(pairs, "average")
        if len(classes) <= ORDERED:
            tree = hierarchy.optimal_leaf_ordering(tree, pairs)
        return cls(classes, tree, between)

    @cached_property
    def order(self) -> list[int]:
        """All classes with rows, similar ones side by side."""
        return self._leaves(len(self.tree) + len(self.classes) - 1) if len(self.tree) else list(
            map(int, self.classes)
        )  # fmt: skip

    def branches(self, largest: int = LARGEST) -> list[list[int]]:
        """The largest branches of the tree with 2 to `largest` classes whose two halves are
        confused with each other too; first the one within which classes are confused the most."""
        if not len(self.tree):
            return []
        found, waiting = [], [len(self.tree) + len(self.classes) - 1]
        while waiting:
            node = waiting.pop()
            if node < len(self.classes):
                continue
            halves = [int(half) for half in self.tree[node - len(self.classes)][:2]]
            family = self._leaves(node)
            if len(family) <= largest and self._across(*map(self._leaves, halves)) >= JOINED:
                found.append(family)
            else:
                waiting += halves
        return sorted(found, key=lambda family: -self.within(family))

    def within(self, family: list[int]) -> float:
        """How probable the other classes of the family are for rows of one, T = 4, a mean."""
        return float(self.between[np.ix_(family, family)].sum() / len(family))

    def _across(self, one: list[int], other: list[int]) -> float:
        """The share of what is confused among these classes that is between the two groups."""
        both = [*one, *other]
        whole = self.between[np.ix_(both, both)].sum()
        return float(2 * self.between[np.ix_(one, other)].sum() / whole) if whole else 1.0

    def _leaves(self, node: int) -> list[int]:
        """The classes below a node, in the tree's order; without recursion: a tree may be a chain
        of a thousand."""
        leaves, waiting = [], [node]
        while waiting:
            node = waiting.pop()
            if node < len(self.classes):
                leaves.append(int(self.classes[node]))
            else:
                left, right = self.tree[node - len(self.classes)][:2]
                waiting += [int(right), int(left)]
        return leaves
