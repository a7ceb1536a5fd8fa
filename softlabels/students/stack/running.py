"""Several students of a job, trained as one stack: each ends as `Job.run` alone would end it.

S students.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.inputs.examples import Examples
from softlabels.inputs.label_lists import LabelLists
from softlabels.models.checkpoint import Checkpoint
from softlabels.models.specs import CNN, MLP, is_own
from softlabels.models.starting import ModelChoice
from softlabels.students.building import Built, build, built_by
from softlabels.students.distilling import Distillation, stacked_loss
from softlabels.students.history import History
from softlabels.students.job import Job
from softlabels.students.optimization import Batch
from softlabels.students.prepared import Prepared, remedy_of
from softlabels.students.recipe import Recipe
from softlabels.students.resuming import FREE, check_out
from softlabels.students.stack.convolutions import StackedCNN
from softlabels.students.stack.judging import StackJudge
from softlabels.students.stack.layers import Stacked, StackedMLP
from softlabels.students.stack.trainer import StackTask, StackTrainer
from softlabels.students.state_file import StateFile
from softlabels.students.task import Outcome, seed_everything, smallest_share
from softlabels.system.local_files import sweep_partials
from softlabels.system.progress import Progress

STACKED: dict[str, type[Stacked]] = {"linear": StackedMLP, "mlp": StackedMLP, "cnn": StackedCNN}
ON_CPU = ("cnn",)  # families that are stacked there alone: elsewhere it was not measured


@dataclass(frozen=True)
class Learner:
    """What a student of a stack has of its own: `train`'s options, as it would be trained alone.

    options: all of them as plain values, for its checkpoint
    """

    learned: Distillation
    recipe: Recipe
    options: dict[str, Any]
    out: str


def can_stack(job: Job) -> bool:
    """Whether such students can be trained as a stack: our own, by name, over inputs that are one
    tensor, with one label a row, in this process alone."""
    recipe, examples = job.recipe, job.examples
    family = _family(job.model)
    return (
        family in STACKED
        and (family not in ON_CPU or job.ranks.device.type == "cpu")
        and isinstance(examples, Examples)
        and isinstance(examples.sample(1), Tensor)
        and not isinstance(job.labels, LabelLists)
        and job.ranks.world == 1
        and recipe.precision != "fp16"  # has a loss scale, which is one for all
        and not recipe.compile
    )


def is_cheap(job: Job) -> bool:
    """Whether a stack of such students takes far less time than they do one after the other: of
    perceptrons. What convolutions take is mostly their arithmetic."""
    return can_stack(job) and _family(job.model) not in ON_CPU


def _family(choice: ModelChoice) -> str:
    """Of one of our own models by name; else an empty text."""
    name = choice.model
    return name.partition(":")[0] if isinstance(name, str) and is_own(name) else ""


def train_stack(
    ready: Prepared, learners: Sequence[Learner], place: str, progress: Progress
) -> list[Checkpoint | str]:
    """Train them and write the checkpoint of each, and its history beside it, also that of one that
    fails. Returns for each the checkpoint, or why it has none.

    learners: students of the job's model, which `can_stack`; of their recipes only what is in
        `optimization.OWN` differs
    place: `PLACE.state` is the state from which an unfinished training goes on; removed at the end

    Raises the errors of `train`, but those about a loss that is no number.
    """
    job = ready.job
    jobs = [
        replace(job, recipe=one.recipe, options=one.options, out=one.out, model=_model(job, one))
        for one in learners
    ]
    for one in learners:
        check_out(one.out)
    kept, held = job.chosen
    rows = np.sort(job.each[:, kept].ravel()), job.inputs[held]
    assert isinstance(job.examples, Examples), "can_stack says so"
    job.examples.only(np.concatenate(rows))
    built, stack = _stacked(jobs, len(rows[0]))
    each = [
        {name: value for name, value in one.facts(built.student).items() if name not in FREE}
        for one in jobs
    ]
    facts = each[0] | {"set of students": each}
    learned = [one.learned for one in learners]

    def loss(logits_SNC: Tensor, batch: Batch, progress: float, part: slice) -> Tensor:
        return stacked_loss(learned[part], logits_SNC, batch, progress, ready.labelled)

    job.say(rows, built, progress)
    task = StackTask(
        order=ready.order,
        take=ready.take,
        loss=loss,
        judge=StackJudge(job.judge),
        rows=rows,
        spec=built.student.spec,
        settle=lambda: None if job.teacher is None else job.teacher.settle(),
        ahead=ready.ahead,
        views_in=job.views_in,
        T_at=[one.T_at for one in learned],
    )
    file = StateFile(place, facts)
    recipes = [one.recipe for one in learners]
    trainer = StackTrainer(stack, task, recipes, file, progress)
    ends: list[Checkpoint | str] = []
    for each_job, one, outcome, member in zip(
        jobs, learners, trainer.run(), trainer.members, strict=True
    ):
        if isinstance(outcome, str):
            History(each_job.out).add(member.history)
            ends.append(f"{outcome}; {remedy_of(one.learned, one.recipe)}")
        else:
            ends.append(_end(each_job, built, outcome, rows[1]))
    file.remove()
    sweep_partials(file.path)
    return ends


def _model(job: Job, learner: Learner) -> ModelChoice:
    recipe = learner.recipe
    return replace(job.model, dropout=recipe.dropout, input_dropout=recipe.input_dropout)


def _stacked(jobs: Sequence[Job], rows: int) -> tuple[Built, Stacked]:
    """The first student, tried as `train` tries it, and all of them as one; each is drawn by its
    seed, and so is its dropout from there on."""
    first, device = jobs[0], jobs[0].ranks.device
    recipe, examples = first.recipe, first.examples
    share = smallest_share(rows, recipe.batch_size, 1, recipe.accumulate)
    modules: list[MLP | CNN] = []
    generators = []
    for job in jobs:
        seed_everything(job.recipe.seed)
        module = built_by(job.model, examples.input_shape, job.classes).module
        assert isinstance(module, MLP | CNN), "can_stack says so"
        modules.append(module)
        generators.append(_generator(device, job.recipe.seed))
    stack = STACKED[_family(first.model)](modules, generators, device)
    begun = built_by(first.model, examples.input_shape, job.classes)
    built = build(first.model, begun, examples, job.classes, recipe.precision, share, first.ranks)
    return built, stack


def _generator(device: torch.device, seed: int) -> torch.Generator:
    """Of the draws after the weights. Only a CPU goes on where the weights have ended."""
    generator = torch.Generator(device)
    if device.type == "cpu":
        generator.set_state(torch.get_rng_state())
    else:
        generator.manual_seed(seed)
    return generator


def _end(job: Job, built: Built, outcome: Outcome, held: np.ndarray) -> Checkpoint:
    """Measure the chosen weights as `train` does, and write them."""
    module: nn.Module = built.student.model
    module.load_state_dict(outcome.state_dict)
    if len(held):
        _, measures = job.judge.measure(built.student, held)
        outcome.history[outcome.epoch - 1]["held_out"] = measures
    checkpoint = job.checkpoint(built.student, built.begun, outcome)
    checkpoint.save(job.out)
    History(job.out).add(outcome.history)
    return checkpoint
