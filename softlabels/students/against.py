"""A model beside the teacher of a dump, or the mixture of several. N rows, C classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from softlabels.errors import UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.text_inputs import numbers_alone
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.label_spaces import LabelSpace
from softlabels.logits import Logits
from softlabels.measures import TeacherScore
from softlabels.mixtures import mix
from softlabels.soft_targets import LINKS
from softlabels.students.label_maps import match_by_name
from softlabels.students.scoring import Running
from softlabels.students.teaching import Opened, Teaching
from softlabels.targets.batch import for_each_position
from softlabels.targets.loading import load
from softlabels.targets.mixed import Mixed, Trainable
from softlabels.targets.soft_dataset import Dump, SoftDataset


def opening(data: Any, steps: Preprocess | None, title: str) -> Opened:
    """What opens dumps with their inputs as the model takes them.

    data: what is measured on. It stands for the source of a dump that was a data set in memory.
    steps: the model's; None for texts.

    It raises UsageError where a dump stores pictures that these steps are not for.
    """

    def opened(place: Any) -> SoftDataset:
        first = next(iter(place.values())) if isinstance(place, Mapping) else place
        alone = load(first, inputs=False)
        assert isinstance(alone, Dump), "one folder was named"
        plan = alone.reader.plan
        if plan.stored is not None and steps is not None:
            plan.stored.check_shows(steps, str(first), title)
        needed = plan.source.origin == "live" and not plan.with_inputs
        source = data if needed and not isinstance(data, str) else None
        return load(place, preprocess=steps, source=source)

    return opened


def against(
    taught: Teaching, rows: np.ndarray, running: Running, space: LabelSpace, task: str
) -> dict[str, Any]:
    """The model's agreement and KL with the teacher on these rows; its classes may be in another
    order. Of a mixture also with each member."""
    dataset, name = taught.dataset, taught.title
    examples: Any = dataset.base.examples
    if not isinstance(examples, TokenInputs):
        examples = numbers_alone(examples, "eval --against")
    plan = dataset.base.reader.plan
    if plan.link != LINKS[task]:
        raise UsageError(
            f"--against {name}: its task is {plan.task}, and {running.checkpoint} is of the task "
            f"{task}; name a dump of the same task"
        )
    theirs = LabelSpace(name, plan.classes, dataset.class_names)
    order = match_by_name(space, theirs, running.progress)
    score = TeacherScore()
    of_members: dict[str, TeacherScore] = {}
    for part, student_NC in running.predict(examples, "against", rows):
        if order is not None:  # the student's classes in the teacher's order
            student_NC = student_NC[:, order]
        columns = (taught.teachers or dataset).columns(part, inputs=False)
        student_MC = for_each_position(student_NC, columns)
        targets = columns["targets"]
        score += TeacherScore.of(student_MC, _as_one(dataset, targets))
        for member, logits in targets.items() if isinstance(dataset, Mixed) else ():
            found = TeacherScore.of(student_MC, logits)
            of_members[member] = of_members.get(member, TeacherScore()) + found
    (taught.teachers or dataset).settle()
    measures = {"dump": name, "rows": len(rows)} | score.measures
    if not isinstance(dataset, Mixed):
        return measures
    members = {
        member: facts | of_members.get(member, TeacherScore()).measures
        for member, facts in taught.remembered["teachers"].items()
    }
    return measures | {"mix": dataset.space, "teachers": members}


def _as_one(dataset: Trainable, targets: Any) -> Logits:
    """The teacher's logits; of a mixture those of its members as one's."""
    if not isinstance(dataset, Mixed):
        return targets
    used = [targets[name] for name in dataset.weights]
    return mix(used, list(dataset.weights.values()), dataset.space)
