"""What a row of a data set in memory holds: pictures, encoded; tensors, as arrays."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image


class Picture(bytes):
    """A picture as an encoded image."""


def as_cell(value: Any) -> Any:
    """A picture as `Picture`, tensors and lists of numbers as arrays, one number as itself. Lists
    of whole numbers or texts stay lists, since labels may be more in one row than in another."""
    if isinstance(value, Image.Image):
        return Picture(_encoded(value))
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    if isinstance(value, list | tuple) and list_type(value) is not None:
        return list(value)
    if isinstance(value, list | tuple) and value and isinstance(value[0], int | float | list):
        try:
            value = np.asarray(value)
        except ValueError:  # of several lengths
            return value
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and not value.ndim):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        return value.tolist()
    return value


def as_list(cell: Any) -> Any:
    """A row of whole numbers, or of true and false, as a list of whole numbers."""
    if isinstance(cell, np.ndarray) and cell.ndim == 1 and cell.dtype.kind in "iub":
        return cell.astype(np.int64).tolist()
    return cell


def list_type(values: Sequence[Any]) -> type | None:
    """int or str, of which all values are; None for others, and for none."""
    kinds = {type(value) for value in values}
    return kinds.pop() if len(kinds) == 1 and kinds <= {int, str} else None


def _encoded(image: Image.Image) -> bytes:
    """The picture's pixels, in a format that any version of Pillow writes alike, so that the same
    pixels have the same hash: PPM, TIFF for what PPM can't hold. An EXIF orientation stays behind:
    the pixels are taken as the data set gives them."""
    content = BytesIO()
    if image.mode in ("L", "RGB"):
        image.save(content, "PPM")
    else:
        plain = image.copy()
        plain.info = {k: v for k, v in image.info.items() if k == "transparency"}
        plain.save(content, "TIFF", compression="raw", exif=b"")
    return content.getvalue()


def bytes_of(cell: Any) -> bytes:
    """What tells a cell from another one."""
    if isinstance(cell, np.ndarray):
        return np.ascontiguousarray(cell).tobytes()
    return cell if isinstance(cell, bytes) else repr(cell).encode()
