"""By which measure of held-out rows the students of a job are compared."""

from typing import Any

from softlabels.inputs.label_lists import LabelLists
from softlabels.students.job import Job
from softlabels.students.sweeps.results import Measure


def measure_of(job: Job, held_out: dict[str, Any]) -> Measure:
    """That by which the best epoch is chosen. held_out: the measures of one of its students."""
    name = "kl"
    if job.judge.by_labels(job.inputs[job.chosen[1]]):
        name = "map" if isinstance(job.labels, LabelLists) else "errors"
    return Measure(name, held_out.get("labelled", held_out["rows"]))
