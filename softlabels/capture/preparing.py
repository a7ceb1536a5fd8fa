"""The door of `dump` and `plan`: from options to a teacher and its data, tried on each other. Below
it nothing takes the options of a command."""

from functools import partial
from typing import Any

from softlabels.capture.answers import RunningTeacher
from softlabels.capture.pipeline import Pace
from softlabels.capture.planning import Setup, Storage, default_name
from softlabels.capture.trying import TeacherRun, try_teacher
from softlabels.capture.viewing import Views
from softlabels.errors import UsageError
from softlabels.inputs.examples import Examples
from softlabels.inputs.opening import DataChoice, open_chosen
from softlabels.inputs.preprocessing import choose, remarks
from softlabels.inputs.sources import Source
from softlabels.models.objects import OBJECTS
from softlabels.options import DumpOptions
from softlabels.places.folders import open_folder
from softlabels.store.ledger import Ledger
from softlabels.system.devices import own_device, resolve_device
from softlabels.system.progress import SILENT, Progress
from softlabels.teachers import Teacher, resolve
from softlabels.teachers.resolving import TeacherChoice
from softlabels.teachers.teacher import suggest_name


def prepare(options: DumpOptions, progress: Progress = SILENT) -> Setup:
    """Load the teacher, open the data, and try one on the other. `progress` hears of both, before
    they are tried.

    Raises TeacherError, SourceError, LogitsError or UsageError where they don't fit together.
    """
    views = options.part(Views)
    resolve_device(options.device)  # it and
    _ = views.fields  # an unknown word is refused before anything is opened
    teacher, examples, chosen = _open(
        options.part(TeacherChoice),
        options.part(DataChoice),
        options.preprocess,
        options.name,
        progress,
    )
    device = own_device(teacher.device_for(options.device))
    teacher.to(device)
    teacher.name = options.name or teacher.name
    if examples.preprocess.is_opaque and views.augment is not None:
        raise UsageError(
            f"--augment is {views.augment!r}, which works on pixels; what the function "
            f"{examples.preprocess} gives may be none. Write the preprocessing as text"
        )
    views.check_shape(examples.input_shape)
    source = examples.source
    names = source.class_names or (teacher.class_names if source.labelled else None)
    for text in (*remarks(examples, chosen), *_numbered(source, names), *teacher.remarks):
        progress.say(text)
    after = "class" if teacher.kind in OBJECTS else "file"
    for text in suggest_name(teacher.name, after) if options.name is None else ():
        progress.say(text)
    run, storage = options.part(TeacherRun), options.part(Storage)
    classes, tried = try_teacher(teacher, examples, names, run, storage, device)
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
        storage=storage,
        pace=options.part(Pace),
        views=views,
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


def _title(teacher: Any) -> str:
    """What messages call what the user gave."""
    return teacher if isinstance(teacher, str) else f"the teacher, a {type(teacher).__name__},"


def _open(
    choice: TeacherChoice,
    data: DataChoice,
    preprocess: Any,
    name: str | None,
    progress: Progress,
) -> tuple[Teacher, Examples, str]:
    """The teacher; the data as they were chosen, else as the teacher remembers them, preprocessed
    likewise; and where that preprocessing comes from.

    A bare state dict remembers nothing, and its model needs the shape of an input: then the data
    come first, and are opened once all the same.
    """

    def examples(remembered: dict[str, Any], known: str | None) -> tuple[Examples, str]:
        source = open_chosen(data, _title(choice.teacher), remembered, progress)
        chosen = choose(source, preprocess, known, "the teacher's checkpoint")
        return Examples(source, chosen.preprocess), chosen.origin

    opened: list[tuple[Examples, str]] = []

    def input_shape() -> list[int]:
        opened.append(examples({}, None))
        return opened[0][0].input_shape

    teacher = resolve(**vars(choice), input_shape=input_shape, name=name)
    return teacher, *(opened or [examples(teacher.remembered, teacher.preprocess)])[0]
