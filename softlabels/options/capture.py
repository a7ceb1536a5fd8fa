"""The options of `softlabels dump` and `plan`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from softlabels.errors import UsageError
from softlabels.options.objects import Data, Names, Teachers
from softlabels.options.option import Count, CountOrAuto, Natural, Options, option
from softlabels.options.source import LabelOptions, SourceOptions, TextOptions
from softlabels.system.progress import Progress

MOST_VIEWS = 9_999
OF_ONE = ("model", "weights", "key", "logits", "version")  # options about one teacher's file


@dataclass(frozen=True, kw_only=True)
class ViewOptions(Options):
    """Which views of each input are stored."""

    views: Count | None = option(
        "Number of drawn views of each input, beside the input itself; needs --augment.", None
    )
    augment: str | None = option(
        "How to draw views: 'random_resized_crop(224)|flip', 'random_crop(32, 4)|flip', "
        "'jitter(2)', 'flip|mixup(0.2)|cutmix(1.0)', …; each row stores what was drawn.",
        None,
    )
    clean: bool = option(
        "Also store the input as it is, as view 0.", True, flag="--clean/--no-clean"
    )
    data_seed: Natural | None = option("Seed of the views. Default: 0.", None)

    def check_views(self) -> None:
        if self.views is not None and self.views > MOST_VIEWS:
            raise UsageError(f"--views is {self.views}; use {MOST_VIEWS:,} or less")
        if self.views is not None and self.augment is None:
            raise UsageError(
                f"--views is {self.views}, and nothing draws them; say what does, such as "
                f"--augment 'jitter(2)'"
            )
        if self.views is not None:
            return
        for name, given in (
            ("--augment", self.augment is not None),
            ("--no-clean", not self.clean),
            ("--data-seed", self.data_seed is not None),
        ):
            if given:
                raise UsageError(
                    f"{name} is about views, and none are asked for; say how many to draw of each "
                    f"input, such as --views 3, or leave it out"
                )


@dataclass(frozen=True, kw_only=True)
class DumpOptions(ViewOptions, LabelOptions, SourceOptions, TextOptions):
    """Run the teacher over the data once and store its raw logits."""

    teacher: Teachers = option(
        "A checkpoint of `softlabels fit`, a TorchScript archive, a .pt2 program, an ONNX file, "
        "a state dict with --model, a folder of save_pretrained, timm:NAME, torchvision:NAME, "
        "hf:ORG/NAME, or package.module:factory. Said again for each of several teachers, which "
        "get the same rows in one pass, and a dump each, OUT/NAME."
    )
    data: Data | None = option(
        "digits, a file or folder of data, or a Hub id. Default: the checkpoint's training data.",
        None,
    )
    name: Names = option(
        "Name of the teacher in records; of several teachers, said again for each, in their order. "
        "Default: its file's name without the ending.",
        (),
    )
    out: str | None = option(
        "The dump's folder, or of several teachers the one that holds theirs. Default: "
        "data/DATASET-TEACHER, or data/DATASET/TEACHER.",
        None,
    )
    resume: bool = option("Go on with an unfinished dump; redo damaged shards of any dump.", False)
    check: Literal["full", "size"] = option(
        "How --resume checks finished shards: full hashes them, size compares sizes.",
        "full",
    )
    engine: Literal["local", "ray"] = option(
        "Where shards run: here (under torchrun, on every rank), or on a Ray cluster.", "local"
    )
    model: str | None = option(
        "The model of a bare state dict, such as mlp:1200x1200 or timm:resnet50.", None
    )
    weights: str | None = option(
        "A file with the weights of a teacher by name, such as timm:resnet50.", None
    )
    key: str | None = option(
        "Which weights of a file that holds several, such as state_dict_ema.", None
    )
    logits: str | None = option(
        "Which tensor of an ONNX graph holds the logits; one inside it may be named.", None
    )
    task: Literal["classification", "multilabel"] = option(
        "multilabel: each class is a label of its own, with the soft target sigmoid(z / T).",
        "classification",
    )
    batch_size: CountOrAuto = option(
        "Rows in a forward pass. auto finds as many as fit and gain, and takes fewer where memory "
        "runs out.",
        256,
    )
    allow_batch_dependence: bool = option(
        "Accept a teacher whose answer to a row depends on the rest of its batch.",
        False,
        flag="--allow-batch-dependence",
    )
    outputs: Literal["auto", "logits", "binary"] = option(
        "logits accepts numbers from 0 to 1, and what looks like probabilities times a constant; "
        "binary takes one logit z a row as two classes, (0, z), as data of two classes do.",
        "auto",
    )
    shard_rows: Count | None = option(
        "Source rows in a shard, each with all its views. Default: about 128 MiB.", None
    )
    codec: str = option(
        "dense stores all logits as --dtype; int8 one byte a class, its error measured on a pilot.",
        "dense",
    )
    allow_codec_error: bool = option(
        "Go on if a shard's error is more than twice the pilot's.",
        False,
        flag="--allow-codec-error",
    )
    dtype: Literal["float16", "float32"] = option(
        "Stored type of a logit, or of the scale and offset of int8.", "float16"
    )
    store_inputs: str = option(
        "none; original also stores the inputs, so that the dump stands alone; resized(256) stores "
        "pictures after resize(256), as JPEGs of quality 95, resized(256, png) without loss.",
        "none",
    )
    on_error: Literal["stop", "skip"] = option(
        "What to do with an input that can't be read; skip records it.", "stop"
    )
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
    precision: Literal["float32", "bf16", "tf32", "fp16"] = option(
        "Precision of the teacher; tf32 and fp16 on CUDA.", "float32"
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = option(
        "How pictures lie in the teacher's memory. auto: channels_last on CUDA for convolutional "
        "nets in less than float32, or what a dump that is there began with.",
        "auto",
    )
    compile: bool = option("Compile the teacher with torch.compile.", False)
    workers: Count | None = option(
        "Threads that decode pictures. Default: the number of cores.", None
    )
    trust_pickle: bool = option("Load a teacher's file even if it could run code.", False)
    version: str | None = option(
        "Version of a callable's answers, by which it is known, beside its name.",
        None,
        only_python=True,
    )

    by_name: ClassVar[bool] = False  # whether the teachers were given as a mapping

    def __post_init__(self, progress: Progress) -> None:
        if isinstance(self.teacher, Mapping):
            if self.name:
                raise UsageError("the keys of teacher= are the names; leave name= out")
            object.__setattr__(self, "by_name", True)
            object.__setattr__(self, "name", tuple(self.teacher))
            object.__setattr__(self, "teacher", tuple(self.teacher.values()))
        super().__post_init__(progress)

    @property
    def each(self) -> "list[DumpOptions]":
        """The same for each teacher alone."""
        teachers: Any = self.teacher  # a tuple, once it is checked
        return [
            replace(self, teacher=(teacher,), name=tuple(self.name[place : place + 1]))
            for place, teacher in enumerate(teachers)
        ]

    @property
    def several(self) -> bool:
        """Whether each teacher gets a dump in a folder of its own in OUT; of a mapping one does,
        too."""
        return self.by_name or len(self.each) > 1

    @property
    def the_teacher(self) -> Any:
        """The only one."""
        teachers: Any = self.teacher
        (teacher,) = teachers
        return teacher

    @property
    def the_name(self) -> str | None:
        """What the only one is called; None for what its file says."""
        return next(iter(self.name), None)

    def check_together(self) -> None:
        self._check_teachers()
        self.check_views()
        self.check_labels(self.label_column)
        if self.outputs == "binary" and self.task == "multilabel":
            raise UsageError(
                "--outputs binary is for one logit of two classes, and --task multilabel for one "
                "of each label; leave one of them out"
            )
        if self.batch_size == "auto" and self.allow_batch_dependence:
            raise UsageError(
                "--batch-size is auto, and --allow-batch-dependence is about a teacher whose "
                "answers depend on it: give a number, which the plan then holds"
            )

    def _check_teachers(self) -> None:
        teachers: Any = self.teacher
        count = len(teachers)
        if not count:
            raise UsageError("--teacher is empty; give one teacher, or several")
        if len(self.name) not in (0, count):
            raise UsageError(
                f"--name is given {len(self.name)} times, for {count} "
                f"{'teacher' if count == 1 else 'teachers'}: name each of them, in their order, or "
                f"none"
            )
        for name in self.name:
            if not name.isprintable():
                raise UsageError(f"--name is {name!r}; write a name that can be read")
        given = {name: getattr(self, name) for name in OF_ONE}
        for name, value in given.items() if count > 1 else ():
            if value is not None:
                raise UsageError(
                    f"--{name} is {value!r}, which is about one teacher, and {count} are given: "
                    f"dump that one alone, beside the others, with --out OUT/NAME"
                )


@dataclass(frozen=True, kw_only=True)
class PlanOptions(DumpOptions):
    """Show what a dump would be. Takes the options of the dump."""
