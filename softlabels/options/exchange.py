"""The options of `softlabels import`."""

from dataclasses import dataclass

from softlabels.errors import UsageError
from softlabels.options.option import check_one_of, check_positive, check_whole, option
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
    check: str = option(
        "full, or size: how shards that are there are looked at. full reads each and compares its "
        "SHA-256.",
        "full",
    )
    name: str | None = option(
        "What records call the teacher. Default: the file's name, without its ending.", None
    )
    probabilities: bool = option("The file holds probabilities: store T times their logs.", False)
    outputs: str = option(
        "auto, or logits: take for logits what lies from 0 to 1, or looks like probabilities times "
        "a constant.",
        "auto",
    )
    T: float = option(
        "Temperature at which the probabilities were made.", 1.0, flag="--T -T --temperature"
    )
    floor: float | None = option(
        "Probabilities below this count as this, since 0 has no logarithm. Default: refuse 0.", None
    )
    classes: int | None = option("Classes, where neither file nor source tells.", None)
    on_missing: str = option("stop, or skip: what to do with source rows without logits.", "stop")
    shard_rows: int | None = option("Rows in a shard. Default: about 128 MiB.", None)
    dtype: str | None = option(
        "float16 or float32: how a logit is stored. Default: the file's; float32 for logs.", None
    )
    with_inputs: bool = option("Store the inputs too, so that the dump stands alone.", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "shard_rows", "classes", at_least=1)
        check_positive(self, "T", "floor")
        check_one_of(self, "outputs", "auto", "logits")
        check_one_of(self, "on_missing", "stop", "skip")
        check_one_of(self, "check", "full", "size")
        if self.dtype is not None:
            check_one_of(self, "dtype", "float16", "float32")
        if self.floor is not None and self.floor >= 1:
            raise UsageError(f"--floor is {self.floor:g}; it must be below 1, such as 1e-7")
        if not self.probabilities and (self.floor is not None or self.T != 1):
            flag = "--T" if self.floor is None else "--floor"
            raise UsageError(
                f"{flag} is about probabilities; add --probabilities, or leave it out: raw logits "
                f"are stored as they are"
            )
