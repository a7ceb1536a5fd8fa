"""timm's crop percentage: the one word that stands for others, `crop_pct(0.875, 224, bicubic)`.

The source of the steps is `transforms_imagenet_eval` in timm's data/transforms_factory.py.
"""

import math
from collections.abc import Iterator

from softlabels.errors import UsageError
from softlabels.inputs.pictures import by_kind
from softlabels.inputs.resizing import FILTERS, RESIZERS
from softlabels.spec import Call

MODES = ("center", "squash", "border")


def crop_percentage(call: Call) -> list[Call]:
    """The steps that `crop_pct(share, H[, W][, mode][, filter][, resizer][, fill])` stands for.

    Raises UsageError for arguments that are no such ones.
    """
    numbers, names, fills = by_kind(call)
    modes = [name for name in names if name in MODES]
    filters = tuple(name for name in names if name in FILTERS)
    resizers = tuple(name for name in names if name in RESIZERS)
    mode = modes[0] if modes else "center"
    if unknown := [name for name in names if name not in MODES + FILTERS + RESIZERS]:
        raise UsageError(
            f"--preprocess: {call}: no mode or filter {unknown[0]!r}; use {', '.join(MODES)}, and "
            f"{', '.join(FILTERS)}"
        )
    if not _is_right(numbers) or max(map(len, (modes, filters, resizers, fills))) > 1:
        raise UsageError(
            f"--preprocess: {call}: write a share above 0, one or two sizes, then at most one "
            f"mode, one filter and one resizer, such as crop_pct(0.875, 224, center, bicubic)"
        )
    if (mode == "border") != bool(fills):
        need = "needs a fill, timm's is round(255 * mean)" if mode == "border" else "takes no fill"
        raise UsageError(
            f"--preprocess: {call}: the mode {mode} {need}. Write one for border alone: "
            f"crop_pct(0.95, 224, border, bicubic, (124, 116, 104))"
        )
    share, *sizes = numbers
    return list(
        _steps(share, sizes * 2 if len(sizes) == 1 else sizes, mode, filters + resizers, fills)
    )


def _is_right(numbers: list) -> bool:
    share, *sizes = numbers or [0]
    return type(share) in (int, float) and share > 0 and 1 <= len(sizes) <= 2 and all(
        type(size) is int and size > 0 for size in sizes
    )  # fmt: skip


def _steps(
    share: float, crop: list[int], mode: str, names: tuple[str, ...], fills: list[tuple]
) -> Iterator[Call]:
    whole = [math.floor(size / share) for size in crop]
    square = (crop[0],) if crop[0] == crop[1] else tuple(crop)
    if mode == "squash":
        yield Call("resize", (*whole, *names))
    elif mode == "border":
        yield Call("contain", (*whole, *names))
        yield Call("pad", (*square, *fills))
    elif whole[0] == whole[1]:
        yield Call("resize", (whole[0], *names))
    else:
        yield Call("cover", (*whole, *names))
    if mode != "border" and share > 1:  # timm's CenterCrop adds black
        yield Call("pad", square)
    yield Call("center_crop", square)
