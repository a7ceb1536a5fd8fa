"""Encoded pictures, and the pixels of a part of one at some size. H, W, C of a picture.

`render` is the one place where pictures are decoded. JPEGs in grey or colour are decoded by
libjpeg-turbo, with the interpreter's lock released; all else, and what it can't read without a
warning, by Pillow, which decides whether a damaged file can be read. Both give the same levels.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import simplejpeg
from PIL import ExifTags, Image

from softlabels.inputs.resizing import resize

DECODER = "libjpeg-turbo, islow DCT, fancy upsampling"
SPACES = {"Gray": "GRAY", "YCbCr": "RGB", "RGB": "RGB"}  # a JPEG's colours → those decoded to
JPEG = b"\xff\xd8\xff"
SCAN = b"\xff\xda"
SEGMENTS = frozenset(range(0xC0, 0xFF)) - frozenset(range(0xD0, 0xDB))  # markers with a length
# Where a JPEG's orientation may stand: in EXIF data, or in XMP, which Pillow reads too.
TURNING = b"Exif\0\0", b"tiff:Orientation"
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
TURNED = range(2, 9)
DIVISORS = 8, 4, 2  # that libjpeg decodes by at little cost

Box = tuple[int, int, int, int]
"""A part of a picture: top, left, height and width, in pixels of the picture as it is shown."""


@dataclass(frozen=True)
class Scaling:
    """To a size, by a filter and a resizer of `resizing`."""

    height: int
    width: int
    filter: str
    resizer: str


@dataclass(frozen=True)
class Picture:
    """A picture of which no more is decoded yet than its header, and how it is to be shown.

    cell: its encoded bytes, or a picture that Pillow opened
    upright: whether it is turned as its EXIF orientation says
    eight_bit: whether 16 bits become 8
    colours: grey and rgb, in the order in which they are applied
    enough: how many times as large as it is scaled to a JPEG must be decoded at least; None where
    it is decoded in full
    """

    cell: bytes | Image.Image
    upright: bool = False
    eight_bit: bool = False
    colours: tuple[str, ...] = ()
    enough: float | None = None
    # what was read of it: one for copies, so that several views of a picture decode it once
    _known: dict[Any, Any] = field(default_factory=dict, compare=False)

    def shown(
        self, upright: bool, eight_bit: bool, colours: tuple[str, ...], enough: float | None = None
    ) -> "Picture":
        return replace(self, upright=upright, eight_bit=eight_bit, colours=colours, enough=enough)

    @property
    def image(self) -> Image.Image:
        """As Pillow opens it. Raises OSError and other errors of Pillow."""
        if isinstance(self.cell, Image.Image):
            return self.cell
        cell = self.cell
        image: Image.Image = self._once("image", lambda: Image.open(io.BytesIO(cell)))
        return image

    def close(self) -> None:
        """Let go of what was opened and decoded."""
        if "image" in self._known:
            self._known["image"].close()
        self._known.clear()

    def _once(self, key: Any, find: Callable[[], Any]) -> Any:
        if key not in self._known:
            self._known[key] = find()
        return self._known[key]

    @property
    def orientation(self) -> int:
        """The EXIF orientation, 1 to 8, that has not been applied to the pixels yet; 1 where there
        is none or the EXIF data can't be read."""
        orientation: int = self._once("orientation", self._read_orientation)
        return orientation

    def _read_orientation(self) -> int:
        if self._header is None:
            self.image.load()  # Pillow turns TIFF pictures itself
        elif not any(self._bytes.find(text, 0, self._scan) >= 0 for text in TURNING):
            return 1  # spares Pillow, which reads headers with the interpreter's lock
        try:
            value = self.image.getexif().get(ExifTags.Base.Orientation, 1)
        except Exception:  # damaged EXIF data raise many errors, and the pixels are still good
            return 1
        return value if type(value) is int and value in TURNED else 1

    @property
    def size(self) -> tuple[int, int]:
        """Height and width as it is shown; a JPEG is not decoded for it."""
        turns = self.upright and self.orientation in SIDEWAYS
        if self._header is None:
            self.image.load()
            width, height = self.image.size
        else:
            height, width, _ = self._header
        return (width, height) if turns else (height, width)

    @property
    def _bytes(self) -> bytes:
        return b"" if isinstance(self.cell, Image.Image) else self.cell

    @property
    def _scan(self) -> int:
        """Where the first scan of a JPEG begins, behind which Pillow looks for no orientation; the
        end of its bytes where segments don't follow each other."""
        place, cell = len(JPEG) - 1, self._bytes
        while place + 3 < len(cell) and cell[place] == 0xFF and cell[place + 1] in SEGMENTS:
            place += 2 + int.from_bytes(cell[place + 2 : place + 4], "big")
        return place if cell[place : place + 2] == SCAN else len(cell)

    @property
    def _header(self) -> tuple[int, int, str] | None:
        """Height, width and the colours that it is decoded to, of a JPEG; None for pictures that
        are Pillow's."""
        header: tuple[int, int, str] | None = self._once("header", self._read_header)
        return header

    def _read_header(self) -> tuple[int, int, str] | None:
        if not self._bytes.startswith(JPEG):
            return None
        try:
            height, width, space, _ = simplejpeg.decode_jpeg_header(self._bytes)
        except (ValueError, KeyError):  # KeyError: of a subsampling that it has no name for
            return None
        most = Image.MAX_IMAGE_PIXELS  # beyond it Pillow warns or refuses
        if space not in SPACES or (most is not None and height * width > most):
            return None
        return height, width, SPACES[space]

    def pixels(self, scaling: Scaling | None = None) -> np.ndarray:
        """uint8 [H, W, C] as it is shown; C is 1 for grey, 3 for colour. Where it is to be scaled,
        a JPEG has fewer pixels if `enough` allows it.

        Raises OSError and other errors of Pillow, and ValueError for pixels of more than 8 bits
        unless `eight_bit` says what becomes of them. They are decoded once, so nobody writes to
        them.
        """
        divisor = 1 if scaling is None else self._divisor(scaling)
        how = divisor, self.upright, self.eight_bit, self.colours
        pixels: np.ndarray = self._once(how, lambda: self._read_pixels(divisor))
        return pixels

    def _read_pixels(self, divisor: int) -> np.ndarray:
        pixels = self._decoded(divisor)
        if self.upright:
            pixels = _turned(pixels, self.orientation)
        for colour in self.colours:
            pixels = recoloured(pixels, colour)
        return pixels

    def _divisor(self, scaling: Scaling) -> int:
        """By what its sides are divided as it is decoded, for this scaling of the whole picture.
        libjpeg has eighths too, such as 3/8, but they are slower than all of it."""
        sides = zip(self.size, (scaling.height, scaling.width), strict=True)
        spare = min(side / scaled for side, scaled in sides)
        if self.enough is None:
            return 1
        return next((d for d in DIVISORS if spare >= d * self.enough), 1)

    def _decoded(self, divisor: int = 1) -> np.ndarray:
        if self._header is not None:
            *sides, space = self._header
            least = [-(-side // divisor) if divisor > 1 else 0 for side in sides]
            try:
                return simplejpeg.decode_jpeg(self._bytes, space, False, False, *least)
            except ValueError:  # of a file that is not whole, or not in order: Pillow decides
                pass
        image = self.image
        image.load()
        values = np.asarray(_grey_or_colour(_eight_bit(image) if self.eight_bit else image))
        return values[:, :, None] if values.ndim == 2 else values


def render(picture: Picture, box: Box | None = None, scaling: Scaling | None = None) -> np.ndarray:
    """The pixels of a part of a picture, uint8 [H, W, C] at the size of `scaling`; of the whole
    where there is no box, as large as it is where there is no scaling.

    The part is cut out before it is scaled, as torchvision does: no pixel around it has a say.
    Raises what `Picture.pixels` raises.
    """
    pixels = picture.pixels(scaling if box is None else None)
    if box is not None:
        top, left, height, width = box
        pixels = pixels[top : top + height, left : left + width]
    if scaling is None:
        return pixels
    return resize(pixels, scaling.height, scaling.width, scaling.filter, scaling.resizer)


def recoloured(pixels_HWC: np.ndarray, colour: str) -> np.ndarray:
    """In `grey` or in `rgb`, as Pillow's convert gives it."""
    channels = pixels_HWC.shape[2]
    if colour == "rgb":
        return pixels_HWC if channels == 3 else pixels_HWC.repeat(3, axis=2)
    if channels == 1:
        return pixels_HWC
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels_HWC)).convert("L"))[:, :, None]


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright, of a picture that was stored in this EXIF orientation."""
    if orientation in SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    # of what is transposed first, where orientation exchanges the axes
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(pixels, flips) if flips else pixels


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
