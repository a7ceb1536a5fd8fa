"""The steps of a preprocessing that work on a picture, before it becomes numbers.

Sizes and offsets are rounded as torchvision's Resize and CenterCrop and timm's ResizeKeepRatio and
CenterCropOrPad round them, so that the same steps give the same pixels.
"""

import numpy as np
from PIL import ExifTags, Image, ImageOps

from softlabels.spec import Call

LARGEST = 8192  # pixels a side; a dump's preprocessing may come from a stranger
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
# Words that take one or two sizes, and the name that may follow these.
SIZED = {
    "resize": FILTERS, "contain": FILTERS, "cover": FILTERS, "center_crop": ("floor",), "pad": ()
}  # fmt: skip
TURNS = {  # EXIF orientation → the operation that turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8, that has not been applied to the pixels yet; 1 where there is
    none or the EXIF data can't be read. (Pillow turns TIFF pictures itself.)"""
    image.load()
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF data raise many errors, and the pixels are still good
        return 1
    return value if type(value) is int and value in TURNS else 1


def by_kind(call: Call) -> tuple[list, list[str], list[tuple]]:
    """The arguments of a word: numbers, then names, then tuples, in any number of each."""
    names = [arg for arg in call.args if isinstance(arg, str)]
    tuples = [tuple(arg) for arg in call.args if isinstance(arg, tuple | list)]
    numbers = [arg for arg in call.args if not isinstance(arg, str | tuple | list)]
    return numbers, names, tuples


def apply_words(image: Image.Image, calls: tuple[Call, ...]) -> Image.Image:
    """`image` in greyscale or colour, and what these words make of it.

    Raises ValueError for pixels of more than 8 bits, unless `eight_bit` is among the words, and for
    sizes that don't fit the picture.
    """
    if calls and calls[0].name == "upright":
        turn = TURNS.get(orientation(image))
        image, calls = image if turn is None else image.transpose(turn), calls[1:]
    if calls and calls[0].name == "eight_bit":
        image, calls = _eight_bit(image), calls[1:]
    image = _grey_or_colour(image)
    for call in calls:
        image = _apply(image, call)
    return image


def _eight_bit(image: Image.Image) -> Image.Image:
    """The high byte of 16 bits; Pillow itself reads 16-bit colours so."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def _grey_or_colour(image: Image.Image) -> Image.Image:
    """Transparency is dropped, not laid over a background: what lies under it shows, as after the
    convert("RGB") of torchvision's and timm's loaders."""
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("1", "LA"):
        return image.convert("L")
    if image.mode in ("P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
        return image.convert("RGB")
    if image.mode.startswith("I;16"):
        raise ValueError(
            f"its pixels have 16 bits (mode {image.mode}), and a model sees 8: put eight_bit first "
            f"in --preprocess, which takes value // 256. (Pillow's convert, and so torchvision's "
            f"and timm's loaders, make all above 255 white)"
        )
    raise ValueError(
        f"its pixels are of mode {image.mode}, with more than 8 bits and no stated range; convert "
        f"it to 8 bits first"
    )


def _apply(image: Image.Image, call: Call) -> Image.Image:
    if call.name in ("grey", "rgb"):
        return image.convert("L" if call.name == "grey" else "RGB")
    sizes, names, fills = by_kind(call)
    if call.name == "pad":
        return _pad(image, call, sizes * 2 if len(sizes) == 1 else sizes, fills)
    if call.name == "center_crop":
        return _center_crop(image, call, sizes * 2 if len(sizes) == 1 else sizes, bool(names))
    filter = Image.Resampling[names[0].upper() if names else "BILINEAR"]
    height, width = _resized(image, call.name, sizes)
    _check_pixels(image, call, height, width)
    return image.resize((width, height), filter)


def _resized(image: Image.Image, name: str, sizes: list[int]) -> tuple[int, int]:
    """Height and width after this word."""
    if name == "resize" and len(sizes) == 1:  # torchvision's Resize(int)
        other = int(sizes[0] * max(image.size) / min(image.size))
        return (sizes[0], other) if image.height <= image.width else (other, sizes[0])
    height, width = sizes * 2 if len(sizes) == 1 else sizes
    if name == "resize":
        return height, width
    ratios = image.height / height, image.width / width  # timm's ResizeKeepRatio, longest 1 or 0
    ratio = max(ratios) if name == "contain" else min(ratios)
    return round(image.height / ratio), round(image.width / ratio)


def _center_crop(image: Image.Image, call: Call, sizes: list[int], floor: bool) -> Image.Image:
    height, width = sizes
    if height > image.height or width > image.width:
        raise ValueError(
            f"{call} is larger than the image, {image.height}×{image.width}: put a resize before "
            f"it, or pad({', '.join(map(str, sizes))}), as torchvision does"
        )
    down, right = image.height - height, image.width - width
    top, left = (down // 2, right // 2) if floor else (round(down / 2), round(right / 2))
    return image.crop((left, top, left + width, top + height))


def _pad(image: Image.Image, call: Call, sizes: list[int], fills: list[tuple]) -> Image.Image:
    """The odd pixel goes to the right and to the bottom."""
    down, right = max(0, sizes[0] - image.height), max(0, sizes[1] - image.width)
    fill, channels = fills[0] if fills else (0,), len(image.getbands())
    if len(fill) not in (1, channels):
        raise ValueError(f"{call} fills {len(fill)} channels, and the image has {channels}")
    _check_pixels(image, call, image.height + down, image.width + right)
    border = (right // 2, down // 2, right - right // 2, down - down // 2)
    return ImageOps.expand(image, border, fill * channels if len(fill) == 1 else fill)


def _check_pixels(image: Image.Image, call: Call, height: int, width: int) -> None:
    if not 0 < height * width <= LARGEST**2:
        raise ValueError(
            f"{call} would make {height:,}×{width:,} pixels of the image, "
            f"{image.height:,}×{image.width:,}"
        )
