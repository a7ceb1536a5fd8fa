"""The options of `softlabels export`."""

from dataclasses import dataclass
from typing import Literal

from softlabels.options.option import Options, option


@dataclass(frozen=True, kw_only=True)
class ExportOptions(Options):
    """Write a trained model for other programs."""

    checkpoint: str = option("A checkpoint of `softlabels fit` or `train`.", positional=True)
    to: Literal["onnx", "pt2", "hf"] = option(
        "A graph of ONNX, a program of torch.export, or, of a model of transformers, a folder of "
        "save_pretrained."
    )
    out: str | None = option(
        "The file or folder to write. Default: the checkpoint's name with .onnx, .pt2 or -hf.", None
    )
    model: str | None = option(
        "The factory that the checkpoint names, to confirm that its code may run; of a module that "
        "was in memory, one that builds it.",
        None,
    )
