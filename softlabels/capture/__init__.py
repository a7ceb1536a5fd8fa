"""Stage one: a plan, a pipeline that dumps a shard, and engines that decide who runs which."""

from softlabels.capture.dumping import DumpResult, dump

__all__ = ["DumpResult", "dump"]
