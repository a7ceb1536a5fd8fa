"""`train --T auto`: the temperature that is best on held-out rows after trainings to try it."""

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from softlabels.errors import TrainingError, UsageError
from softlabels.models.checkpoint import Checkpoint
from softlabels.students.building import built_by
from softlabels.students.comparing import measure_of
from softlabels.students.distilling import Distillation, distillation
from softlabels.students.job import Job
from softlabels.students.prepared import Prepared
from softlabels.students.recipe import Recipe
from softlabels.students.stack.running import Learner, can_stack, is_cheap, train_stack
from softlabels.system.humanize import counted, few
from softlabels.system.progress import SILENT, Progress

AUTO = "auto"
TRIED = (1.0, 2.0, 4.0, 8.0, 16.0)
# Trainings that are too short lean to low T: of students 30-30 of MNIST T = 1 is best after 6 and
# 12 epochs and T = 3 after 25; of 300-300 T = 1 after 3 and T = 8 after 7 and 15. So a student is
# tried for all epochs, or a half of them where that is dear.
PART, LEAST = 2, 3  # of all epochs one in 2, and 3 at least
SMALL = 100_000  # weights: 15 such in a stack take some three times as long as one alone
SEEDS, FEWER = 3, 2  # of small students, and of others that are cheap together; of the rest one


def candidates(loss: str, alpha: float, holdout: float) -> list[Distillation]:
    """One for each temperature. Raises UsageError where a temperature can't be chosen."""
    learned = [distillation(loss, T, alpha) for T in TRIED]
    if not learned[0].loss.part.has_T:
        raise UsageError(f"--T is {AUTO}, and the loss {loss} has no temperature; leave out --T")
    if not alpha:
        raise UsageError(f"--T is {AUTO}, and with --alpha 0 every T is the same; leave out --T")
    if not holdout:
        raise UsageError(
            f"--T is {AUTO}, which chooses by held-out rows, and --holdout is 0; hold rows out, or "
            f"give a number"
        )
    return learned


def with_best(
    ready: Prepared, learned: Sequence[Distillation], progress: Progress
) -> tuple[Prepared, list[Distillation]]:
    """The training at the best of these temperatures, which is said. Raises UsageError for several
    processes, and for a student that can't be built again."""
    job = ready.job
    if job.ranks.world > 1:
        raise UsageError(
            f"--T is {AUTO}, which one process chooses, and here are {job.ranks.world}; choose it "
            f"without torchrun, or by softlabels sweep, and give the number"
        )
    if job.begun is not None or isinstance(job.model.model, nn.Module):
        raise UsageError(
            f"--T is {AUTO}, for which students are built anew, and {job.model.title} is one model "
            f"that is trained itself; give a number"
        )
    epochs, count = job.recipe.epochs, SEEDS
    if not (is_cheap(job) and _weights(job) <= SMALL):
        epochs = min(epochs, max(LEAST, epochs // PART))
        count = FEWER if is_cheap(job) else 1
    seeds = range(job.recipe.seed, job.recipe.seed + count)
    recipes = [replace(job.recipe, epochs=epochs, seed=seed) for seed in seeds]
    progress.say(
        f"tries T = {', '.join(f'{one.T:g}' for one in learned)} for {counted(epochs, 'epoch')} "
        f"each, with {counted(len(seeds), 'seed')}"
    )
    with tempfile.TemporaryDirectory() as folder:
        held = _tried(ready, learned, recipes, Path(folder))
    there = {one: found for one, found in zip(learned, held, strict=True) if found}
    if not there:
        raise TrainingError(f"no T could be tried; {job.recipe.remedy}")
    measure = measure_of(job, next(iter(there.values()))[0])
    keys = {
        one: tuple(map(statistics.fmean, zip(*map(measure.key, found), strict=True)))
        for one, found in there.items()
    }
    best = min(keys, key=lambda one: keys[one])
    shown = [
        f"{statistics.fmean(map(measure.of, there[one])):.{measure.digits}f} at T={one.T:g}"
        for one in sorted(keys, key=lambda one: keys[one])
    ]
    progress.say(f"T is {best.T:g}, the best of these: {measure.title}: {few(shown, most=9)}")
    options = job.options | {"T": best.T}
    return replace(ready, job=replace(job, options=options)), [best]


def _weights(job: Job) -> int:
    module = built_by(job.model, job.examples.input_shape, job.classes).module
    return sum(one.numel() for one in module.parameters())


def _tried(
    ready: Prepared, learned: Sequence[Distillation], recipes: Sequence[Recipe], folder: Path
) -> list[list[dict[str, Any]]]:
    """The held-out measures of each temperature's students; of those that came to an end."""
    job = ready.job
    learners = [
        Learner(one, recipe, job.options | {"resume": False}, str(folder / f"{place}-{number}.pt"))
        for place, one in enumerate(learned)
        for number, recipe in enumerate(recipes)
    ]
    if can_stack(job):
        ends = train_stack(ready, learners, str(folder / "stack"), SILENT)
    else:
        ends = [_alone(ready, one) for one in learners]
    found = [end.metrics["held_out"] if isinstance(end, Checkpoint) else None for end in ends]
    size = len(recipes)
    return [
        [one for one in found[start : start + size] if one is not None]
        for start in range(0, len(found), size)
    ]


def _alone(ready: Prepared, learner: Learner) -> Checkpoint | str:
    job = replace(ready.job, recipe=learner.recipe, options=learner.options, out=learner.out)
    try:
        return replace(ready, job=job).run(learner.learned, SILENT).checkpoint
    except TrainingError as error:
        return str(error)
