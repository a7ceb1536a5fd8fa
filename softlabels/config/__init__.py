"""Each command's options: the only place where a name, a default and its help are written.

The command line and the Python verbs are both made from these frozen dataclasses. They are read
at the front door and turned into objects there; nothing below sees them.
"""

import math
from dataclasses import dataclass

from softlabels.config.options import (
    Options,
    check_fraction,
    check_one_of,
    check_positive,
    check_seed,
    check_whole,
    option,
)
from softlabels.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """Where rows come from and which columns matter."""

    split: str = option("Which split of the data.", "train")
    revision: str | None = option("A Hub dataset's revision (branch, tag or commit).", None)
    input_column: str | None = option(
        "Column that the model sees; several number columns joined by commas. "
        "Default: the image, or the fixed-length numbers.",
        None,
    )
    label_column: str | None = option(
        "Column of the hard label. Default: the ClassLabel, or a column named label.", None
    )
    id_column: str | None = option(
        "Column that names each row, whole numbers or text. Default: the row's number.", None
    )
    preprocess: str | None = option(
        "What turns an input into numbers, such as 'rgb|resize(256)|scale(255)'.", None
    )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """How a model is trained, whatever the loss."""

    epochs: int = option("Passes over the training rows.", 20)
    batch_size: int = option("Rows in a step.", 256)
    lr: float = option("Peak learning rate of AdamW; warm-up, then a cosine down to 0.", 1e-3)
    warmup: float = option("Fraction of all steps in which the learning rate rises.", 0.02)
    weight_decay: float = option("AdamW's weight decay.", 0.0)
    dropout: float = option("Dropout on hidden units while training.", 0.0)
    input_dropout: float = option("Dropout on inputs while training.", 0.0)
    max_norm: float | None = option(
        "Upper limit of the norm of the weights coming into each hidden unit.", None
    )
    rows: int | None = option(
        "Train on this many rows only, drawn evenly over the classes by the seed.", None
    )
    holdout: float = option(
        "Fraction of the rows kept out of training to choose the best epoch, by their labels or, "
        "where few have one, by the KL with the teacher; 0 keeps the last.",
        0.1,
    )
    patience: int | None = option(
        "Stop after this many epochs without a better held-out score.", None
    )
    seed: int = option("Fixes initial weights, dropout, order and hold-out.", 0)
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
    precision: str = option("float32, or for faster matrix work bf16, or tf32 (CUDA).", "float32")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "epochs", "batch_size", at_least=1)
        check_whole(self, "rows", "patience", at_least=1)
        check_positive(self, "lr", "max_norm")
        check_fraction(self, "dropout", "input_dropout", "holdout", "warmup", below_one=True)
        if not 0 <= self.weight_decay < math.inf:
            raise UsageError(f"--weight-decay is {self.weight_decay}; it must be 0 or more")
        check_seed(self)
        if self.precision == "fp16":
            raise UsageError("--precision fp16 is for dumps; train in bf16 or float32")


@dataclass(frozen=True, kw_only=True)
class FitOptions(TrainingOptions, SourceOptions):
    """Train a model from hard labels: a teacher, or a baseline for students."""

    data: str = option("digits (comes along), a file or folder of data, or a Hub id.")
    model: str = option(
        "linear, mlp:1200x1200, cnn:32x64, or package.module:factory.", "mlp:1200x1200"
    )
    jitter: int = option("Shift images by up to this many pixels each way, drawn by the seed.", 0)
    out: str = option("The checkpoint to write.", "t.pt")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "jitter", at_least=0)


