"""Each command's options: the only place where a name, a default and its help are written.

The command line and the Python verbs are both made from these frozen dataclasses. They are read
at the front door and turned into objects there; nothing below sees them.
"""

from softlabels.options.capture import DumpOptions, PlanOptions
from softlabels.options.dumps import (
    CacheOptions,
    CompareOptions,
    DemoOptions,
    InfoOptions,
    LsOptions,
    ReportOptions,
    ShowOptions,
)
from softlabels.options.exchange import ImportOptions
from softlabels.options.exporting import ExportOptions
from softlabels.options.option import Options, flag_of, make_options
from softlabels.options.publishing import PullOptions, PushOptions
from softlabels.options.source import SourceOptions
from softlabels.options.students import EvalOptions, FitOptions, TrainingOptions, TrainOptions
from softlabels.options.sweep import SweepOptions
from softlabels.options.verb import verb
from softlabels.options.verification import VerifyOptions

__all__ = [
    "CacheOptions",
    "CompareOptions",
    "DemoOptions",
    "DumpOptions",
    "EvalOptions",
    "ExportOptions",
    "FitOptions",
    "ImportOptions",
    "InfoOptions",
    "LsOptions",
    "Options",
    "PlanOptions",
    "PullOptions",
    "PushOptions",
    "ReportOptions",
    "ShowOptions",
    "SourceOptions",
    "SweepOptions",
    "TrainOptions",
    "TrainingOptions",
    "VerifyOptions",
    "flag_of",
    "make_options",
    "verb",
]
