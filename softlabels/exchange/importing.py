"""The verb `import`: a complete dump from logits that another program stored.

The rows are the source's, with its ids, labels and input hashes; the file's rows are matched with
them by id, and are the answers of a dump like any other.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from softlabels.capture.job import Pace
from softlabels.capture.naming import ClassNames, names_of_dump, names_of_teacher
from softlabels.capture.planning import Setup, Storage, default_name
from softlabels.capture.running import Looking, carry_out, enter, saying_how_to_go_on
from softlabels.capture.team import Team
from softlabels.exchange.ids import match
from softlabels.exchange.matching import (
    FileAnswers,
    Probabilities,
    check_match,
    describe_origin,
)
from softlabels.exchange.opening import open_foreign
from softlabels.inputs.opening import DataChoice, LabelChoice, open_chosen
from softlabels.inputs.preprocessing import choose
from softlabels.inputs.sources import BLOCK_ROWS, Source
from softlabels.options import ImportOptions, verb
from softlabels.places.folders import open_folder
from softlabels.soft_targets import check_temperature
from softlabels.store.ledger import Ledger
from softlabels.store.records import Manifest
from softlabels.system.humanize import counted, size_words
from softlabels.system.progress import Progress
from softlabels.teachers.teacher import suggest_name

ENDINGS = (".npy", ".npz", ".pt", ".pth")
# Of a batch: several wait to be written at once. Large ones are fewer visits to a folder of .npz.
BATCH_BYTES, LEAST_ROWS, ROWS_WITH_INPUTS = 8 << 20, 256, 512


@dataclass(frozen=True)
class Imported:
    """Where the dump is, and its manifest."""

    out: str
    manifest: Manifest

    def __repr__(self) -> str:
        size = f"{counted(self.manifest.rows, 'row')}, {size_words(self.manifest.bytes)}"
        return f"Imported({self.out}: {size})"


@verb(ImportOptions)
def import_logits(options: ImportOptions, progress: Progress) -> Imported:
    """A complete dump from a file of logits.

    Raises SourceError or UntrustedPickle for a file that can't be read, AlignmentError where its
    rows are not the source's, LogitsError for values that must not be stored, and StoreError,
    PlanMismatch, FolderInUse or DiskFull for the folder. Shards that were committed before stay,
    and `resume=True` goes on from there.
    """
    check_temperature(options.T)
    setup = _prepare(options, progress)
    looking = Looking(options.resume, options.check, always=True)
    with saying_how_to_go_on(), ExitStack() as stack:
        begun = enter(setup, looking, Team(), stack, progress)
        if begun.missing is None:
            manifest = begun.job.ledger.complete()
        else:
            (made,), _ = carry_out([begun.part(begun.missing)], "local", True, progress)
            assert made is not None, "no other process works on it"
            manifest = made
    return Imported(str(setup.folder), manifest)


def _prepare(options: ImportOptions, progress: Progress) -> Setup:
    """Open the file and the source, and match them."""
    teacher, about = names_of_teacher(options.class_names, None)
    choice, labels = options.part(DataChoice), options.part(LabelChoice)
    source = open_chosen(choice, "", {"class_names": teacher.names}, progress, labels)
    for remark in about:
        progress.say(remark)
    names = names_of_dump(source, teacher)
    answers = _answers(options, source, names, progress)
    dtype = options.dtype or ("float32" if answers.probabilities else answers.foreign.dtype)
    out = options.out or f"data/{default_name(source, answers.name)}"
    return Setup(
        answers=answers,
        source=source,
        names=names,
        ledger=Ledger(open_folder(out)),
        storage=Storage(
            dtype=dtype,
            store_inputs=options.store_inputs,
            shard_rows=options.shard_rows,
            task=options.task,
        ),
        pace=Pace(_batch_rows(answers.classes, options.store_inputs != "none")),
        name=options.name,
    )


def _batch_rows(classes: int, with_inputs: bool) -> int:
    most = ROWS_WITH_INPUTS if with_inputs else BLOCK_ROWS
    return min(most, max(LEAST_ROWS, BATCH_BYTES // (4 * classes)))


def _answers(
    options: ImportOptions, source: Source, names: ClassNames, progress: Progress
) -> FileAnswers:
    file, ids = options.file, Path(options.ids) if options.ids else None
    classes = options.classes or (len(names.names) if names.names else None)
    foreign = open_foreign(file, classes, source.data)
    places, order = match(foreign, ids, source, file)
    probabilities = Probabilities(options.T, options.floor) if options.probabilities else None
    origin = describe_origin(foreign, source, order, ids, probabilities)
    preprocessing = choose(source, options.preprocess)
    answers = FileAnswers(
        file=file,
        foreign=foreign,
        source=source,
        places=places,
        probabilities=probabilities,
        name=options.name or _name_of(Path(os.path.expanduser(file)).resolve()),
        origin=origin,
        preprocess=preprocessing.preprocess,
    )
    check_match(
        answers,
        names,
        dtype=options.dtype,
        classes=options.classes,
        outputs=options.outputs,
        leaves_out=options.on_missing == "skip",
    )
    progress.say(f"{file}: {counted(foreign.rows, 'row')} of {foreign.classes:,} classes; {origin}")
    if foreign.unproven:
        progress.say(
            f"warning: {file}: {foreign.unproven}. If augmentation or mixup was on, "
            f"students will learn wrong targets: save the logits again with both off"
        )
    progress.say(f"{preprocessing}, for students")
    for remark in suggest_name(answers.name) if options.name is None else ():
        progress.say(remark)
    return answers


def _name_of(file: Path) -> str:
    """What is before the ending; other dots belong to the name."""
    name = file.name
    for ending in ENDINGS:
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name or "logits"
