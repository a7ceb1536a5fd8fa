"""Replayable augmentation: what is random in a view of an input depends on (seed, id, view) only.

Parameters come from a counter-based generator (SplitMix64 over the three numbers), so a view can
be drawn again in any order, on any machine, by any program that has these few lines. A dump stores
them, a column each, and `replay` makes the view from these columns alone.

    jitter(p)    shifted by up to p pixels each way     shift_down, shift_right
"""

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import SourceError, UsageError
from softlabels.spec import Call, parse_pipeline, short

DOWN, RIGHT = "shift_down", "shift_right"
FARTHEST = 2**15 - 1  # pixels: a shift is an int16
Drawn = dict[str, np.ndarray]
"""The parameters of a view of N inputs, by the name of their column, [N] each."""
_STEP = np.uint64(0x9E3779B97F4A7C15)


def counter_random(seed: int, ids_N: np.ndarray, view: int, stream: int) -> np.ndarray:
    """Uniform uint64 [N], a function of its arguments alone. `ids_N` is int64 or uint64."""
    state_N = np.full(ids_N.shape, seed, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for part in (ids_N.astype(np.uint64), np.uint64(view), np.uint64(stream)):
            state_N = _mix((state_N + _STEP) ^ _mix(np.asarray(part + _STEP)))
    return state_N


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draw_shifts(pixels: int, seed: int, ids_N: np.ndarray, view: int) -> np.ndarray:
    """Whole shifts in [−pixels, pixels], int64 [N, 2] as (down, right)."""
    span = np.uint64(2 * pixels + 1)
    drawn = [counter_random(seed, ids_N, view, stream) % span for stream in (0, 1)]
    return np.stack(drawn, axis=1).astype(np.int64) - pixels


def shift(batch_NCHW: Tensor, shifts_N2: np.ndarray) -> Tensor:
    """Each image moved by its (down, right); what comes in is 0. Keeps dtype and shape."""
    pixels = int(np.abs(shifts_N2).max(initial=0))
    if pixels == 0:
        return batch_NCHW
    n, _, height, width = batch_NCHW.shape
    padded = torch.nn.functional.pad(batch_NCHW, (pixels,) * 4)
    offset_N2 = pixels - torch.as_tensor(shifts_N2, device=batch_NCHW.device)
    rows_NH = offset_N2[:, :1] + torch.arange(height, device=batch_NCHW.device)
    cols_NW = offset_N2[:, 1:] + torch.arange(width, device=batch_NCHW.device)
    image_N = torch.arange(n, device=batch_NCHW.device)
    moved_NHWC = padded.permute(0, 2, 3, 1)[
        image_N[:, None, None], rows_NH[:, :, None], cols_NW[:, None, :]
    ]
    return moved_NHWC.permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True)
class Jitter:
    """Views of a picture moved by up to `pixels` each way; what comes in is 0. View 0 is not moved.

    columns: what a dump stores of each row's view, with its type: whole pixels, of which more move
    the picture down and to the right.
    """

    pixels: int
    columns: ClassVar[dict[str, str]] = {DOWN: "int16", RIGHT: "int16"}

    def __str__(self) -> str:
        return f"jitter({self.pixels})"

    def draw(self, seed: int, ids_N: np.ndarray, view: int) -> Drawn:
        """The columns of this view of these inputs, [N] each; ids are whole numbers or text."""
        shifts_N2 = np.zeros((len(ids_N), 2), np.int64)
        if view:
            shifts_N2 = draw_shifts(self.pixels, seed, counters(ids_N), view)
        return {
            name: shifts_N2[:, axis].astype(kind)
            for axis, (name, kind) in enumerate(self.columns.items())
        }

    def check_shape(self, shape: list[int], what: str) -> None:
        """Raises UsageError for inputs that are no pictures [C, H, W], or that a shift could move
        out of sight. `what` names the option."""
        if len(shape) != 3:
            raise UsageError(
                f"{what} is {self}, which shifts pictures [C, H, W]; these inputs are {shape}. "
                f"Leave it out, and --views too"
            )
        least = min(shape[1:])
        if self.pixels >= least:
            raise UsageError(
                f"{what} is {self}, which can shift pictures of {shape[1]}×{shape[2]} pixels out "
                f"of sight; use less than {least}"
            )


def parse_augment(text: str, what: str = "--augment") -> Jitter:
    """`"jitter(2)"`. Raises UsageError for anything else; `what` names the option."""
    calls = parse_pipeline(text, what)
    if len(calls) != 1 or calls[0].name != "jitter":
        unknown = [str(call) for call in calls if call.name != "jitter"]
        shown = f"no word {short(unknown[0])!r}" if unknown else f"is {short(text)!r}"
        raise UsageError(f"{what}: {shown}; use jitter(2), once: shifts by up to 2 pixels each way")
    return Jitter(_pixels(calls[0], what))


def _pixels(call: Call, what: str) -> int:
    if len(call.args) == 1 and type(call.args[0]) is int and 1 <= call.args[0] <= FARTHEST:
        return call.args[0]
    raise UsageError(
        f"{what}: {short(str(call))} has not one whole number of pixels from 1 to {FARTHEST:,}"
    )


def counters(ids_N: np.ndarray) -> np.ndarray:
    """Ids as the generator takes them, uint64 [N]: of a text the first 8 bytes of the SHA-256 of
    its UTF-8, little-endian."""
    if ids_N.dtype.kind != "U":
        return ids_N.astype(np.uint64)
    digests = (hashlib.sha256(id.encode()).digest() for id in ids_N.tolist())
    return np.fromiter((int.from_bytes(d[:8], "little") for d in digests), np.uint64, len(ids_N))


def joined(views: list[Drawn]) -> Drawn:
    """The parameters of one view after the other, [V·N] each."""
    names = views[0] if views else {}
    return {name: np.concatenate([drawn[name] for drawn in views]) for name in names}


def replay(batch: Tensor, drawn: Drawn) -> Tensor:
    """Inputs [N, C, H, W] of any dtype, on any device, as the view with these columns shows
    them. Raises SourceError for inputs that are no pictures."""
    if batch.ndim != 4:
        raise SourceError(
            f"views are of pictures [C, H, W], and these inputs are {list(batch.shape[1:])}: they "
            f"are not what the teacher saw"
        )
    # anyone's file may tell of shifts that would need gigabytes of zeros around the picture; one as
    # far as the picture is large leaves nothing of it, and so does any larger one
    height, width = batch.shape[2:]
    down = np.clip(drawn[DOWN].astype(np.int64), -height, height)
    right = np.clip(drawn[RIGHT].astype(np.int64), -width, width)
    return shift(batch, np.stack([down, right], axis=1))
