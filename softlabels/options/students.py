"""The options of `softlabels fit`, `train` and `eval`."""

from dataclasses import dataclass
from typing import Literal

from softlabels.options.option import (
    BelowOne,
    Count,
    Fraction,
    Natural,
    NotNegative,
    Options,
    Positive,
    option,
)
from softlabels.options.source import SourceOptions


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """How a model is trained, whatever the loss."""

    epochs: Count = option("Passes over the training rows.", 20)
    batch_size: Count = option("Rows in a step.", 256)
    lr: Positive = option("Peak learning rate of AdamW; warm-up, then a cosine down to 0.", 1e-3)
    warmup: BelowOne = option("Fraction of all steps in which the learning rate rises.", 0.02)
    weight_decay: NotNegative = option("AdamW's weight decay.", 0.0)
    dropout: BelowOne = option("Dropout on hidden units while training.", 0.0)
    input_dropout: BelowOne = option("Dropout on inputs while training.", 0.0)
    max_norm: Positive | None = option(
        "Upper limit of the norm of the weights coming into each hidden unit.", None
    )
    rows: Count | None = option(
        "Train on this many rows only, drawn evenly over the classes by --data-seed.", None
    )
    holdout: BelowOne = option(
        "Fraction of the rows kept out of training to choose the best epoch, by their labels or, "
        "where few have one, by the KL with the teacher; 0 keeps the last.",
        0.1,
    )
    patience: Count | None = option(
        "Stop after this many epochs without a better held-out score.", None
    )
    seed: Natural = option("Fixes initial weights and dropout.", 0)
    data_seed: Natural = option("Fixes order, hold-out and draws: which rows are seen when.", 0)
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
    precision: Literal["float32", "bf16", "tf32"] = option(
        "Matrix work: bf16 is faster, and so is tf32, on CUDA.", "float32"
    )


@dataclass(frozen=True, kw_only=True)
class FitOptions(TrainingOptions, SourceOptions):
    """Train a model from hard labels: a teacher, or a baseline for students."""

    data: str = option("digits (comes along), a file or folder of data, or a Hub id.")
    model: str = option(
        "linear, mlp:1200x1200, cnn:32x64, or package.module:factory.", "mlp:1200x1200"
    )
    jitter: Natural = option(
        "Shift images by up to this many pixels each way, drawn by --data-seed.", 0
    )
    out: str = option("The checkpoint to write.", "t.pt")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions):
    """Train a student from a stored dump; no teacher in memory."""

    dump: str | None = option(
        "The dump's folder. Default: the newest complete one under data/.", None, positional=True
    )
    T: Positive = option(
        "Temperature of teacher and student in the loss.", 4.0, flag="--T -T --temperature"
    )
    alpha: Fraction = option("Weight of the soft targets; 1 − alpha goes to the hard labels.", 0.9)
    student: str = option(
        "linear, mlp:800x800, cnn:32x64, or package.module:factory.", "mlp:800x800"
    )
    source: str | None = option(
        "Where the inputs are, if not where the dump says: a file, folder or Hub id.", None
    )
    preprocess: str | None = option("The student's preprocessing. Default: the teacher's.", None)
    keep: Literal["auto", "gpu", "disk"] = option(
        "Where logits are read from. auto: the GPU if they fit, else disk, which is mapped into "
        "memory.",
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
    batch_size: Count = option("Rows in a forward pass.", 1024)
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
