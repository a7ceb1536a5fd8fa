"""The door of `dump` and `plan`: from options to a teacher and its data, tried on each other. Below
it nothing takes the options of a command."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from softlabels.capture.answers import RunningTeacher
from softlabels.capture.batching import TRIED, Batching, Found, Most, as_many_as_fit, find, repeated
from softlabels.capture.job import Pace
from softlabels.capture.layouts import Layout, lay_out
from softlabels.capture.naming import (
    ClassNames,
    names_of_dump,
    names_of_teacher,
    taken_as_numbered,
)
from softlabels.capture.partners import remark_on_reading
from softlabels.capture.pipeline import WRITES_IN_FLIGHT
from softlabels.capture.planning import Setup, Storage, data_name, default_name
from softlabels.capture.siblings import (
    SharedData,
    check_same_rows,
    folder_names,
    refuse_dump,
    whose,
)
from softlabels.capture.tokenizing import read_texts
from softlabels.capture.trying import TeacherRun, try_teacher
from softlabels.capture.viewing import Views
from softlabels.errors import LabelSpaceMismatch, UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.opening import DataChoice, LabelChoice, open_chosen
from softlabels.inputs.own_preprocessing import check_own_preprocessing
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.preprocessing import choose, differing, remarks
from softlabels.inputs.sources import Source
from softlabels.inputs.stored_pictures import Resized
from softlabels.inputs.token_inputs import TokenInputs
from softlabels.inputs.tokenizing import Tokenizing
from softlabels.label_spaces import WAYS_OUT
from softlabels.models.objects import OBJECTS
from softlabels.options import DumpOptions
from softlabels.places.folders import open_folder
from softlabels.store.ledger import Ledger
from softlabels.system.devices import own_device, resolve_device
from softlabels.system.progress import SILENT, Once, Progress, Titled
from softlabels.teachers import Teacher, resolve
from softlabels.teachers.probing import check_large
from softlabels.teachers.reading_columns import fit_to_columns
from softlabels.teachers.resolving import TeacherChoice
from softlabels.teachers.teacher import suggest_name

FLOAT_BYTES = 4  # of a logit on its way


def prepare(options: DumpOptions, progress: Progress = SILENT) -> Setup:
    """Load the teacher, open the data, and try one on the other. `progress` hears of both, before
    they are tried.

    Raises TeacherError, SourceError, LogitsError or UsageError where they don't fit together.
    """
    return _try_out(options, _open(options, progress), progress)


def prepare_siblings(options: DumpOptions, progress: Progress) -> tuple[str, dict[str, Setup]]:
    """The folder that holds the dumps of several teachers, and the setup of each by its name: all
    are loaded, then tried on the data one after the other.

    Raises what `prepare` raises, and UsageError for names that can't be those of folders side by
    side, for teachers that remember other data than the first, and for a folder that is a dump.
    """
    each, once, data = options.each, Once(progress), SharedData()
    given = [own.the_teacher for own in each]
    if options.name:  # refused before anything is opened
        folder_names(options.name, given)
    opened = [_open(own, once, data.open) for own in each]
    teachers, sources = [one.teacher for one in opened], [one.examples.source for one in opened]
    names = folder_names([teacher.name for teacher in teachers], given)
    check_same_rows(teachers, sources)
    place = options.out or f"data/{data_name(sources[0])}"
    refuse_dump(place)
    setups = {}
    for name, own, one in zip(names, each, opened, strict=True):
        own = replace(own, out=f"{place.rstrip('/')}/{name}")
        with whose(name):
            setups[name] = _try_out(own, one, Titled(progress, name), sibling=True)
    return place, setups


def _try_out(
    options: DumpOptions, opened: "_Opened", progress: Progress, sibling: bool = False
) -> Setup:
    """A teacher and its data, tried on each other. sibling: whether the same command makes dumps of
    other teachers, which may be given the same inputs."""
    views, resized = options.part(Views), Resized.parse(options.store_inputs)
    teacher, examples = opened.teacher, opened.examples
    if resized is not None:
        examples = Examples(examples.source, resized.within(examples.preprocess, examples.source))
    device = own_device(teacher.device_for(options.device))
    teacher.to(device)
    kind = examples.source.kind
    if (isinstance(examples, TokenInputs) or kind == "columns") and views.augment is not None:
        kind = {"columns": "columns of numbers"}.get(kind, kind.rstrip("s") + "s")
        raise UsageError(f"--augment is {views.augment!r}, which works on pixels; these are {kind}")
    view_shape = None if isinstance(examples, TokenInputs) else views.shape(examples)
    source = examples.source
    if views.mixes and (slow := remark_on_reading(source)):
        progress.say(slow)
    names = names_of_dump(source, opened.names)
    seen = remarks(examples, opened.preprocessing)
    for text in (*seen, *taken_as_numbered(source, names.names), *teacher.remarks, *opened.remarks):
        progress.say(text)
    after = "class" if teacher.kind in OBJECTS else "file"
    for text in suggest_name(teacher.name, after) if options.the_name is None else ():
        progress.say(text)
    out = options.out or f"data/{default_name(source, teacher.name)}"
    ledger = Ledger(open_folder(out))
    shape = [] if isinstance(examples, TokenInputs) else examples.input_shape
    lay_out(teacher, options.part(Layout), shape, device, ledger.folder)
    storage = options.part(Storage)

    def try_rows(rows: int) -> tuple[int, list[str]]:
        run = replace(options.part(TeacherRun), batch_size=rows)
        return try_teacher(teacher, examples, names, run, storage, device)

    if options.batch_size == "auto":
        finds = True
        tried_rows, (classes, tried) = as_many_as_fit(try_rows, device)
    else:
        finds, tried_rows = False, options.batch_size
        classes, tried = try_rows(tried_rows)
    answers = RunningTeacher(
        model=teacher,
        preprocess=examples.preprocess,
        precision=options.precision,
        device=device,
        classes=classes,
        batch_size=tried_rows if options.allow_batch_dependence else None,
        batching=Batching(tried_rows, finds, teacher.feed.rows or 1, progress.say),
        texts=examples if isinstance(examples, TokenInputs) else None,
        shares=sibling,
    )
    pace = replace(options.part(Pace), batch_size=tried_rows)
    setup = Setup(
        answers=answers,
        source=source,
        names=names,
        ledger=ledger,
        storage=storage,
        pace=pace,
        views=views,
        view_shape=view_shape,
        name=options.the_name,
        sibling=sibling,
        reopen=partial(prepare, options),
    )
    for text in (str(answers), *tried):
        progress.say(text)
    if not finds:
        return setup
    found = _found(answers, examples, tried_rows, pace, storage.shard_rows, views.answers_each)
    answers.batching.rows = found.rows
    _check_found(answers, examples, tried_rows)
    progress.say(str(found))
    return replace(setup, pace=replace(pace, batch_size=found.rows))


def _found(
    answers: RunningTeacher,
    examples: Examples | TokenInputs,
    tried: int,
    pace: Pace,
    shard_rows: int | None,
    answers_each: int,
) -> Found:
    """The batch size that --batch-size auto stands for, found on the rows that were tried.
    answers_each: how many wait in memory for each picture"""
    inputs = examples.first_readable(tried)[1]
    most = Most.of(
        len(examples),
        inputs.nbytes // len(inputs) + FLOAT_BYTES * answers.classes * answers_each,
        2 * pace.readers + WRITES_IN_FLIGHT,
        shard_rows,
    )
    if tried < min(TRIED, most.rows):  # twice as many were tried first
        most = Most(tried, f"{2 * tried:,} don't fit into memory")
    return find(
        lambda rows: answers.answer_at_once(rows, len(rows)).wait(),
        inputs,
        answers.device,
        most,
        answers.batching.least,
    )


def _check_found(answers: RunningTeacher, examples: Examples | TokenInputs, tried: int) -> None:
    """Raises TeacherError where larger batches than the one that was tried give other answers."""
    positions, inputs = examples.first_readable(tried)
    if answers.batching.rows <= len(inputs):
        return
    rows, more = examples.source.take(positions), repeated(inputs, answers.batching.rows)
    few_NC = answers.answer(rows, inputs).wait().logits_NC
    many_NC = answers.answer(rows, more).wait().logits_NC
    check_large(answers.model, few_NC, many_NC, rows.ids.tolist(), answers.rounding)


def _title(teacher: Any) -> str:
    """What messages call what the user gave."""
    return teacher if isinstance(teacher, str) else f"the teacher, a {type(teacher).__name__},"


@dataclass(frozen=True)
class _Opened:
    """The teacher and its data. names: the teacher's; remarks: about them; preprocessing: who chose
    that of the data, such as "by default"."""

    teacher: Teacher
    names: ClassNames
    remarks: list[str]
    examples: Examples | TokenInputs
    preprocessing: str


def _may_read(teacher: Teacher, how: Tokenizing) -> bool:
    """Whether there is a tokenizer for texts."""
    return (teacher.own_tokenizer or how.tokenizer) is not None


def _reads(teacher: Teacher, source: Source, how: Tokenizing) -> bool:
    """Whether a teacher is given the tokens of texts. Where a file's inputs are something else,
    reading them refuses that; a module in memory may take numbers, too."""
    known = teacher.own_tokenizer is not None
    if source.kind == "text":
        return _may_read(teacher, how)
    return known and source.kind != "tokens" and teacher.kind not in OBJECTS


def _open(
    options: DumpOptions, progress: Progress, open_data: Callable[..., Source] = open_chosen
) -> _Opened:
    """The teacher; the data as they were chosen, else as the teacher remembers them, preprocessed
    likewise. open_data: opens them, as `open_chosen` does.

    A bare state dict remembers nothing, and its model needs the shape of an input: then the data
    come first, and are opened once all the same.
    """
    resolve_device(options.device)  # one that is not here is refused before anything is opened,
    _ = options.part(Views).fields, Resized.parse(options.store_inputs)  # and so are unknown words
    choice = replace(options.part(TeacherChoice), teacher=options.the_teacher)
    data = options.part(DataChoice)

    def examples(
        remembered: dict[str, Any], known: str | None
    ) -> tuple[Examples | TokenInputs, str]:
        title = _title(choice.teacher)
        labels, how = options.part(LabelChoice), options.part(Tokenizing)
        texts = options.preprocess is None and teacher is not None and _may_read(teacher, how)
        try:
            source = open_data(data, title, remembered, progress, labels, texts)
        except LabelSpaceMismatch as error:
            raise LabelSpaceMismatch(f"{error}. {WAYS_OUT}") from error
        if teacher is not None and _reads(teacher, source, how):
            if options.preprocess is not None:
                raise UsageError(
                    f"--preprocess is {options.preprocess!r}, and {teacher.title} reads texts, "
                    f"which its tokenizer prepares; leave it out, or name another --tokenizer"
                )
            return read_texts(teacher, source, how, progress), ""
        tokens = source.data if source.kind == "tokens" else ""
        how.refuse_any(_title(choice.teacher), tokens)
        if unasked and source.kind != "image":  # what a module says of itself is about pictures
            known = None
        elif teacher is not None and unasked and options.preprocess is None:
            check_own_preprocessing(teacher)
        if source.kind == "tokens":  # what a file says of itself may be about pictures
            known = known if known is not None and Preprocess.parse(known).keeps_tokens else None
        chosen = choose(source, options.preprocess, known, whose, unasked)
        preprocess = chosen.preprocess
        if source.is_by_name and not preprocess.is_opaque and teacher is not None:
            preprocess = fit_to_columns(teacher, source, preprocess)
            if source.kind == "tokens":
                return TokenInputs(source, preprocess), chosen.origin
        return Examples(source, preprocess), chosen.origin

    opened: list[tuple[Examples | TokenInputs, str]] = []
    teacher: Teacher | None = None
    whose = unasked = ""

    def input_shape() -> list[int]:
        named, _ = names_of_teacher(options.class_names, None)
        opened.append(examples({"class_names": named.names}, None))
        return opened[0][0].input_shape

    teacher = resolve(**vars(choice), input_shape=input_shape, name=options.the_name)
    names, about = names_of_teacher(options.class_names, teacher.class_names)
    teacher.class_names = names.names
    teacher.name = options.the_name or teacher.name
    unasked = teacher.title if teacher.kind in OBJECTS else ""
    whose = f"the teacher's {'checkpoint' if teacher.kind == 'checkpoint' else 'own configuration'}"
    if options.preprocess is None and not unasked:
        check_own_preprocessing(teacher)
    elif teacher.preprocess is not None and options.preprocess is not None:
        about = [*about, *differing(options.preprocess, teacher.preprocess, whose)]
    first = (opened or [examples(teacher.remembered, teacher.preprocess)])[0]
    return _Opened(teacher, names, about, *first)
