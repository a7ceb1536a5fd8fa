"""mixup and cutmix: an input is mixed with another one of the whole source, its partner.

After Zhang et al. 2018, "mixup: beyond empirical risk minimization" (arXiv:1710.09412), and Yun et
al. 2019, "CutMix" (arXiv:1905.04899). A partner is shown as its own row of the same view is, before
that is mixed in its turn. Which one it is, the weight and the box are drawn for (seed, id, view),
and stored. N rows of a batch, [C, H, W] of a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.views.augmentations import Drawn
from softlabels.inputs.views.beta import LEAST, MOST, STEPS, beta_steps
from softlabels.inputs.views.chance import counter_random
from softlabels.spec import Call, short
from softlabels.system.devices import moved

MIX, WEIGHT = "mix", "mix_weight"
BOX = ("mix_top", "mix_left", "mix_height", "mix_width")
PARTNER, PARTNER_LABEL = "partner", "partner_label"
UNMIXED, MIXUP, CUTMIX = 0, 1, 2  # in the column mix
WORDS = {"mixup": MIXUP, "cutmix": CUTMIX}
PARTNER_STREAM, WAY_STREAM, WEIGHT_STREAMS, CENTRE_STREAMS = 64, 65, (66, 67), (68, 69)


@dataclass(frozen=True)
class Mixing:
    """mixup, cutmix, or for each row one of the two, as likely as the other.

    mixup, cutmix: their alpha, of Beta(alpha, alpha), from which the weight of the row's own input
    is drawn; None for what is not done
    size: the height and width of pictures, which `on` finds out; cutmix needs them
    columns: without `partner` and `partner_label`, whose types are those of ids and labels. Of
    mixup alone there is no box
    """

    mixup: float | None = None
    cutmix: float | None = None
    size: tuple[int, int] = (1, 1)
    always: ClassVar[dict[str, str]] = {MIX: "uint8", WEIGHT: "float32"}

    def __str__(self) -> str:
        both = {"mixup": self.mixup, "cutmix": self.cutmix}
        return "|".join(f"{name}({alpha!r})" for name, alpha in both.items() if alpha is not None)

    @property
    def columns(self) -> dict[str, str]:
        return self.always | dict.fromkeys(BOX if self.cutmix is not None else (), "int16")

    def on(self, shape: list[int]) -> Self:
        """The same for pictures of this shape, [C, H, W]."""
        return replace(self, size=(shape[1], shape[2]))

    def draw(self, seed: int, keys_N: np.ndarray, view: int) -> Drawn:
        """The columns of this view, [N] each; in view 0 nothing is mixed. keys_N: ids as `counters`
        of `chance` gives them."""
        if not view:
            return self.unmixed(len(keys_N))
        ways_N = self._ways(seed, keys_N, view)
        first_N, second_N = (counter_random(seed, keys_N, view, s) for s in WEIGHT_STREAMS)
        steps_N = np.empty(len(keys_N), np.int64)
        for way, alpha in ((MIXUP, self.mixup), (CUTMIX, self.cutmix)):
            if alpha is not None:
                chosen = ways_N == way
                steps_N[chosen] = beta_steps(alpha, first_N[chosen], second_N[chosen])
        drawn = {MIX: ways_N, WEIGHT: (steps_N / STEPS).astype(np.float32)}
        if self.cutmix is None:
            return drawn
        return drawn | self._boxes(drawn, steps_N, seed, keys_N, view)

    def _boxes(
        self, drawn: Drawn, steps_N: np.ndarray, seed: int, keys_N: np.ndarray, view: int
    ) -> Drawn:
        """Those of the rows that have one, and the weight that each leaves."""
        centres = [counter_random(seed, keys_N, view, stream) for stream in CENTRE_STREAMS]
        (top_N, height_N), (left_N, width_N) = (
            _side(whole, centre_N, STEPS - steps_N)
            for whole, centre_N in zip(self.size, centres, strict=True)
        )
        cut_N = drawn[MIX] == CUTMIX
        own_N = 1 - height_N * width_N / (self.size[0] * self.size[1])  # of what is not cut
        boxes = {WEIGHT: np.where(cut_N, own_N.astype(np.float32), drawn[WEIGHT])}
        for name, values_N in zip(BOX, (top_N, left_N, height_N, width_N), strict=True):
            boxes[name] = (values_N * cut_N).astype(np.int16)
        return boxes

    def unmixed(self, rows: int) -> Drawn:
        """The columns of so many rows that are not mixed."""
        drawn = {name: np.zeros(rows, kind) for name, kind in self.columns.items()}
        return drawn | {WEIGHT: np.ones(rows, np.float32)}

    def _ways(self, seed: int, keys_N: np.ndarray, view: int) -> np.ndarray:
        if self.mixup is None or self.cutmix is None:
            return np.full(len(keys_N), CUTMIX if self.mixup is None else MIXUP, np.uint8)
        chance_N = counter_random(seed, keys_N, view, WAY_STREAM) % np.uint64(2)
        return np.where(chance_N == 0, MIXUP, CUTMIX).astype(np.uint8)


def partners_of(
    seed: int, keys_N: np.ndarray, view: int, numbers_N: np.ndarray, count: int
) -> np.ndarray:
    """The partners in this view of the rows with these numbers, of `count` rows from 0 on: each of
    the others as likely, int64 [N]; in view 0 the rows themselves."""
    if not view:
        return numbers_N
    drawn_N = counter_random(seed, keys_N, view, PARTNER_STREAM) % np.uint64(count - 1)
    return (numbers_N + 1 + drawn_N.astype(np.int64)) % count


def _side(whole: int, centre_N: np.ndarray, share_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The box's first pixel along one side of the picture, and its length, as far as it lies in it.

    centre_N: uniform uint64; share_N: the share of the area in steps of 2^-16. The box has the
    picture's proportions, so the share's root of each side; halves are rounded down, as in the
    paper's own code and in timm.
    """
    root_N = np.sqrt((whole**2 * share_N) >> 16).astype(np.int64)  # exact below 2^52, as is floor
    middle_N, half_N = (centre_N % np.uint64(whole)).astype(np.int64), root_N // 2
    first_N = np.clip(middle_N - half_N, 0, whole)
    return first_N, np.clip(middle_N + half_N, 0, whole) - first_N


