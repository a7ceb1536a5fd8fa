"""The steps of a preprocessing that work on a picture, before it becomes numbers. H, W, C of a
picture.

Sizes and offsets are rounded as torchvision's Resize and CenterCrop and timm's ResizeKeepRatio and
CenterCropOrPad round them, so that the same steps give the same pixels.
"""

import numpy as np
import simplejpeg

from softlabels.inputs.rendering import Picture, Scaling, recoloured, render
from softlabels.inputs.resizing import FILTERS, OF_TORCH, PILLOW, RESIZERS, TORCH, resize
from softlabels.spec import Call

LARGEST = 8192  # pixels a side; a dump's preprocessing may come from a stranger
SCALING = ("resize", "contain", "cover")  # words that scale
# Words that take one or two sizes, and the names that may follow these.
SIZED = dict.fromkeys(SCALING, (*FILTERS, *RESIZERS)) | {"center_crop": ("floor",), "pad": ()}
REDUCED = "reduced"  # a word that decodes JPEGs at a part of their size
ENOUGH = 2  # times the size after the scaling, as `reduced` keeps unless it says another number
SHOWING = ("upright", "eight_bit", "grey", "rgb", REDUCED)  # words that say how a picture is shown
FILE = "jpeg"  # a word that writes a picture as a file and reads it again
LONGEST = 65_500  # pixels a side of a JPEG, by libjpeg
QUALITY = 95  # of the JPEGs that dumps store of resized pictures
OF_FILE = Call(FILE, (QUALITY,))


def by_kind(call: Call) -> tuple[list, list[str], list[tuple]]:
    """The arguments of a word: numbers, then names, then tuples, in any number of each."""
    names = [arg for arg in call.args if isinstance(arg, str)]
    tuples = [tuple(arg) for arg in call.args if isinstance(arg, tuple | list)]
    numbers = [arg for arg in call.args if not isinstance(arg, str | tuple | list)]
    return numbers, names, tuples


def in_full(call: Call) -> Call:
    """A word that scales, with the filter and the resizer that it leaves out: bilinear, and torch
    where that has the filter. Raises ValueError for torch where it has not."""
    sizes, names, _ = by_kind(call)
    filter = next((name for name in names if name in FILTERS), "bilinear")
    resizer = next((name for name in names if name in RESIZERS), None)
    if resizer == TORCH and filter not in OF_TORCH:
        raise ValueError(f"torch has no {filter} filter: leave torch out, and Pillow scales")
    resizer = resizer or (TORCH if filter in OF_TORCH else PILLOW)
    return Call(call.name, (*sizes, filter, resizer))


def how_scaled(call: Call) -> tuple[str, str]:
    """Filter and resizer of a word that scales, in full."""
    filter, resizer = by_kind(call)[1]
    return filter, resizer


def shown_by(picture: Picture, calls: tuple[Call, ...]) -> tuple[Picture, tuple[Call, ...]]:
    """A picture as the first words say that it is shown, and the words from the first other one
    on, which need its pixels."""
    first = next((i for i, call in enumerate(calls) if call.name not in SHOWING), len(calls))
    names = [call.name for call in calls[:first]]
    colours = tuple(name for name in names if name in ("grey", "rgb"))
    reduced = next((call.args or (ENOUGH,) for call in calls[:first] if call.name == REDUCED), None)
    shown = picture.shown(
        "upright" in names, "eight_bit" in names, colours, None if reduced is None else reduced[0]
    )
    return shown, calls[first:]


def apply_words(picture: Picture, calls: tuple[Call, ...]) -> np.ndarray:
    """What these words make of a picture, uint8 [H, W, C]: in greyscale or colour.

    Raises ValueError for pixels of more than 8 bits, unless `eight_bit` is among the words, and for
    sizes that don't fit the picture.
    """
    picture, calls = shown_by(picture, calls)
    if calls and calls[0].name in SCALING:
        scaling = _scaling(calls[0], *picture.size)
        return apply_to_pixels(render(picture, scaling=scaling), calls[1:])
    return apply_to_pixels(render(picture), calls)


def channels_first(pixels_HWC: np.ndarray) -> np.ndarray:
    """[C, H, W], as models take it."""
    return pixels_HWC.transpose(2, 0, 1)


