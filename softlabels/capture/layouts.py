"""How a teacher is run beside its precision: the memory format of pictures, and whether it is
compiled. Both move its answers by rounding, so both stand in the plan."""

from dataclasses import dataclass

import torch
from torch import nn

from softlabels.errors import StoreError, UsageError
from softlabels.models.objects import CALLABLE, OBJECTS
from softlabels.store.folder import Folder
from softlabels.store.ledger import Ledger
from softlabels.store.records import Plan
from softlabels.teachers import Teacher

CHANNELS_LAST = "channels_last"
# float32 without TF32 runs on no tensor cores, which are what wants channels last
GAINS = ("tf32", "bf16", "fp16")
AS_THEY_ARE = ("onnx", "exported", CALLABLE)  # what lays out its numbers by itself, or is not known
NOT_COMPILED = ("onnx", "torchscript", CALLABLE)


@dataclass(frozen=True)
class Layout:
    """Options of these names, as they were asked for."""

    memory_format: str
    precision: str
    compile: bool


def lay_out(
    teacher: Teacher, layout: Layout, shape: list[int], device: torch.device, folder: Folder
) -> None:
    """Give a teacher its pictures as was asked for, and compile it. shape: of an input, empty of
    tokens; folder: where a dump may be, whose memory format `auto` keeps.

    Raises UsageError where that is not possible with this teacher, or these inputs.
    """
    teacher.lay_out(_is_last(teacher, layout, shape, device, folder))
    if not layout.compile:
        return
    if teacher.kind in NOT_COMPILED:
        raise UsageError(
            f"--compile is for modules of torch, and {teacher.title} is {_what(teacher)}, which "
            f"torch.compile can't take: leave it out"
        )
    teacher.compile()


def _is_last(
    teacher: Teacher, layout: Layout, shape: list[int], device: torch.device, folder: Folder
) -> bool:
    if layout.memory_format == CHANNELS_LAST:
        if len(shape) != 3:
            raise UsageError(
                f"--memory-format {CHANNELS_LAST} is about pictures [C, H, W], and these inputs "
                f"are {shape or 'none'}: leave it out"
            )
        if teacher.kind in AS_THEY_ARE:
            raise UsageError(
                f"--memory-format {CHANNELS_LAST} is for modules of torch, and {teacher.title} is "
                f"{_what(teacher)}: leave it out"
            )
        return True
    if layout.memory_format != "auto" or len(shape) != 3 or teacher.kind in AS_THEY_ARE:
        return False
    if not has_convolutions(teacher.module):
        return False
    earlier = earlier_plan(folder)
    if earlier is not None:
        return earlier.memory_format == CHANNELS_LAST
    fast = device.type == "cuda" and layout.precision in GAINS
    # a module in memory is not changed, and its weights would be laid out anew for each batch
    return fast and teacher.kind not in OBJECTS


def earlier_plan(folder: Folder) -> Plan | None:
    """None also where the folder can't be read, such as a repository that is not made yet: a dump
    is held against the plan that is there before it writes anything."""
    try:
        return Ledger(folder).earlier_plan()  # of its own: the dump's ledger keeps what it has read
    except StoreError:
        return None


def has_convolutions(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) for part in module.modules())


def _what(teacher: Teacher) -> str:
    return {
        "onnx": "a graph of ONNX",
        "torchscript": "a program of TorchScript",
        "exported": "a .pt2 program",
        CALLABLE: "a callable",
    }[teacher.kind]
