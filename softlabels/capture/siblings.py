"""Several teachers over the same rows: each gets a dump of its own, and these siblings lie side by
side in one folder, under their teachers' names.

Siblings whose teachers are given the same pictures, numbers or tokens share one pass: each batch is
read once. What is done with it on the device, such as normalising, is each teacher's own.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from softlabels.capture.job import Job
from softlabels.capture.layouts import earlier_plan
from softlabels.capture.planning import Setup, draft
from softlabels.errors import LogitsError, StoreError, TeacherError, UsageError
from softlabels.inputs.opening import DataChoice, LabelChoice, open_chosen
from softlabels.inputs.sources import Source
from softlabels.places.folders import open_folder
from softlabels.store.names import MANIFEST, OWN, PLAN
from softlabels.system.humanize import few, short
from softlabels.system.progress import Progress
from softlabels.teachers import Teacher

LONGEST = 255  # bytes of a folder's name, on most file systems
REMEMBERED = (
    "data", "live", "revision", "input_column", "label_column", "id_column", "class_names",
)  # fmt: skip


def with_common_shards(setups: Mapping[str, Setup]) -> dict[str, Setup]:
    """Where --shard-rows says nothing: siblings that are not there yet get the shards of one that
    is, else the smallest that one of them would have alone, so that all can share a pass.

    A sibling that is there keeps its own.
    """
    plans = {name: earlier_plan(setup.folder) for name, setup in setups.items()}
    new = [name for name, plan in plans.items() if plan is None]
    if not new or any(setup.storage.shard_rows for setup in setups.values()):
        return dict(setups)
    usual = min(draft(setups[name]).shard_inputs for name in new)
    there = [plan.shard_inputs for plan in plans.values() if plan is not None]
    rows = next((rows for rows in there if rows <= usual), usual)
    common = {
        name: replace(setups[name], storage=replace(setups[name].storage, shard_rows=rows))
        for name in new
    }
    return {name: common.get(name, setup) for name, setup in setups.items()}


def passes(jobs: Mapping[str, Job], engine: str, progress: Progress) -> list[list[str]]:
    """The names of these siblings, by the pass in which they are made. Says why there are several
    passes."""
    if engine != "local" and len(jobs) > 1:
        progress.say(f"--engine {engine} makes {few(list(jobs))} one after the other")
        return [[name] for name in jobs]
    groups: list[list[str]] = []
    for name, job in jobs.items():
        group = next((g for g in groups if not _differing(job, jobs[g[0]])), None)
        if group is not None:
            group.append(name)
            continue
        if groups:
            first = groups[0][0]
            why = _differing(job, jobs[first])[0]
            progress.say(f"{name} has a pass of its own, after that of {first}: {why}")
        groups.append([name])
    return groups


def _differing(job: Job, first: Job) -> list[str]:
    """In what the reading of two siblings differs, in words; empty where they can share it."""
    ours, theirs = _reading(job), _reading(first)
    return [
        f"{what}: {short(str(ours[what]))}, and there {short(str(theirs[what]))}"
        for what in ours
        if ours[what] != theirs[what]
    ]


def _reading(job: Job) -> dict[str, Any]:
    """All that decides what is read, decoded, cropped and drawn for a teacher."""
    plan, preprocess = job.plan, job.answers.preprocess
    steps = list(preprocess.picture)
    if preprocess.is_tokenizer:  # what it is called decides nothing
        steps = [replace(steps[0], args=steps[0].args[1:])]
    columns = plan.source.columns
    return {
        "steps before the numbers": "|".join(map(str, steps)),
        "decoder": plan.decoder,
        "views": plan.views,
        "augment": plan.augment,
        "data_seed": plan.data_seed,
        "view_shape": plan.view_shape,
        "store_inputs": plan.store_inputs,
        "rows of a shard": plan.shard_inputs,
        "labels": columns.label or columns.label_source,
        "classes of the labels": few(job.source.class_names or []),
        "ids and labels": plan.source.fingerprint,
        "batch_size": plan.batch_size,
    }


@contextmanager
def whose(title: str, more: str = "") -> Iterator[None]:
    """The block in which an error of a teacher begins with this title, where there is one, and ends
    with `more`."""
    try:
        yield
    except (LogitsError, TeacherError) as error:
        if not title:
            raise
        raise type(error)(f"{title}: {error}{more}") from error


def failing_midway(title: str) -> AbstractContextManager[None]:
    """`whose` of a teacher's dump, while others are under way or still to come."""
    safe = "What is committed of the other dumps is safe"
    return whose(title, f". {safe}: mend this teacher, or leave it out, and go on with --resume")


