"""A dump's inputs, changed at random for a student, beside soft targets that stay as they are."""

import numpy as np

from softlabels.errors import UsageError
from softlabels.inputs.augmented import Augmented
from softlabels.inputs.text_inputs import numbers_alone
from softlabels.inputs.views.augment import Augment
from softlabels.system.humanize import counted
from softlabels.system.progress import Progress
from softlabels.targets.batch import Batch
from softlabels.targets.mixed import Trainable


def augmented_dump(
    dataset: Trainable, augment: Augment, seed: int, progress: Progress
) -> Augmented:
    """The inputs of a dump, augmented. Raises UsageError where they can't be."""
    plan, examples = dataset.base.reader.plan, numbers_alone(dataset.base.examples, "--augment")
    if plan.has_views:
        raise UsageError(
            f"--augment is {str(augment)!r}, and {dataset.base.reader.folder} has "
            f"{counted(len(plan.views), 'view')} of each input, drawn by {plan.augment}: the "
            f"student sees what the teacher saw, and not something else. Leave out --augment"
        )
    if augment.mixing is not None:
        raise UsageError(
            f"--augment: {augment.mixing} mixes inputs, and the stored soft targets answer none "
            f"that are mixed, nor would a mean of two of them be the teacher's answer. Let the "
            f"teacher answer them: softlabels dump --views 4 --augment '{augment}'"
        )
    shown = Augmented(examples, augment, seed, dataset.ids)
    for remark in shown.remarks:
        progress.say(remark)
    progress.say(
        "warning: the stored soft targets answer clean inputs, and the student is shown augmented "
        "ones, to which the teacher might answer otherwise. Students learn best from targets of "
        "the very views that they see (Beyer et al. 2022, arXiv:2106.05237): softlabels dump "
        f"--views 4 --augment '{augment}' stores them"
    )
    return shown


def take_augmented(dataset: Trainable, shown: Augmented, rows: np.ndarray, epoch: int) -> Batch:
    """A batch of these rows, with inputs as this epoch shows them."""
    columns = dataset.columns(rows, inputs=False)
    columns["input"] = shown.gather(rows, epoch)
    return Batch(columns, dataset.T, dataset.preprocess)
