"""The door of `dump` and `plan`: from options to a teacher and its data, tried on each other."""

from functools import partial

from softlabels.capture.answers import RunningTeacher
from softlabels.capture.pipeline import Pace
from softlabels.capture.planning import Setup, Storage, default_name
from softlabels.capture.trying import try_teacher
from softlabels.inputs.examples import Examples
from softlabels.inputs.opening import open_as_told
from softlabels.inputs.preprocessing import choose, remarks
from softlabels.inputs.sources import Source
from softlabels.options import DumpOptions
from softlabels.places.folders import open_folder
from softlabels.store.ledger import Ledger
from softlabels.system.devices import own_device, resolve_device
from softlabels.system.progress import SILENT, Progress
from softlabels.teachers import Teacher, resolve
from softlabels.teachers.teacher import suggest_name


def prepare(options: DumpOptions, progress: Progress = SILENT) -> Setup:
    """Load the teacher, open the data, and try one on the other. `progress` hears of both, before
    they are tried.

    Raises TeacherError, SourceError, LogitsError or UsageError where they don't fit together.
    """
    device = own_device(resolve_device(options.device))
    teacher = resolve(
        options.teacher,
        model=options.model,
        input_shape=lambda: _examples(options, None)[0].input_shape,
        trust_pickle=options.trust_pickle,
        weights=options.weights,
    ).to(device)
    teacher.name = options.name or teacher.name
    examples, chosen = _examples(options, teacher, progress)
    source = examples.source
    names = source.class_names or (teacher.class_names if source.labelled else None)
    for text in (*remarks(examples, chosen), *_numbered(source, names), *teacher.remarks):
        progress.say(text)
    for text in suggest_name(teacher.name) if options.name is None else ():
        progress.say(text)
    classes, tried = try_teacher(teacher, examples, names, options, device)
    answers = RunningTeacher(
        model=teacher,
        preprocess=examples.preprocess,
        precision=options.precision,
        device=device,
        classes=classes,
        batch_size=options.batch_size if options.allow_batch_dependence else None,
    )
    out = options.out or f"data/{default_name(source, teacher.name)}"
    setup = Setup(
        answers=answers,
        source=source,
        class_names=names,
        ledger=Ledger(open_folder(out)),
        storage=options.part(Storage),
        pace=options.part(Pace),
        name=options.name,
        reopen=partial(prepare, options),
    )
    for text in (str(answers), *tried):
        progress.say(text)
    return setup


def _numbered(source: Source, names: list[str] | None) -> list[str]:
    """What is taken for granted where labels are numbers and the teacher has names for them."""
    if not names or source.class_names is not None:
        return []
    shown = ", ".join(f"{i} is {name!r}" for i, name in enumerate(names[:3]))
    return [f"labels of {source.name} are numbers, taken as the teacher's: {shown}"]


def _examples(
    options: DumpOptions, teacher: Teacher | None, progress: Progress = SILENT
) -> tuple[Examples, str]:
    """The data as the options say, else as the teacher remembers it, preprocessed likewise, and
    where its preprocessing comes from."""
    remembered = teacher.remembered if teacher else {}
    source = open_as_told(options, options.data, options.teacher, remembered, progress)
    known = teacher.preprocess if teacher else None
    chosen = choose(source, options.preprocess, known, "the teacher's checkpoint")
    return Examples(source, chosen.preprocess), chosen.origin
