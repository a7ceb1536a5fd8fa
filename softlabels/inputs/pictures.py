"""The steps of a preprocessing that work on a picture, before it becomes numbers.

Sizes and offsets are rounded as torchvision's Resize and CenterCrop round them, so that the same
steps give the same pixels.
"""

from PIL import ExifTags, Image

from softlabels.spec import Call

LARGEST = 8192  # pixels a side; a dump's preprocessing may come from a stranger
FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
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


def apply_words(image: Image.Image, calls: tuple[Call, ...]) -> Image.Image:
    """`image` in greyscale or colour, and what these words make of it.

    Raises ValueError for pixels of more than 8 bits, and for sizes that don't fit the picture.
    """
    if calls and calls[0].name == "upright":
        turn = TURNS.get(orientation(image))
        image, calls = image if turn is None else image.transpose(turn), calls[1:]
    image = _grey_or_colour(image)
    for call in calls:
        image = _apply(image, call)
    return image


def _grey_or_colour(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode in ("1", "LA"):
        return image.convert("L")
    if image.mode in ("P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
        return image.convert("RGB")
    raise ValueError(f"pixels of mode {image.mode} hold more than 8 bits; convert them first")


def _apply(image: Image.Image, call: Call) -> Image.Image:
    if call.name == "grey":
        return image.convert("L")
    if call.name == "rgb":
        return image.convert("RGB")
    if call.name == "resize":
        return _resize(image, call)
    height, width = call.args * 2 if len(call.args) == 1 else call.args
    if height > image.height or width > image.width:
        raise ValueError(
            f"{call} is larger than the image, {image.height}×{image.width}: put a resize before it"
        )
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    return image.crop((left, top, left + width, top + height))


def _resize(image: Image.Image, call: Call) -> Image.Image:
    named = bool(call.args) and isinstance(call.args[-1], str)
    filter = call.args[-1] if named else "bilinear"
    sizes = call.args[:-1] if named else call.args
    if len(sizes) == 1:
        shorter, longer = sorted(image.size)
        other = int(sizes[0] * longer / shorter)
        sizes = (sizes[0], other) if image.height <= image.width else (other, sizes[0])
    height, width = sizes
    if height * width > LARGEST**2:
        raise ValueError(
            f"{call} would make {height:,}×{width:,} pixels of the image, "
            f"{image.height:,}×{image.width:,}"
        )
    return image.resize((width, height), Image.Resampling[filter.upper()])
