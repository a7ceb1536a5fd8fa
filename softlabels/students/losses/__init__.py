"""Losses of distillation: means over scored positions, in nats. `registry` has their words."""

from softlabels.students.losses.blending import Loss, find_loss
from softlabels.students.losses.functions import (
    dist_loss,
    dkd_loss,
    js_loss,
    kd_loss,
    mse_loss,
    reverse_kl_loss,
    standardised_kd_loss,
)
from softlabels.students.losses.hard import hard_label_loss, hard_loss, mixed_loss
from softlabels.students.losses.linear import linear_kd_loss

__all__ = [
    "Loss",
    "dist_loss",
    "dkd_loss",
    "find_loss",
    "hard_label_loss",
    "hard_loss",
    "js_loss",
    "kd_loss",
    "linear_kd_loss",
    "mixed_loss",
    "mse_loss",
    "reverse_kl_loss",
    "standardised_kd_loss",
]