@dataclass(frozen=True, kw_only=True)
class DumpOptions(SourceOptions):
    """Run the teacher over the data once and store its raw logits."""

    teacher: str = option(
        "A checkpoint of `softlabels fit`, a TorchScript archive, a .pt2 program, or a state "
        "dict (.pt or .safetensors, with --model)."
    )
    data: str | None = option(
        "digits, a file or folder of data, or a Hub id. "
        "Default: the data that the checkpoint was trained on.",
        None,
    )
    name: str | None = option(
        "What records and the default folder call the teacher. Default: its file's name, without "
        "the ending.",
        None,
    )
    out: str | None = option("The dump's folder. Default: data/DATASET-TEACHER.", None)
    resume: bool = option("Go on with an unfinished dump; redo what is damaged in any.", False)
    check: str = option(
        "full, or size: how --resume looks at finished shards. full reads each and compares its "
        "SHA-256.",
        "full",
    )
    engine: str = option(
        "local, or ray: who runs the shards. Under torchrun, local is every rank.", "local"
    )
    model: str | None = option("The model that a bare state dict belongs to.", None)
    weights: str | None = option(
        "Which weights of a file that holds several: the way to them, such as state_dict_ema.", None
    )
    batch_size: int = option("Rows in a forward pass.", 256)
    allow_batch_dependence: bool = option(
        "Take a teacher whose answers to a row depend on the rows beside it, in this batch size.",
        False,
        flag="--allow-batch-dependence",
    )
    outputs: str = option(
        "auto, or logits: take for logits what lies from 0 to 1, or looks like probabilities times "
        "a constant.",
        "auto",
    )
    shard_rows: int | None = option("Rows in a shard. Default: about 128 MiB.", None)
    dtype: str = option("float16 or float32: how a logit is stored.", "float16")
    with_inputs: bool = option("Store the inputs too, so that the dump stands alone.", False)
    on_error: str = option("stop, or skip: what to do with an input that can't be read.", "stop")
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
    precision: str = option(
        "float32, bf16, or on CUDA tf32 or fp16: the teacher's matrix work.", "float32"
    )
    workers: int = option("Threads that read and decode ahead.", 2)
    trust_pickle: bool = option("Load a teacher's file even though it could run code.", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "batch_size", "shard_rows", "workers", at_least=1)
        if (self.name is not None and not self.name.isprintable()) or self.name == "":
            raise UsageError(f"--name is {self.name!r}; write a name that can be read")
        check_one_of(self, "dtype", "float16", "float32")
        check_one_of(self, "on_error", "stop", "skip")
        check_one_of(self, "outputs", "auto", "logits")
        check_one_of(self, "check", "full", "size")
        check_one_of(self, "engine", "local", "ray")


@dataclass(frozen=True, kw_only=True)
class PlanOptions(DumpOptions):
    """Say what a dump would be; the options are those of the dump."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions):
    """Train a student from a stored dump; no teacher in memory."""

    dump: str | None = option(
        "The dump's folder. Default: the newest complete one under data/.", None, positional=True
    )
    T: float = option(
        "Temperature of teacher and student in the loss.", 4.0, flag="--T -T --temperature"
    )
    alpha: float = option("Weight of the soft targets; 1 − alpha goes to the hard labels.", 0.9)
    student: str = option(
        "linear, mlp:800x800, cnn:32x64, or package.module:factory.", "mlp:800x800"
    )
    source: str | None = option(
        "Where the inputs are, if not where the dump says: a file, folder or Hub id.", None
    )
    preprocess: str | None = option("The student's preprocessing. Default: the teacher's.", None)
    keep: str = option(
        "auto, gpu or disk: where logits are read from. auto: the GPU if they fit, else disk, "
        "which is mapped into memory.",
        "auto",
    )
    cache: bool = option(
        "Keep copies of remote dumps on this disk (see softlabels cache).",
        True,
        flag="--cache/--no-cache",
    )
    streaming: bool = option(
        "Read row groups as they are needed and keep none, wherever the dump lies.", False
    )
    shards: str | None = option("Only these shards of the dump, such as 0-9 or 0-3,7.", None)
    shuffle: str = option(
        "full, or 'blocks(64, 512)': 512 random blocks of 64 neighbours mixed at a time, for dumps "
        "larger than memory. Streaming mixes 16 row groups.",
        "full",
    )
    out: str = option("The checkpoint to write.", "s.pt")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self, "alpha")
        check_one_of(self, "keep", "auto", "gpu", "disk")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(SourceOptions):
    """Measure a checkpoint on labelled data, and against a dump."""

    checkpoint: str = option("A checkpoint of `softlabels fit` or `train`.", positional=True)
    data: str | None = option("Default: the data that the checkpoint was trained on.", None)
    split: str = option("Which split of the data.", "test")
    against: str | None = option(
        "A dump's folder: also measure agreement with its teacher, on the dump's rows.", None
    )
    model: str | None = option("Confirms the factory that the checkpoint names.", None)
    batch_size: int = option("Rows in a forward pass.", 1024)
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "batch_size", at_least=1)


@dataclass(frozen=True, kw_only=True)
class InfoOptions(Options):
    """Say what a dump is."""

    dump: str = option("The dump's folder.", positional=True)


@dataclass(frozen=True, kw_only=True)
class CacheOptions(Options):
    """List the copies of remote dumps on this disk, or clear them."""

    clear: bool = option("Remove them all. They are fetched again where they are needed.", False)


@dataclass(frozen=True, kw_only=True)
class DemoOptions(Options):
    """All three stages on the embedded digits, in under a minute on two cores."""

    out: str = option("Folder for what it makes.", "data/demo")
    seeds: int = option("Students trained for each row of the table.", 5)
    rows: int = option("Labelled examples that a student sees.", 150)
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "seeds", "rows", at_least=1)