def check_mixed(drawn: Drawn) -> None:
    """Raises SourceError for columns that no draw gives, which may be anyone's: pictures would be
    mixed by one weight and labels by another, and what is no number would be another level on each
    device."""
    ways_N, weights_N = drawn[MIX], drawn[WEIGHT]
    known_N = (ways_N <= CUTMIX) & (weights_N >= 0) & (weights_N <= 1)  # which NaN is not
    wrong = np.flatnonzero(~known_N | ((ways_N == UNMIXED) & (weights_N != 1)))
    if len(wrong):
        raise SourceError(
            f"{MIX} of a view is {ways_N[wrong[0]]} and {WEIGHT} {weights_N[wrong[0]]}; the first "
            f"is 0, 1 or 2, the second 0 to 1, and 1 where nothing is mixed: the row is damaged"
        )


def mixed(own_NCHW: Tensor, partners_NCHW: Tensor, drawn: Drawn) -> Tensor:
    """Each picture mixed with its partner, as the columns say: of the same dtype, on the same
    device. Whole numbers are mixed in fixed point, so that each device gives the same."""
    shown = own_NCHW.clone()
    weights_N = np.clip(drawn[WEIGHT].astype(np.float32), 0, 1)  # anyone's file may say anything
    if shown.device.type == "cpu":  # where numpy is many times as fast as torch on a few pictures
        for place in np.flatnonzero(drawn[MIX]).tolist():
            own, partner = shown[place].numpy(), partners_NCHW[place].numpy()
            if drawn[MIX][place] == MIXUP:
                own[:] = _blended(own, partner, weights_N[place])
            elif drawn[MIX][place] == CUTMIX:
                top, left, height, width = (max(0, int(drawn[name][place])) for name in BOX)
                box = np.s_[:, top : top + height, left : left + width]
                own[box] = partner[box]
        return shown
    blended, cut = (np.flatnonzero(drawn[MIX] == way) for way in (MIXUP, CUTMIX))
    if len(blended):
        rows = moved(torch.from_numpy(blended), shown.device)
        weights_N111 = torch.from_numpy(weights_N[blended]).reshape(-1, 1, 1, 1)
        pictures = shown[rows], partners_NCHW[rows]
        shown[rows] = _blended_there(*pictures, moved(weights_N111, shown.device))
    if len(cut):
        rows = moved(torch.from_numpy(cut), shown.device)
        inside_N1HW = _inside([drawn[name][cut] for name in BOX], shown)
        shown[rows] = torch.where(inside_N1HW, partners_NCHW[rows], shown[rows])
    return shown


