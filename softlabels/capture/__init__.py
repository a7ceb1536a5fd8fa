"""Stage one: a plan, a pipeline that dumps a shard, and engines that decide who runs which.
What was dumped is verified here too."""

from softlabels.capture.dumping import DumpResult, dump
from softlabels.capture.estimating import Estimate, plan
from softlabels.capture.verifying import Verdict, verify

__all__ = ["DumpResult", "Estimate", "Verdict", "dump", "plan", "verify"]
