"""The options of `softlabels fit`, `train` and `eval`."""

import os
from dataclasses import dataclass
from typing import Literal

from softlabels.errors import UsageError
from softlabels.options.mixing import MixOptions
from softlabels.options.objects import (
    Data,
    Dumps,
    Measured,
    Preprocessing,
    Trained,
    weights_by_name,
)
from softlabels.options.option import (
    BelowOne,
    Between,
    Count,
    CountOrAll,
    Fraction,
    Natural,
    NotNegative,
    Options,
    Positive,
    TemperatureOrSchedule,
    option,
)
from softlabels.options.source import SourceOptions, TextOptions


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """How a model is trained, whatever the loss."""

    weights: str | None = option(
        "What the model starts from: a file of weights, or pretrained, for those of its library or "
        "folder. Default: random weights.",
        None,
    )
    epochs: Count = option("Passes over the training rows.", 20)
    batch_size: Count = option("Rows in a batch.", 256)
    lr: Positive = option("Peak learning rate of AdamW: linear warm-up, then a cosine to 0.", 1e-3)
    warmup: BelowOne = option("Fraction of all steps for the warm-up.", 0.02)
    weight_decay: NotNegative = option("Weight decay of AdamW.", 0.0)
    dropout: BelowOne = option("Dropout on hidden units.", 0.0)
    input_dropout: BelowOne = option("Dropout on inputs.", 0.0)
    max_norm: Positive | None = option("Largest norm of the weights into each hidden unit.", None)
    clip_norm: Positive | None = option(
        "Largest norm of all gradients together; larger ones are scaled down to it.", None
    )
    accumulate: Count = option(
        "Batches in a step: as if --batch-size were so many times larger, in less memory.", 1
    )
    ema: Between | None = option(
        "Score and save an average of the weights, of which each step keeps this share, such as "
        "0.999.",
        None,
    )
    augment: str | None = option(
        "Change pictures at random in each epoch: 'random_resized_crop(224)|flip', "
        "'random_crop(32, 4)|flip|color_jitter(0.4, 0.4, 0.4)|grey(0.1)|erase(0.25)', …; drawn by "
        "--data-seed.",
        None,
    )
    rows: Count | None = option(
        "Train on this many rows only (of views: inputs), drawn evenly over the classes by "
        "--data-seed.",
        None,
    )
    holdout: BelowOne = option(
        "Fraction of the inputs, with all their views, held out to choose the best epoch; 0 keeps "
        "the last epoch.",
        0.1,
    )
    patience: Count | None = option(
        "Stop after this many epochs without a better held-out score.", None
    )
    seed: Natural = option("Seed of initial weights and dropout.", 0)
    data_seed: Natural = option("Seed of the order of rows, the hold-out and draws.", 0)
    resume: bool = option(
        "Go on with an unfinished training, from the state beside --out; else begin anew.", False
    )
    log_with: tuple[str, ...] = option(
        "A tracker that accelerate knows, such as tensorboard or wandb; may be repeated.",
        (),
    )
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
    precision: Literal["float32", "bf16", "fp16", "tf32"] = option(
        "Precision of matrix products; bf16 is faster, fp16 (with a loss scale) on GPUs without "
        "bf16, and tf32 on CUDA.",
        "float32",
    )
    compile: bool = option("Compile the model with torch.compile.", False)

    def check_together(self) -> None:
        if self.patience is not None and not self.holdout:
            raise UsageError(
                f"--patience is {self.patience}, which counts epochs without a better held-out "
                f"score, and --holdout is 0; hold rows out, or leave out --patience"
            )


@dataclass(frozen=True, kw_only=True)
class FitOptions(TrainingOptions, SourceOptions, TextOptions):
    """Train a model from hard labels: a teacher, or a baseline for students."""

    data: Data = option("digits (embedded), a file or folder of data, or a Hub id.")
    model: Trained = option(
        "linear, mlp:1200x1200, cnn:32x64, timm:NAME, torchvision:NAME, hf:FOLDER, or "
        "package.module:factory.",
        "mlp:1200x1200",
    )
    task: Literal["classification", "multilabel"] = option(
        "multilabel: a row may have several labels, in a column of lists.", "classification"
    )
    out: str = option("The checkpoint to write.", "t.pt")