class SharedData:
    """Data that several teachers ask for in the same words are opened once."""

    def __init__(self) -> None:
        self.known: dict[str, Source] = {}

    def open(
        self,
        choice: DataChoice,
        model: str,
        remembered: dict[str, Any],
        progress: Progress,
        labels: LabelChoice,
        texts: bool,
    ) -> Source:
        """As `open_chosen` does."""
        key = repr([remembered.get(name) for name in REMEMBERED] + [texts])
        if key not in self.known:
            self.known[key] = open_chosen(choice, model, remembered, progress, labels, texts)
        return self.known[key]


def folder_names(names: Sequence[str], given: Sequence[Any]) -> list[str]:
    """The siblings' names as those of their folders. given: the teachers, as the user named each

    Raises UsageError for a name that no folder can have, for one that would make the folder around
    it look like a dump, and for two that are the same.
    """
    words = [one if isinstance(one, str) else f"a {type(one).__name__}" for one in given]
    found: list[str] = []
    for name, word in zip((name.replace("/", "-") for name in names), words, strict=True):
        if (why := _no_folder(name)) is not None:
            raise UsageError(
                f"the teacher {word} is called {short(repr(name))}, and its dump can't lie in a "
                f"folder of that name{why}; name each teacher with --name, in their order"
            )
        twins = [other for known, other in zip(found, words, strict=False) if _same(known, name)]
        if twins:
            raise UsageError(
                f"the teachers {twins[0]} and {word} are both called {name!r}, and their dumps "
                f"would lie in one folder: name each teacher with --name, in their order"
            )
        found.append(name)
    return found


def _no_folder(name: str) -> str | None:
    """Why no dump can lie in a folder of this name, in words after it; None where one can."""
    size = len(os.fsencode(name))
    if size > LONGEST:
        return f", which has {size:,} bytes of up to {LONGEST}"
    if any(_same(name, own) for own in OWN):
        return ", which is that of a part of a dump: the folder around it would be taken for one"
    return "" if name.startswith(".") or not name.strip() else None


def _same(one: str, other: str) -> bool:
    """Whether some file systems take two names for one."""
    return one.casefold() == other.casefold()


def check_same_rows(teachers: list[Teacher], sources: list[Source]) -> None:
    """Raises UsageError where teachers remember other data than the first, or other columns."""
    ours = _rows(sources[0])
    for teacher, source in zip(teachers, sources, strict=True):
        theirs = _rows(source)
        for what in ours:
            if ours[what] != theirs[what]:
                raise UsageError(
                    f"{teachers[0].title} remembers the {what} {ours[what]}, and {teacher.title} "
                    f"{theirs[what]}; in one command all teachers answer the same rows: name "
                    f"them, such as with --data"
                )


def _rows(source: Source) -> dict[str, Any]:
    return {
        "data": source.data,
        "split": source.split,
        "revision": source.revision,
        "input columns": few(list(source.columns.inputs)),
        "column of ids": source.columns.id,
        "number of rows": len(source),
    }


def refuse_dump(place: str) -> None:
    """Raises UsageError for a folder that holds a dump itself."""
    folder = open_folder(place)
    try:
        is_dump = folder.exists(PLAN) or folder.exists(MANIFEST)
    except StoreError:  # such as a repository that is not made yet
        return
    if is_dump:
        raise UsageError(
            f"{place} is a dump itself, and the dumps of several teachers lie side by side in a "
            f"folder that is none: choose another one with --out"
        )