def apply_to_pixels(pixels_HWC: np.ndarray, calls: tuple[Call, ...]) -> np.ndarray:
    """What words make of pixels."""
    for call in calls:
        pixels_HWC = _apply(pixels_HWC, call)
    return pixels_HWC


def _apply(pixels: np.ndarray, call: Call) -> np.ndarray:
    if call.name in ("grey", "rgb"):
        return recoloured(pixels, call.name)
    if call.name == FILE:
        return Picture(as_jpeg(pixels, call.args[0])).pixels()
    sizes, names, fills = by_kind(call)
    if call.name == "pad":
        return _pad(pixels, call, sizes * 2 if len(sizes) == 1 else sizes, fills)
    if call.name == "center_crop":
        return _center_crop(pixels, call, sizes * 2 if len(sizes) == 1 else sizes, bool(names))
    scaling = _scaling(call, *pixels.shape[:2])
    return resize(pixels, scaling.height, scaling.width, scaling.filter, scaling.resizer)


def as_jpeg(pixels_HWC: np.ndarray, quality: int) -> bytes:
    """A JPEG file of pixels, in grey or with colours at full size (4:4:4), without EXIF data.
    Raises ValueError for more pixels a side than such a file has."""
    height, width, _ = pixels_HWC.shape
    if max(height, width) > LONGEST:
        raise ValueError(
            f"resized, it has {height:,}×{width:,} pixels, and a JPEG at most {LONGEST:,} a side: "
            f"a PNG, as resized(…, png) stores, has more"
        )
    space = "GRAY" if pixels_HWC.shape[2] == 1 else "RGB"
    content: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels_HWC), quality, space, "Gray" if space == "GRAY" else "444"
    )
    return content


def _scaling(call: Call, height: int, width: int) -> Scaling:
    """What a word makes of a picture of this size."""
    sizes = by_kind(call)[0]
    new_height, new_width = size_after(height, width, call.name, sizes)
    _check_pixels(height, width, call, new_height, new_width)
    return Scaling(new_height, new_width, *how_scaled(call))


def size_after(height: int, width: int, name: str, sizes: list[int]) -> tuple[int, int]:
    """Height and width after a word that scales."""
    if name == "resize" and len(sizes) == 1:  # torchvision's Resize(int)
        other = int(sizes[0] * max(height, width) / min(height, width))
        return (sizes[0], other) if height <= width else (other, sizes[0])
    new_height, new_width = sizes * 2 if len(sizes) == 1 else sizes
    if name == "resize":
        return new_height, new_width
    ratios = height / new_height, width / new_width  # timm's ResizeKeepRatio, longest 1 or 0
    ratio = max(ratios) if name == "contain" else min(ratios)
    return round(height / ratio), round(width / ratio)


def _center_crop(pixels: np.ndarray, call: Call, sizes: list[int], floor: bool) -> np.ndarray:
    height, width = sizes
    whole_height, whole_width = pixels.shape[:2]
    if height > whole_height or width > whole_width:
        raise ValueError(
            f"{call} is larger than the image, {whole_height}×{whole_width}: put a resize before "
            f"it, or pad({', '.join(map(str, sizes))}), as torchvision does"
        )
    down, right = whole_height - height, whole_width - width
    top, left = (down // 2, right // 2) if floor else (round(down / 2), round(right / 2))
    return pixels[top : top + height, left : left + width]


def _pad(pixels: np.ndarray, call: Call, sizes: list[int], fills: list[tuple]) -> np.ndarray:
    """The odd pixel goes to the right and to the bottom."""
    height, width, channels = pixels.shape
    down, right = max(0, sizes[0] - height), max(0, sizes[1] - width)
    fill = fills[0] if fills else (0,)
    if len(fill) not in (1, channels):
        raise ValueError(f"{call} fills {len(fill)} channels, and the image has {channels}")
    _check_pixels(height, width, call, height + down, width + right)
    padded = np.empty((height + down, width + right, channels), np.uint8)
    padded[:] = fill
    top, left = down // 2, right // 2
    padded[top : top + height, left : left + width] = pixels
    return padded


def _check_pixels(height: int, width: int, call: Call, new_height: int, new_width: int) -> None:
    if not 0 < new_height * new_width <= LARGEST**2:
        raise ValueError(
            f"{call} would make {new_height:,}×{new_width:,} pixels of the image, "
            f"{height:,}×{width:,}"
        )
