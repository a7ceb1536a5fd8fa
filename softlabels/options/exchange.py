"""The options of `softlabels import`."""

from dataclasses import dataclass
from typing import Literal

from softlabels.errors import UsageError
from softlabels.options.option import Count, Positive, option
from softlabels.options.source import SourceOptions


@dataclass(frozen=True, kw_only=True)
class ImportOptions(SourceOptions):
    """Make a dump from logits that another program stored."""

    file: str = option(
        "A .npy, .npz or .pt of logits, a folder of .npz, a TinyViT epoch or an FKD folder.",
        positional=True,
    )
    data: str = option("What the logits are of: digits, a file or folder of data, or a Hub id.")
    ids: str | None = option(
        "The rows' ids, in the file's order: .npy, .txt, .csv (one a line) or .json (a list). Of "
        "TinyViT and FKD a .json object from their keys to ids. Default: the ids in the file, else "
        "the source's order.",
        None,
    )
    out: str | None = option(
        "The dump's folder. Default: data/DATASET-NAME, of other splits than train "
        "data/DATASET-SPLIT-NAME.",
        None,
    )
    resume: bool = option("Go on with an unfinished import; redo what is damaged in any.", False)
    check: Literal["full", "size"] = option(
        "How shards that are there are looked at. full reads each and compares its SHA-256.",
        "full",
    )
    name: str | None = option(
        "What records call the teacher. Default: the file's name, without its ending.", None
    )
    probabilities: bool = option("The file holds probabilities: store T times their logs.", False)
    outputs: Literal["auto", "logits"] = option(
        "logits: take for logits what lies from 0 to 1, or looks like probabilities times a "
        "constant.",
        "auto",
    )
    T: Positive = option(
        "Temperature at which the probabilities were made.", 1.0, flag="--T -T --temperature"
    )
    floor: Positive | None = option(
        "Probabilities below this count as this, since 0 has no logarithm. Default: refuse 0.", None
    )
    classes: Count | None = option("Classes, where neither file nor source tells.", None)
    on_missing: Literal["stop", "skip"] = option(
        "What to do with source rows without logits.", "stop"
    )
    shard_rows: Count | None = option("Rows in a shard. Default: about 128 MiB.", None)
    dtype: Literal["float16", "float32"] | None = option(
        "How a logit is stored. Default: the file's; float32 for logs.", None
    )
    store_inputs: Literal["none", "original"] = option(
        "original: store the inputs too, as they are, so that the dump stands alone.", "none"
    )

    def check_together(self) -> None:
        if self.floor is not None and self.floor >= 1:
            raise UsageError(f"--floor is {self.floor:g}; it must be below 1, such as 1e-7")
        if not self.probabilities and (self.floor is not None or self.T != 1):
            flag = "--T" if self.floor is None else "--floor"
            raise UsageError(
                f"{flag} is about probabilities; add --probabilities, or leave it out: raw logits "
                f"are stored as they are"
            )
