"""Stage two: a stored dump as a torch dataset, at any temperature."""

from softlabels.targets.describing import info, newest_dump
from softlabels.targets.loading import load
from softlabels.targets.soft_dataset import SoftDataset

__all__ = ["SoftDataset", "info", "load", "newest_dump"]