@dataclass(frozen=True, kw_only=True)
class TrainOptions(MixOptions, TrainingOptions, TextOptions):
    """Train a student from stored dumps; no teacher in memory."""

    dump: Dumps = option(
        "A dump: folder, address or ORG/NAME. Several, of teachers over the same rows, with --mix. "
        "Default: the newest complete one under data/.",
        (),
        positional=True,
    )
    T: TemperatureOrSchedule = option(
        "Temperature of teacher and student in the loss; or a schedule from the first step to the "
        "last: 'cosine(20, 2)', 'linear(20, 2)' or 'exponential(20, 2)'; or auto: the best of 1, "
        "2, 4, 8 and 16 on the held-out rows, after training with each.",
        4.0,
        flag="--T -T --temperature",
    )
    alpha: Fraction = option("Weight of the soft targets; 1 − alpha goes to the hard labels.", 0.9)
    loss: str = option(
        "What compares student and soft targets: kd, reverse_kl, 'js(0.5)', mse, 'dkd(1, 8)' or "
        "'dist(1, 1)'; 'standardise|kd', or another, compares standardised logits.",
        "kd",
    )
    student: Trained = option(
        "linear, mlp:800x800, cnn:32x64, timm:NAME, torchvision:NAME, hf:FOLDER, or "
        "package.module:factory.",
        "mlp:800x800",
    )
    views: CountOrAll | None = option(
        "How many drawn views of the dump to train on, beside the clean one where it has it; an "
        "epoch sees one, the next epoch the next. all: each epoch sees every view. Default: as "
        "many as there are, one an epoch.",
        None,
    )
    source: Data | None = option(
        "Where the inputs are, if not where the dump says: a file, folder or Hub id.", None
    )
    preprocess: Preprocessing | None = option(
        "The student's preprocessing. Default: the teacher's.", None
    )
    keep: Literal["auto", "gpu", "disk"] = option(
        "Where to read logits from: gpu, disk (memory-mapped), or auto: gpu if they fit.",
        "auto",
    )
    cache: bool = option(
        "Keep copies of remote dumps on this disk (see softlabels cache).",
        True,
        flag="--cache/--no-cache",
    )
    streaming: bool = option("Read row groups on demand and write nothing to disk.", False)
    shards: str | None = option("Use only these shards, such as 0-9 or 0-3,7.", None)
    shuffle: str = option(
        "full, or 'blocks(64, 512)' for dumps larger than memory: mixes 512 blocks of 64 rows.",
        "full",
    )
    out: str = option("The checkpoint to write.", "s.pt")

    def check_together(self) -> None:
        super().check_together()
        # beside --mix, numbers are no file: so the dumps' weights may be called --weights, too
        if self.mix is not None and self.weights is not None and are_shares(self.weights):
            if self.mix_weights is not None:
                raise UsageError(
                    f"--weights is {self.weights!r} and --mix-weights {self.mix_weights!r}, both "
                    f"weights of dumps; give one"
                )
            object.__setattr__(self, "mix_weights", weights_by_name("--weights", self.weights))
            object.__setattr__(self, "weights", None)
        self.check_mix("dump", self.dump)
        if isinstance(self.mix_weights, str) and self.mix_weights == "fit" and not self.holdout:
            raise UsageError(
                "--mix-weights fit fits them on the labels of held-out rows, and --holdout is 0; "
                "hold rows out, or give numbers such as --mix-weights 0.7,0.3"
            )


def are_shares(text: str) -> bool:
    """Whether it is a text of numbers, which may have names, or `fit`, and no file's name."""
    if os.path.exists(text):
        return False
    try:
        return bool([float(part.rpartition("=")[2]) for part in text.split(",")])
    except ValueError:
        return text == "fit"


@dataclass(frozen=True, kw_only=True)
class EvalOptions(MixOptions, SourceOptions, TextOptions):
    """Measure a checkpoint on labelled data, and against a dump."""

    checkpoint: Measured = option(
        "A checkpoint of `softlabels fit` or `train`, or a model with --data, such as m.onnx.",
        positional=True,
    )
    data: Data | None = option(
        "Data to measure on. Default: the data that the checkpoint was trained on.", None
    )
    split: str | None = option(  # type: ignore[assignment]
        "Which split of the data. Default: test, or all of a file; with --holdout that of "
        "training.",
        None,
    )
    holdout: bool = option(
        "Measure on the rows that the training of the checkpoint held out.", False, flag="--holdout"
    )
    per_class: bool = option(
        "Also measure class by class: rows, recall, precision, what a class is often taken for; of "
        "several labels a row their average precision.",
        False,
        flag="--per-class",
    )
    map_labels: str | None = option(
        "A JSON or CSV file from classes of the data to the checkpoint's, where names differ; or "
        "by-number.",
        None,
    )
    task: Literal["classification", "multilabel"] | None = option(
        "multilabel: rows may have several labels. Default: what the checkpoint was trained for.",
        None,
    )
    labels: bool = option(
        "Measure on the data's labels; --no-labels measures --against a dump alone.",
        True,
        flag="--labels/--no-labels",
    )
    against: Dumps = option(
        "A dump: also measure agreement and KL with its teacher, on its rows. Said again for each "
        "of several teachers, with --mix, it is their mixture, and each of them.",
        (),
    )
    model: str | None = option(
        "The factory that the checkpoint names, to confirm that its code may run; of a module that "
        "was in memory, one that builds it.",
        None,
    )
    logits: str | None = option(
        "Which tensor of an ONNX graph holds the logits; one inside it may be named.", None
    )
    batch_size: Count | None = option(
        "Rows in a forward pass. Default: 1024; of texts and tokens 256.", None
    )
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")

    def check_together(self) -> None:
        self.check_mix("--against", self.against)
        if self.mix is not None and not self.against:
            raise UsageError(
                f"--mix is {self.mix!r}, and --against names no dump; name two or more, or a "
                f"folder that holds them, or leave out --mix"
            )
        if not self.labels and not self.against:
            raise UsageError(
                "--no-labels leaves nothing to measure on but a dump; name one with --against"
            )
        for name, value in (
            ("--holdout", self.holdout),
            ("--per-class", self.per_class),
            ("--map-labels", self.map_labels is not None),
        ):
            if value and not self.labels:
                raise UsageError(f"{name} is about labels, and --no-labels measures on none")
