"""Stage three: losses, one training loop, and the measures of what came out."""

from softlabels.students.evaluation import evaluate
from softlabels.students.exporting import export
from softlabels.students.fitting import fit
from softlabels.students.losses import (
    dist_loss,
    dkd_loss,
    find_loss,
    js_loss,
    kd_loss,
    linear_kd_loss,
    mse_loss,
    reverse_kl_loss,
    standardised_kd_loss,
)
from softlabels.students.sweeping import sweep
from softlabels.students.training import train

__all__ = [
    "dist_loss",
    "dkd_loss",
    "evaluate",
    "export",
    "find_loss",
    "fit",
    "js_loss",
    "kd_loss",
    "linear_kd_loss",
    "mse_loss",
    "reverse_kl_loss",
    "standardised_kd_loss",
    "sweep",
    "train",
]
