"""Offline soft-target datasets for knowledge distillation.

    softlabels.dump(teacher="t.pt", data="digits", out="data/d")   the teacher runs once
    dataset = softlabels.load("data/d", T=8)                       any temperature, later
    softlabels.train(dump="data/d", T=8, out="s.pt")               no teacher in memory

Names are loaded when they are first used, so that importing this package is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softlabels.capture import dump, plan
    from softlabels.errors import SoftlabelsError
    from softlabels.exchange import import_logits
    from softlabels.features import FeatureLogits, LinearHead
    from softlabels.hub import pull, push
    from softlabels.logits import DenseLogits
    from softlabels.pages import compare, report
    from softlabels.reports import list_dumps, show
    from softlabels.schedules import temperature_schedule
    from softlabels.soft_targets import SoftTargets
    from softlabels.students import (
        dist_loss,
        dkd_loss,
        evaluate,
        export,
        find_loss,
        fit,
        js_loss,
        kd_loss,
        linear_kd_loss,
        mse_loss,
        reverse_kl_loss,
        standardised_kd_loss,
        sweep,
        train,
    )
    from softlabels.targets import (
        SoftDataset,
        TimmLoader,
        examples,
        info,
        load,
        with_soft_targets,
    )
    from softlabels.teachers import Teacher
    from softlabels.verification import verify

__version__ = "0.1.0"

__all__ = [
    "DenseLogits",
    "FeatureLogits",
    "LinearHead",
    "SoftDataset",
    "SoftTargets",
    "SoftlabelsError",
    "Teacher",
    "TimmLoader",
    "__version__",
    "compare",
    "dist_loss",
    "dkd_loss",
    "dump",
    "evaluate",
    "examples",
    "export",
    "find_loss",
    "fit",
    "import_logits",
    "info",
    "js_loss",
    "kd_loss",
    "linear_kd_loss",
    "list_dumps",
    "load",
    "mse_loss",
    "plan",
    "pull",
    "push",
    "report",
    "reverse_kl_loss",
    "show",
    "standardised_kd_loss",
    "sweep",
    "temperature_schedule",
    "train",
    "verify",
    "with_soft_targets",
]

_HOMES = {
    "capture": ["dump", "plan"],
    "errors": ["SoftlabelsError"],
    "exchange": ["import_logits"],
    "features": ["FeatureLogits", "LinearHead"],
    "hub": ["pull", "push"],
    "logits": ["DenseLogits"],
    "pages": ["compare", "report"],
    "reports": ["list_dumps", "show"],
    "schedules": ["temperature_schedule"],
    "soft_targets": ["SoftTargets"],
    "students": [
        "dist_loss", "dkd_loss", "evaluate", "export", "find_loss", "fit", "js_loss", "kd_loss",
        "linear_kd_loss", "mse_loss", "reverse_kl_loss", "standardised_kd_loss", "sweep", "train",
    ],
    "targets": [
        "SoftDataset", "TimmLoader", "examples", "info", "load", "with_soft_targets",
    ],
    "teachers": ["Teacher"],
    "verification": ["verify"],
}  # fmt: skip


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"softlabels.{home}"), name)
    raise AttributeError(f"module 'softlabels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
