"""The options of `softlabels import`."""

from dataclasses import dataclass
from typing import Literal

from softlabels.errors import UsageError
from softlabels.options.objects import Data
from softlabels.options.option import Count, Positive, option
from softlabels.options.source import LabelOptions, SourceOptions


@dataclass(frozen=True, kw_only=True)
class ImportOptions(LabelOptions, SourceOptions):
    """Make a dump from logits that another program stored."""

    file: str = option(
        "A .npy, .npz or .pt of logits, a folder of .npz, a TinyViT epoch or an FKD folder.",
        positional=True,
    )
    data: Data = option("The data of these logits: digits, a file or folder of data, or a Hub id.")
    ids: str | None = option(
        "Ids in the file's order: .npy, .txt, .csv or .json; TinyViT and FKD: a .json object from "
        "keys to ids. Default: the ids in the file, else the source's order.",
        None,
    )
    out: str | None = option(
        "The dump's folder. Default: data/DATASET-NAME, or data/DATASET-SPLIT-NAME.", None
    )
    resume: bool = option("Go on with an unfinished import; redo damaged shards.", False)
    check: Literal["full", "size"] = option(
        "How to check finished shards: full hashes them, size compares sizes.",
        "full",
    )
    name: str | None = option(
        "Name of the teacher in records. Default: the file's name without its ending.", None
    )
    probabilities: bool = option("The file holds probabilities: store T times their logs.", False)
    task: Literal["classification", "multilabel"] = option(
        "multilabel: each class is a label of its own, with the soft target sigmoid(z / T).",
        "classification",
    )
    outputs: Literal["auto", "logits"] = option(
        "logits accepts numbers from 0 to 1, and what looks like probabilities times a constant.",
        "auto",
    )
    T: Positive = option("Temperature of the probabilities.", 1.0, flag="--T -T --temperature")
    floor: Positive | None = option(
        "Raise smaller probabilities to this. Default: refuse 0, which has no logarithm.", None
    )
    classes: Count | None = option("Number of classes, if neither file nor source tells.", None)
    on_missing: Literal["stop", "skip"] = option(
        "What to do with source rows without logits; skip records them.", "stop"
    )
    shard_rows: Count | None = option("Rows in a shard. Default: about 128 MiB.", None)
    dtype: Literal["float16", "float32"] | None = option(
        "Stored type of a logit. Default: the file's; float32 for probabilities.", None
    )
    store_inputs: Literal["none", "original"] = option(
        "original also stores the inputs, so that the dump stands alone.", "none"
    )

    def check_together(self) -> None:
        self.check_labels(self.label_column)
        if self.probabilities and self.task == "multilabel":
            raise UsageError(
                "--probabilities takes T times the logarithms of a softmax's; those of --task "
                "multilabel are sigmoid(z / T), so that z = T · log(p / (1 − p)): save that, and "
                "leave out --probabilities"
            )
        if self.floor is not None and self.floor >= 1:
            raise UsageError(f"--floor is {self.floor:g}; it must be below 1, such as 1e-7")
        if not self.probabilities and (self.floor is not None or self.T != 1):
            flag = "--T" if self.floor is None else "--floor"
            raise UsageError(
                f"{flag} is about probabilities; add --probabilities, or leave it out: raw logits "
                f"are stored as they are"
            )
