"""Stage three: losses, one training loop, and the measures of what came out."""

from softlabels.students.evaluation import evaluate
from softlabels.students.exporting import export
from softlabels.students.fitting import fit
from softlabels.students.losses import kd_loss
from softlabels.students.training import train

__all__ = ["evaluate", "export", "fit", "kd_loss", "train"]
