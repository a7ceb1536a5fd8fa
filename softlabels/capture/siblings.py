"""Several teachers over the same rows: each gets a dump of its own, and these siblings lie side by
side in one folder, under their teachers' names.

Siblings whose teachers are given the same pictures, numbers or tokens share one pass: each batch is
read once. What is done with it on the device, such as normalising, is each teacher's own.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from softlabels.capture.answers import RunningTeacher
from softlabels.capture.layouts import earlier_plan
from softlabels.capture.planning import Setup, data_name, draft
from softlabels.capture.preparing import Opened, open_teacher, try_out
from softlabels.capture.running import Begun
from softlabels.errors import StoreError, UsageError
from softlabels.inputs.opening import open_chosen
from softlabels.inputs.sources import Source
from softlabels.inputs.steps import TOKENIZER
from softlabels.options import DumpOptions
from softlabels.places.folders import open_folder
from softlabels.store.names import MANIFEST, PLAN
from softlabels.system.humanize import few, short
from softlabels.system.progress import Once, Progress, Titled

REMEMBERED = (
    "data", "live", "revision", "input_column", "label_column", "id_column", "class_names",
)  # fmt: skip


def prepare_siblings(options: DumpOptions, progress: Progress) -> tuple[str, dict[str, Setup]]:
    """The folder that holds the siblings, and each by its name: teachers loaded and tried on the
    data, one after the other.

    Raises what `prepare` raises, and UsageError for names that can't be those of folders side by
    side, for teachers that remember other data than the first, and for a folder that is a dump.
    """
    once, data = Once(progress), _Data()
    each = [(own, open_teacher(own, once, data.open)) for own in options.each]
    opened = [one for _, one in each]
    names = _names(opened)
    _check_same_rows(opened)
    place = options.out or f"data/{data_name(opened[0].examples.source)}"
    _refuse_dump(place)
    setups = {}
    for name, (own, one) in zip(names, each, strict=True):
        own = replace(own, out=f"{place.rstrip('/')}/{name}")
        setup = try_out(own, one, Titled(progress, name))
        assert isinstance(setup.answers, RunningTeacher)
        setups[name] = replace(setup, answers=replace(setup.answers, shares=True))
    return place, setups


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


def passes(begun: Mapping[str, Begun], engine: str, progress: Progress) -> list[dict[str, Begun]]:
    """The siblings that have something to do, by the pass in which they do it. Says why there are
    several passes."""
    todo = {name: one for name, one in begun.items() if one.missing is not None}
    if engine != "local" and len(todo) > 1:
        progress.say(f"--engine {engine} makes {few(list(todo))} one after the other")
        return [{name: one} for name, one in todo.items()]
    groups: list[dict[str, Begun]] = []
    for name, one in todo.items():
        group = next((g for g in groups if not _differing(_first(g)[1], one)), None)
        if group is not None:
            group[name] = one
            continue
        if groups:
            first, other = _first(groups[0])
            progress.say(f"{name} has a pass of its own after {first}: {_differing(other, one)}")
        groups.append({name: one})
    return groups


def _first(group: dict[str, Begun]) -> tuple[str, Begun]:
    return next(iter(group.items()))


def _differing(one: Begun, other: Begun) -> str:
    """What the reading of two siblings differs in, in words; empty where they can share it."""
    ours, theirs = _reading(one), _reading(other)
    differing = [
        f"its {what} {'are' if what.endswith('s') else 'is'} {short(str(theirs[what]))}, and "
        f"{short(str(ours[what]))} there"
        for what in ours
        if ours[what] != theirs[what]
    ]
    return "; ".join(differing)


def _reading(begun: Begun) -> dict[str, Any]:
    """All that decides what is read, decoded, cropped and drawn for a teacher, but for the options
    that siblings have in common."""
    plan, preprocess = begun.job.plan, begun.job.answers.preprocess
    steps = list(preprocess.picture)
    if preprocess.is_tokenizer:  # whose name decides nothing: the model's own, or a folder's
        steps = [replace(steps[0], args=steps[0].args[1:])]
    source = plan.source
    return {
        "steps on pictures" if not preprocess.is_tokenizer else TOKENIZER: "|".join(
            map(str, steps)
        ),
        "decoder": plan.decoder,
        "views": (plan.views, plan.augment, plan.data_seed, plan.view_shape),
        "stored inputs": plan.store_inputs,
        "shard rows": plan.shard_inputs,
        "labels": (source.fingerprint, source.columns.label, source.columns.label_source),
        "batch size": plan.batch_size,
    }


class _Data:
    """Data that several teachers ask for in the same words are opened once."""

    def __init__(self) -> None:
        self.known: dict[str, Source] = {}

    def open(
        self, choice: Any, model: str, remembered: dict[str, Any], *more: Any
    ) -> Source:  # fmt: skip
        words = [remembered.get(name) for name in REMEMBERED], more[1:]
        key = repr(words)
        if key not in self.known:
            self.known[key] = open_chosen(choice, model, remembered, *more)
        return self.known[key]


def _names(opened: list[Opened]) -> list[str]:
    """The siblings' names, which are those of their folders. Raises UsageError where one can't be,
    or where two are the same."""
    names: list[str] = []
    for one in opened:
        given = one.teacher.name
        name = given.replace("/", "-")
        if name.startswith(".") or not name.strip():
            raise UsageError(
                f"the teacher {given!r} can't name a folder of its own: say how to call each "
                f"teacher with --name, in their order"
            )
        twin = next((i for i, known in enumerate(names) if known.lower() == name.lower()), None)
        if twin is not None:
            raise UsageError(
                f"teachers {twin + 1} and {len(names) + 1} are called "
                f"{opened[twin].teacher.name!r} and {given!r}, and their dumps would lie in the "
                f"same folder: give each teacher a name of its own with --name, in their order"
            )
        names.append(name)
    return names


def _check_same_rows(opened: list[Opened]) -> None:
    """Raises UsageError where teachers remember other data, or other columns of them."""
    first, *others = opened
    for other in others:
        ours, theirs = _rows(first.examples.source), _rows(other.examples.source)
        differing = [what for what in ours if ours[what] != theirs[what]]
        if differing:
            what = differing[0]
            raise UsageError(
                f"{first.teacher.title} remembers the {what} {ours[what]}, and "
                f"{other.teacher.title} {theirs[what]}; in one command all teachers answer the "
                f"same rows: name them, such as with --data"
            )


def _rows(source: Source) -> dict[str, Any]:
    columns = source.columns
    return {
        "data": source.data,
        "split": source.split,
        "revision": source.revision,
        "input columns": few(list(columns.inputs)),
        "column of ids": columns.id,
        "number of rows": len(source),
    }


def _refuse_dump(place: str) -> None:
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
