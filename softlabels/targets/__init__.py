"""Stage two: a stored dump as a torch dataset, at any temperature."""

from softlabels.targets.batches import as_it_is
from softlabels.targets.describing import info
from softlabels.targets.labelled import examples
from softlabels.targets.loading import load
from softlabels.targets.soft_dataset import SoftDataset
from softlabels.targets.timm_loader import TimmLoader
from softlabels.targets.transform import with_soft_targets

__all__ = [
    "SoftDataset",
    "TimmLoader",
    "as_it_is",
    "examples",
    "info",
    "load",
    "with_soft_targets",
]
