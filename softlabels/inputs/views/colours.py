"""Pixels in other colours: brightness, contrast, saturation, hue and grey.

All but hue are, level for level, those of Pillow, by which torchvision and timm change pictures
that are no tensors. Hue is that of torchvision's tensors, within one level; Pillow's own goes
through a hue of 8 bits. Every step is a float32 operation that IEEE 754 rounds in one way only,
none fused with another, so that each device gives the same levels.

N pictures; x: float32 [N, C, H, W], whole levels from 0 to 255, changed in place; factor: of each,
[N, 1, 1, 1].
"""

from collections.abc import Callable

import torch
from torch import Tensor

# Pillow's shares of red, green and blue in 65,536 (ITU-R 601). Of 8 bits the sum stays below 2²⁴,
# which float32 holds exactly.
SHARES = 19595.0, 38470.0, 7471.0


def weighed(x: Tensor) -> Tensor:
    """The grey of red, green and blue before it is rounded, [N, H, W]. Of 8 bits it is exact, in
    float32 too."""
    red, green, blue = SHARES
    g = x[:, 0] * red
    g.add_(x[:, 1], alpha=green).add_(x[:, 2], alpha=blue)
    return g.mul_(2.0**-16)


def grey_of(x: Tensor) -> Tensor:
    """Whole levels, [N, H, W], half of one rounded up."""
    return x[:, 0].clone() if x.shape[1] == 1 else weighed(x).add_(0.5).floor_()


def brighten(x: Tensor, factor: Tensor) -> None:
    x.mul_(factor).clamp_(max=255).floor_()


def contrast(x: Tensor, factor: Tensor) -> None:
    """Away from the mean of the picture's grey, to whole levels; closer below 1."""
    lines = grey_of(x).sum(-1)  # whole numbers below 2²⁴: exact in whatever order
    count = x.shape[-2] * x.shape[-1]
    mean = (2 * lines.to(torch.int64).sum(-1) + count) // (2 * count)
    _away(x, mean.to(x.dtype)[:, None, None, None], factor)


def saturate(x: Tensor, factor: Tensor) -> None:
    """Away from each pixel's grey; closer below 1."""
    _away(x, grey_of(x)[:, None], factor)


def _away(x: Tensor, middle: Tensor, factor: Tensor) -> None:
    # one after the other: an operation that does two at once would round once, not twice
    x.sub_(middle).mul_(factor).add_(middle).clamp_(0, 255).floor_()


def turn_hue(x: Tensor, turn: Tensor) -> None:
    """Colours moved up the circle of hue, of which 6 is the whole; HSV after Smith 1978, without
    its divisions. turn: from 0 to below 6.

    With d the largest channel less the lowest, d · hue needs no quotient. Masks are numbers, since
    torch chooses by truth values ten times more slowly than it multiplies.
    """
    red, green, blue = x.unbind(1)
    low = torch.minimum(torch.minimum(red, green), blue)
    d = torch.maximum(torch.maximum(red, green), blue).sub_(low)
    hue, spare, mask = _scaled_hue(red, green, blue, low, d)
    hue.add_(torch.mul(d, turn[:, 0], out=spare))
    whole = torch.mul(d, 6, out=spare)
    torch.ge(hue, whole, out=mask)
    hue.sub_(whole.mul_(mask))
    for channel, middle in ((red, 3), (green, 2), (blue, 4)):
        torch.sub(hue, torch.mul(d, middle, out=spare), out=spare).abs_()
        if middle == 3:  # red is lowest in the middle of the circle, the others highest at theirs
            spare.sub_(d)
        else:
            spare.neg_().add_(d, alpha=2)
        torch.minimum(spare, d, out=spare).clamp_(min=0).add_(low).add_(0.5)
        torch.floor(spare, out=channel)


def _scaled_hue(
    red: Tensor, green: Tensor, blue: Tensor, low: Tensor, d: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """d · hue, from 0 to 6 d, by which channel is the lowest; and two tensors to write into."""
    hue = (d * 5).add_(red).sub_(blue)  # where green is
    spare, mask = torch.empty_like(d), torch.empty_like(d)
    for channel, upper, lower, middle in ((red, blue, green, 3), (blue, green, red, 1)):
        torch.eq(channel, low, out=mask)
        torch.sub(upper, lower, out=spare).add_(d, alpha=middle).sub_(hue)
        hue.add_(spare.mul_(mask))
    return hue, spare, mask


BY_NAME: dict[str, Callable[[Tensor, Tensor], None]] = {
    "brightness": brighten, "contrast": contrast, "saturation": saturate, "hue": turn_hue
}  # fmt: skip
