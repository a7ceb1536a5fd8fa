"""Stage one: a plan, a pipeline that dumps a shard, and engines that decide who runs which."""

from softlabels.capture.dumping import DumpResult, dump
from softlabels.capture.estimating import Estimate, plan

__all__ = ["DumpResult", "Estimate", "dump", "plan"]
