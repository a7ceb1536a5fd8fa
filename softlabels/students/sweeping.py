"""The verb `sweep`: students at every combination of settings, whose data are opened once."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from softlabels.errors import TrainingError, UsageError
from softlabels.models.checkpoint import Checkpoint, library_versions
from softlabels.options import SweepOptions, TrainOptions, verb
from softlabels.options.spelling import command_of
from softlabels.soft_targets import check_temperature
from softlabels.students.building import built_by
from softlabels.students.comparing import measure_of
from softlabels.students.distilling import Distillation, distillation
from softlabels.students.job import Job
from softlabels.students.prepared import Prepared
from softlabels.students.ranks import Ranks
from softlabels.students.recipe import Recipe
from softlabels.students.resuming import FREE, facts_of, finished
from softlabels.students.stack.running import Learner, can_stack, train_stack
from softlabels.students.sweeps.folder import STUDENTS, write_results
from softlabels.students.sweeps.grid import Setting, Trial, settings_of
from softlabels.students.sweeps.results import Ended, SweepResult
from softlabels.students.trackers import joined_ranks
from softlabels.students.training import prepare
from softlabels.system.humanize import counted
from softlabels.system.progress import Progress
from softlabels.system.sole_writer import sole_writer
from softlabels.targets.mixed import Mixed

STACK_BYTES = 1 << 30  # of all that a stack keeps of its parameters
COPIES = 6  # weights, gradients, two means of AdamW, the best epoch, an average


@verb(SweepOptions)
def sweep(options: SweepOptions, progress: Progress) -> SweepResult:
    """Train a student at every combination of T, alpha, student, lr and weight decay, each with
    every seed, and from hard labels alone; compare them on the held-out rows. Writes a checkpoint
    of each, a table as Parquet and JSON, the learning curves of all, a plot, and the best student
    as best.pt.

    Raises the errors of `train`.
    """
    for T in options.T:
        check_temperature(T)
    ranks = joined_ranks(options.device, options.precision, (), options.out)
    if ranks.world > 1:
        raise UsageError(
            f"a sweep runs in one process, and here are {ranks.world}; start it without torchrun"
        )
    folder = _folder(options)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with sole_writer(folder, "sweep", progress):
            return _Sweep(options, folder, ranks, progress).run()
    except KeyboardInterrupt:
        progress.say(f"stopped; --resume goes on with the sweep in {folder}")
        raise


def learned_of(training: TrainOptions) -> Distillation:
    return distillation(training.loss, training.T, training.alpha)


def _teacher_of(job: Job) -> str:
    """Its name, or what a mixture is of."""
    assert job.teacher is not None, "a student of hard labels alone sees the dump, too"
    if isinstance(job.teacher, Mixed):
        return job.teacher.title
    return job.teacher.base.reader.plan.teacher.name


def _folder(options: SweepOptions) -> Path:
    folder = Path(options.out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out is {options.out}, a file; a sweep writes a folder")
    if not options.resume and any(path.is_file() for path in folder.rglob("*")):
        raise UsageError(
            f"--out is {options.out}, which is not empty. Add --resume to go on with the sweep in "
            f"it, or choose another folder"
        )
    return folder


@dataclass(frozen=True)
class _Sweep:
    options: SweepOptions
    folder: Path
    ranks: Ranks
    progress: Progress
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def run(self) -> SweepResult:
        settings = self._settings(with_hard=False)
        trained = [self._training(Trial(setting, self.options.seed)) for setting in settings]
        learned = [learned_of(one) for one in trained]
        ready = prepare(trained[0], learned, self.ranks, self.progress)
        if ready.job.labels is None:
            self.progress.say("the dump has no labels, so there are no students of hard labels")
        else:
            settings = self._settings(with_hard=True)
        seeds = range(self.options.seed, self.options.seed + self.options.seeds)
        trials = [Trial(setting, seed) for setting in settings for seed in seeds]
        self.progress.say(
            f"{counted(len(trials), 'student')}: {counted(len(settings), 'setting')}, each with "
            f"{counted(len(seeds), 'seed')}"
        )
        ended: dict[Trial, Ended] = {}
        for of_spec in self._each_student(ready):
            spec = of_spec.job.model.model
            own = [trial for trial in trials if trial.setting.student == spec]
            train = self._together if can_stack(of_spec.job) else self._one_by_one
            ended |= {one.trial: one for one in train(of_spec, own)}
        return self._written(ready.job, [ended[trial] for trial in trials])

    def _each_student(self, ready: Prepared) -> list[Prepared]:
        """The training of each model. Raises UsageError for one that can't be built, before the
        others are trained."""
        job = ready.job
        choices = [replace(job.model, model=spec) for spec in dict.fromkeys(self.options.student)]
        if job.begun is None:
            for choice in choices:
                built_by(choice, job.examples.input_shape, job.classes)
        return [replace(ready, job=replace(job, model=choice)) for choice in choices]

    def _settings(self, with_hard: bool) -> list[Setting]:
        o = self.options
        found = settings_of(o.student, o.lr, o.weight_decay, o.T, o.alpha, with_hard)
        return found or settings_of(o.student, o.lr, o.weight_decay, o.T, o.alpha, True)

    def _training(self, trial: Trial) -> TrainOptions:
        """As `train` would be called for it."""
        shared = {one.name: getattr(self.options, one.name) for one in fields(TrainOptions)}
        out = self.folder / STUDENTS / f"{trial.name}.pt"
        begun = out.exists() or out.with_name(f"{out.name}.state").exists()
        own = {"seed": trial.seed, "out": str(out), "resume": begun}
        return TrainOptions(**(shared | trial.setting.training | own))

    def _one_by_one(self, ready: Prepared, trials: Sequence[Trial]) -> Iterator[Ended]:
        for number, trial in enumerate(trials, 1):
            each = self._training(trial)
            self.progress.say(f"student {number:,} of {len(trials):,}, {trial.name}")
            learned = learned_of(each)
            if ready.job.begun is not None:  # it is the one that is trained
                ready = prepare(each, [learned], self.ranks, self.progress)
            job = replace(ready.job, recipe=each.part(Recipe), options=each.plain, out=each.out)
            try:
                found = replace(ready, job=job).run(learned, self.progress)
                yield Ended(trial, each.out, found.metrics)
            except TrainingError as error:
                yield Ended(trial, each.out, None, str(error))

    def _together(self, ready: Prepared, trials: Sequence[Trial]) -> Iterator[Ended]:
        job = ready.job
        weights = built_by(job.model, job.examples.input_shape, job.classes).module.state_dict()
        left = []
        for trial in trials:
            each = self._training(trial)
            facts = facts_of(
                each.plain,
                data=job.data,
                identity=job.identity,
                preprocess=str(job.examples.preprocess.without_files),
                state_dict=weights,
            )
            done = finished(each.out, {n: facts[n] for n in facts if n not in FREE})
            if done is not None:
                yield Ended(trial, each.out, done.metrics)
            else:
                left.append((trial, each))
        if len(left) < len(trials):
            self.progress.say(
                f"{counted(len(trials) - len(left), 'student')} of {len(trials):,} "
                f"{'is' if len(trials) - len(left) == 1 else 'are'} complete"
            )
        size = sum(value.numel() * value.element_size() for value in weights.values())
        most = max(1, STACK_BYTES // (COPIES * size))
        for start in range(0, len(left), most):
            yield from self._stack(ready, left[start : start + most])

    def _stack(
        self, ready: Prepared, members: Sequence[tuple[Trial, TrainOptions]]
    ) -> Iterator[Ended]:
        names = "\n".join(trial.name for trial, _ in members)
        place = self.folder / f"stack-{hashlib.sha256(names.encode()).hexdigest()[:12]}"
        learners = [
            Learner(learned_of(each), each.part(Recipe), each.plain, each.out)
            for _, each in members
        ]
        ends = train_stack(ready, learners, str(place), self.progress)
        for (trial, each), end in zip(members, ends, strict=True):
            failed = end if isinstance(end, str) else ""
            metrics = end.metrics if isinstance(end, Checkpoint) else None
            yield Ended(trial, each.out, metrics, failed)

    def _written(self, job: Job, ended: list[Ended]) -> SweepResult:
        there = [one for one in ended if one.metrics is not None]
        if not there:
            raise TrainingError(f"no student came to an end: {ended[0].failure}")
        measure = measure_of(job, (there[0].metrics or {})["held_out"])
        ran = {
            "teacher": _teacher_of(job),
            "data": job.data,
            "options": self.options.plain,
            "command": command_of("sweep", self.options, without=("resume",)),
            "versions": library_versions(),
            # a sweep may have been stopped and resumed: of what ran before, no time is kept
            "last_run_began": self.began.isoformat(timespec="seconds"),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        result = write_results(SweepResult(str(self.folder), measure, ended), ran, self.progress)
        for state in self.folder.glob("stack-*.state"):  # of a sweep that was asked for otherwise
            state.unlink()
        return result
