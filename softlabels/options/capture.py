"""The options of `softlabels dump` and `plan`."""

from dataclasses import dataclass
from typing import Literal

from softlabels.errors import UsageError
from softlabels.options.objects import Data, Teacher
from softlabels.options.option import Count, CountOrAuto, Natural, Options, option
from softlabels.options.source import LabelOptions, SourceOptions, TextOptions

MOST_VIEWS = 9_999


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

    teacher: Teacher = option(
        "A checkpoint of `softlabels fit`, a TorchScript archive, a .pt2 program, an ONNX file, "
        "a state dict with --model, a folder of save_pretrained, timm:NAME, torchvision:NAME, "
        "hf:ORG/NAME, or package.module:factory."
    )
    data: Data | None = option(
        "digits, a file or folder of data, or a Hub id. Default: the checkpoint's training data.",
        None,
    )
    name: str | None = option(
        "Name of the teacher in records. Default: its file's name without the ending.",
        None,
    )
    out: str | None = option("The dump's folder. Default: data/DATASET-TEACHER.", None)
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

    def check_together(self) -> None:
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
        if self.name is not None and not self.name.isprintable():
            raise UsageError(f"--name is {self.name!r}; write a name that can be read")


@dataclass(frozen=True, kw_only=True)
class PlanOptions(DumpOptions):
    """Show what a dump would be. Takes the options of the dump."""
