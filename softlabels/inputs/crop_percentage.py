"""timm's crop percentage: the one word that stands for others, `crop_pct(0.875, 224, bicubic)`.

The source of the steps is `transforms_imagenet_eval` in timm's data/transforms_factory.py.
"""

import math
from collections.abc import Iterator

from softlabels.errors import UsageError
from softlabels.inputs.pictures import FILTERS, by_kind
from softlabels.spec import Call

MODES = ("center", "squash", "border")


def crop_percentage(call: Call) -> list[Call]:
    """The steps that `crop_pct(share, H[, W][, mode][, filter][, fill])` stands for.

    Raises UsageError for arguments that are no such ones.
    """
    numbers, names, fills = by_kind(call)
    modes = [name for name in names if name in MODES]
    filters = tuple(name for name in names if name in FILTERS)
    mode = modes[0] if modes else "center"
    if unknown := [name for name in names if name not in MODES + FILTERS]:
        raise UsageError(
            f"--preprocess: {call}: no mode or filter {unknown[0]!r}; use {', '.join(MODES)}, and "
            f"{', '.join(FILTERS)}"
        )
    if not _is_right(numbers) or len(modes) > 1 or len(filters) > 1 or len(fills) > 1:
        raise UsageError(
            f"--preprocess: {call}: write a share above 0, one or two sizes, then at most one mode "
            f"and one filter, such as crop_pct(0.875, 224, center, bicubic)"
        )
    if (mode == "border") != bool(fills):
        need = "needs a fill, timm's is round(255 * mean)" if mode == "border" else "takes no fill"
        raise UsageError(
            f"--preprocess: {call}: the mode {mode} {need}. Write one for border alone: "
            f"crop_pct(0.95, 224, border, bicubic, (124, 116, 104))"
        )
    share, *sizes = numbers
    return list(_steps(share, sizes * 2 if len(sizes) == 1 else sizes, mode, filters, fills))


def _is_right(numbers: list) -> bool:
    share, *sizes = numbers or [0]
    return type(share) in (int, float) and share > 0 and 1 <= len(sizes) <= 2 and all(
        type(size) is int and size > 0 for size in sizes
    )  # fmt: skip


def _steps(
    share: float, crop: list[int], mode: str, filters: tuple[str, ...], fills: list[tuple]
) -> Iterator[Call]:
    whole = [math.floor(size / share) for size in crop]
    square = (crop[0],) if crop[0] == crop[1] else tuple(crop)
    if mode == "squash":
        yield Call("resize", (*whole, *filters))
    elif mode == "border":
        yield Call("contain", (*whole, *filters))
        yield Call("pad", (*square, *fills))
    elif whole[0] == whole[1]:
        yield Call("resize", (whole[0], *filters))
    else:
        yield Call("cover", (*whole, *filters))
    if mode != "border" and share > 1:  # timm's CenterCrop adds black
        yield Call("pad", square)
    yield Call("center_crop", square)
