"""What a sweep tries: settings, each with every seed."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any


@dataclass(frozen=True)
class Setting:
    """What the students of all seeds have alike. T: None where hard labels alone count."""

    student: str
    lr: float
    weight_decay: float
    T: float | None
    alpha: float

    @property
    def is_hard(self) -> bool:
        return self.T is None

    @property
    def hard(self) -> "Setting":
        """The baseline: trained the same way, from hard labels alone."""
        return Setting(self.student, self.lr, self.weight_decay, None, 0.0)

    @property
    def targets(self) -> str:
        """What it learns from, in words."""
        return "hard labels" if self.T is None else f"T={plain(self.T)}, alpha={plain(self.alpha)}"

    @property
    def training(self) -> dict[str, Any]:
        """The options of `train` that say it. With alpha 0 every T is the same."""
        return {
            "student": self.student,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "T": 1.0 if self.T is None else self.T,
            "alpha": self.alpha,
        }


@dataclass(frozen=True)
class Trial:
    """One student."""

    setting: Setting
    seed: int

    @property
    def name(self) -> str:
        """Of its files; another trial has another."""
        one = self.setting
        soft = "hard" if one.T is None else f"T{plain(one.T)}-a{plain(one.alpha)}"
        rates = f"lr{plain(one.lr)}-wd{plain(one.weight_decay)}"
        return f"{slug(one.student)}-{soft}-{rates}-s{self.seed}"


def settings_of(
    students: Sequence[str],
    rates: Sequence[float],
    decays: Sequence[float],
    temperatures: Sequence[float],
    alphas: Sequence[float],
    with_hard: bool,
) -> list[Setting]:
    """Every combination once. with_hard: with hard labels alone, for each way of training."""
    found: dict[Setting, None] = {}
    for student, lr, decay in product(students, rates, decays):
        if with_hard:
            found[Setting(student, lr, decay, None, 0.0)] = None
        for alpha, T in product(alphas, temperatures):
            if alpha:
                found[Setting(student, lr, decay, T, alpha)] = None
    return list(found)


def plain(value: float) -> str:
    """All digits of a number, without those that say nothing: `4`, `0.001`."""
    text = repr(float(value))
    return text.removesuffix(".0")


def slug(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text)
