"""The options of `softlabels dump` and `plan`."""

from dataclasses import dataclass
from typing import Literal

from softlabels.errors import UsageError
from softlabels.options.option import Count, option
from softlabels.options.source import SourceOptions


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
    check: Literal["full", "size"] = option(
        "How --resume looks at finished shards. full reads each and compares its SHA-256.",
        "full",
    )
    engine: Literal["local", "ray"] = option(
        "Who runs the shards. Under torchrun, local is every rank.", "local"
    )
    model: str | None = option("The model that a bare state dict belongs to.", None)
    weights: str | None = option(
        "Which weights of a file that holds several: the way to them, such as state_dict_ema.", None
    )
    batch_size: Count = option("Rows in a forward pass.", 256)
    allow_batch_dependence: bool = option(
        "Take a teacher whose answers to a row depend on the rows beside it, in this batch size.",
        False,
        flag="--allow-batch-dependence",
    )
    outputs: Literal["auto", "logits"] = option(
        "logits: take for logits what lies from 0 to 1, or looks like probabilities times a "
        "constant.",
        "auto",
    )
    shard_rows: Count | None = option("Rows in a shard. Default: about 128 MiB.", None)
    codec: str = option(
        "How logits are stored. dense: all, as --dtype. int8: a byte a class, with a scale and an "
        "offset a row; its error is measured first, on a pilot.",
        "dense",
    )
    allow_codec_error: bool = option(
        "Go on where a shard's error is more than twice what the pilot measured.",
        False,
        flag="--allow-codec-error",
    )
    dtype: Literal["float16", "float32"] = option(
        "How a logit is stored, or the scale and offset of int8.", "float16"
    )
    store_inputs: Literal["none", "original"] = option(
        "original: store the inputs too, as they are, so that the dump stands alone.", "none"
    )
    on_error: Literal["stop", "skip"] = option(
        "What to do with an input that can't be read.", "stop"
    )
    device: str = option("auto, cpu, cuda, cuda:1 or mps.", "auto")
    precision: Literal["float32", "bf16", "tf32", "fp16"] = option(
        "The teacher's matrix work; tf32 and fp16 on CUDA.", "float32"
    )
    workers: Count = option("Threads that read and decode ahead.", 2)
    trust_pickle: bool = option("Load a teacher's file even though it could run code.", False)

    def check_together(self) -> None:
        if self.name is not None and not self.name.isprintable():
            raise UsageError(f"--name is {self.name!r}; write a name that can be read")


@dataclass(frozen=True, kw_only=True)
class PlanOptions(DumpOptions):
    """Show what a dump would be. Takes the options of the dump."""