def _blended(own: np.ndarray, partner: np.ndarray, weight: np.floating) -> np.ndarray:
    """Of any shape. Each product is rounded before their sum: a fused one would differ."""
    if own.dtype.kind == "f":
        kind = np.promote_types(own.dtype, np.float32)
        return (own.astype(kind) * weight + partner.astype(kind) * (1 - weight)).astype(own.dtype)
    kind = np.dtype(np.int32 if own.dtype == np.uint8 else np.int64)
    steps = kind.type(np.rint(weight * STEPS))
    total = own.astype(kind) * steps
    total += partner.astype(kind) * (STEPS - steps)
    total += STEPS // 2
    return (total >> 16).astype(own.dtype)


def _blended_there(own_NCHW: Tensor, partners_NCHW: Tensor, weights_N111: Tensor) -> Tensor:
    """The same by torch, on its device."""
    if own_NCHW.is_floating_point():
        kind = torch.promote_types(own_NCHW.dtype, torch.float32)
        own, partners = own_NCHW.to(kind) * weights_N111, partners_NCHW.to(kind)
        return (own + partners * (1 - weights_N111)).to(own_NCHW.dtype)
    kind = torch.int32 if own_NCHW.dtype == torch.uint8 else torch.int64
    steps_N111 = torch.round(weights_N111 * STEPS).to(kind)
    total = own_NCHW.to(kind) * steps_N111 + partners_NCHW.to(kind) * (STEPS - steps_N111)
    return ((total + STEPS // 2) >> 16).to(own_NCHW.dtype)


def _inside(box: Sequence[np.ndarray], batch_NCHW: Tensor) -> Tensor:
    """Whether a pixel lies in the box (top, left, height, width) of its picture, [N, 1, H, W]."""
    axes = []
    for first_N, length_N, size in zip(box[:2], box[2:], batch_NCHW.shape[2:], strict=True):
        first_N1, length_N1 = (
            np.maximum(v, 0).astype(np.int64)[:, None] for v in (first_N, length_N)
        )
        place = np.arange(size)
        axes.append((place >= first_N1) & (place < first_N1 + length_N1))
    inside_NHW = axes[0][:, :, None] & axes[1][:, None, :]
    return moved(torch.from_numpy(inside_NHW[:, None]), batch_NCHW.device)


def parse_mixing(calls: Sequence[Call], what: str) -> Mixing:
    """`mixup(0.2)`, `cutmix(1.0)`, or both, each once at most. Raises UsageError for another
    number."""
    alphas: dict[str, float] = {}
    for call in calls:
        alpha = call.args[0] if len(call.args) == 1 else 0
        if type(alpha) not in (int, float) or not LEAST <= alpha <= MOST:
            raise UsageError(
                f"{what}: can't read {short(str(call))!r}; write alpha of Beta(alpha, alpha), a "
                f"number from {LEAST} to {MOST:,}, such as mixup(0.2) or cutmix(1.0)"
            )
        alphas[call.name] = float(alpha)
    return Mixing(alphas.get("mixup"), alphas.get("cutmix"))
