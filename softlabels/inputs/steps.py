"""The language of the steps from a stored input to the numbers that a model sees, such as
`rgb|resize(256)|scale(255)`; `preprocess` takes them.

    upright                 turned as its EXIF orientation says; first     on the picture
    eight_bit               16 bits become 8, value // 256; first, or      on the picture
                            after upright. Other pictures stay
    grey, rgb               to one or three channels                       on the picture
    reduced[(n)]            JPEGs are decoded at 1/2, 1/4 or 1/8 of their  on the picture
                            size, if that is at least n times the size
                            that the next step scales them to (2)
    resize(H)               the shorter side is H, the aspect is kept      on the picture
    resize(H, W)            exactly so
    contain(H[, W])         the largest inside H×W, the aspect is kept     on the picture
    cover(H[, W])           the smallest around H×W, the aspect is kept    on the picture
    pad(H[, W][, (r, g, b)])  borders up to H×W, black or of this colour   on the picture
    center_crop(H[, W])     the middle; after `floor` as last argument,    on the picture
                            half a pixel is rounded down, as transformers
                            does, and else to even, as torchvision does
    crop_pct(share, H[, W]) timm's evaluation, of its mode center (the     on the picture
                            default), squash or border, which needs a
                            fill: stands for the words above, of which
                            the text then consists
    jpeg(q)                 through a JPEG of quality q, 4:4:4, as some    on the picture
                            dumps store pictures, see `stored_pictures`
    scale(d)                divide by d                                    on numbers
    normalize(mean, std)    (x − mean) / std; numbers, or one tuple        on numbers
                            entry a channel
    tokens[(pad)]           whole numbers stay whole: int64; of columns    on numbers, alone
                            of tokens, which one rows are padded with
    floats[(name, …)]       of columns that a model takes by name: whole     on numbers, alone
                            numbers as float32, all or those named
    opaque(name, hash)      a function of the user's, see `functions`      alone
    tokenizer(name, hash[, most][, truncate])                              alone
                            of texts: `own` for the model's tokenizer,
                            else its name; its hash, see
                            `models.tokenizers`; the most tokens that the
                            model takes, and whether longer texts are cut

resize, contain, cover and crop_pct take the name of a filter after the sizes, bilinear (the
default), bicubic, …, then that of a resizer: torch (the default for these two filters), or pillow,
which has all. The text of a `Preprocess` says both.

Steps on the picture come first. They give uint8 [C, H, W], one input at a time, and their result is
cached. Steps on numbers run on whole float32 batches, on the training device.
"""

import math
from typing import Any

from softlabels.errors import UsageError
from softlabels.inputs.crop_percentage import crop_percentage
from softlabels.inputs.pictures import (
    FILE,
    LARGEST,
    OF_FILE,
    REDUCED,
    SCALING,
    SHOWING,
    SIZED,
    by_kind,
    in_full,
)
from softlabels.inputs.resizing import FILTERS, RESIZERS
from softlabels.spec import Call, parse_pipeline, short

ON_PICTURE = {
    "upright": (0, 0), "eight_bit": (0, 0), "grey": (0, 0), "rgb": (0, 0), "reduced": (0, 1),
    "resize": (1, 4), "contain": (1, 4), "cover": (1, 4), "pad": (1, 3), "center_crop": (1, 3),
    "crop_pct": (2, 7), "jpeg": (1, 1),
}  # fmt: skip
ON_NUMBERS = {"scale": (1, 1), "normalize": (2, 2), "tokens": (0, 1), "floats": (0, 1000)}
ALONE = ("tokens", "floats")
OPAQUE = "opaque"
TOKENIZER, TRUNCATE, OWN = "tokenizer", "truncate", "own"


def parse_steps(text: str) -> tuple[tuple[Call, ...], tuple[Call, ...]]:
    """The steps on the picture and those on numbers, of the text of --preprocess, with crop_pct as
    the steps it stands for.

    Raises UsageError for an unknown step, a wrong number of arguments or a wrong order.
    """
    picture: list[Call] = []
    numbers: list[Call] = []
    steps = parse_pipeline(text, "--preprocess")
    if [step.name for step in steps] in ([OPAQUE], [TOKENIZER]):
        return tuple(steps), ()
    for call in steps:
        known = ON_PICTURE | ON_NUMBERS
        if call.name not in known:
            raise UsageError(f"--preprocess: no word {short(call.name)!r}; use {', '.join(known)}")
        least, most = known[call.name]
        if not least <= len(call.args) <= most:
            count = least if least == most else f"{least} to {most}"
            raise UsageError(f"--preprocess: {call} has not {count} arguments")
        if call.name in ON_PICTURE and numbers:
            raise UsageError(f"--preprocess: {call} must come before {numbers[0]}")
        calls = crop_percentage(call) if call.name == "crop_pct" else [call]
        for each in calls:
            _check_arguments(each)
            _check_place(each, picture)
            whole = _in_full(each) if each.name in SCALING else each
            (picture if each.name in ON_PICTURE else numbers).append(whole)
    _check_reduced(picture)
    alone = next((call.name for call in numbers if call.name in ALONE), None)
    if len(picture) + len(numbers) > 1 and alone is not None:
        raise UsageError(f"--preprocess: {alone} stands alone, not in {text!r}")
    return tuple(picture), tuple(numbers)


def check_record(text: str) -> None:
    """Raises UsageError for a step of a record that scales and leaves out its filter or its
    resizer: what they are by default is a user's choice of today, not what a teacher saw."""
    for call in parse_pipeline(text, "preprocess"):
        _, names, _ = by_kind(call)
        short_one = call.name in SCALING and len(names) < len(("filter", "resizer"))
        if short_one or call.name == "crop_pct":
            raise UsageError(
                f"preprocess has the step {short(str(call))}, and a record says with which "
                f"filter and resizer pictures were scaled, such as resize(256, bilinear, "
                f"pillow). It is of an older softlabels, or by hand: dump again"
            )


def _check_place(call: Call, before: list[Call]) -> None:
    if call.name == "upright" and before:
        raise UsageError("--preprocess: upright must come first, and once")
    if call.name == "eight_bit" and [each.name for each in before] not in ([], ["upright"]):
        raise UsageError("--preprocess: eight_bit must come first, or after upright, and once")


def _check_reduced(picture: list[Call]) -> None:
    names = [call.name for call in picture]
    if REDUCED not in names:
        return
    place = names.index(REDUCED)
    sizing = next((name for name in names if name not in SHOWING), None)
    if names.count(REDUCED) > 1 or sizing not in SCALING or names.index(sizing) < place:
        raise UsageError(
            f"--preprocess: {picture[place]} must come once, before the first step that changes "
            f"the size, and this one of {', '.join(SCALING)}: it decodes JPEGs at a part of their "
            f"size where they are scaled down further"
        )


def without_files(steps: tuple[Call, ...]) -> tuple[Call, ...]:
    """Without the files that dumps store: any other `jpeg` is a step that the user chose."""
    return tuple(
        step
        for place, step in enumerate(steps)
        if step != OF_FILE or place == 0 or steps[place - 1].name != "resize"
    )


def _check_arguments(call: Call) -> None:
    if call.name == FILE:
        if not (type(call.args[0]) is int and 1 <= call.args[0] <= 100):
            raise UsageError(f"--preprocess: {call}: the quality is a whole number from 1 to 100")
        return
    if call.name == REDUCED:
        if not all(type(n) in (int, float) and _is_finite(n) and n >= 1 for n in call.args):
            raise UsageError(f"--preprocess: {call}: how many times as large is a number from 1 on")
        return
    (_check_sizes if call.name in SIZED else _check_numbers)(call)


def _in_full(call: Call) -> Call:
    try:
        return in_full(call)
    except ValueError as error:
        raise UsageError(f"--preprocess: {call}: {error}") from error


def _check_sizes(call: Call) -> None:
    sizes, names, fills = by_kind(call)
    for name in names:
        if name not in SIZED[call.name]:
            what = "filter" if call.name in SCALING else "word"
            known = ", ".join(SIZED[call.name]) or "none"
            raise UsageError(f"--preprocess: {call}: no {what} {name!r}; use {known}")
    if not 1 <= len(sizes) <= 2 or not all(type(n) is int and 0 < n <= LARGEST for n in sizes):
        raise UsageError(
            f"--preprocess: {call}: sizes must be one or two whole numbers from 1 to {LARGEST}"
        )
    if call.name in SCALING:
        filters, resizers = (
            [name for name in names if name in kind] for kind in (FILTERS, RESIZERS)
        )
        if [*call.args] != [*sizes, *filters[:1], *resizers[:1], *fills[:1]]:
            raise UsageError(
                f"--preprocess: {call}: sizes come first, then one filter, then torch or pillow"
            )
    elif [*call.args] != [*sizes, *names[:1], *fills[:1]]:
        raise UsageError(f"--preprocess: {call}: sizes come first, then one name or fill")
    if fills and call.name != "pad":
        raise UsageError(f"--preprocess: {call}: only pad takes a fill, such as {fills[0]}")
    if fills and not (len(fills[0]) in (1, 3) and all(map(_is_byte, fills[0]))):
        raise UsageError(
            f"--preprocess: {call}: a fill has one or three whole numbers from 0 to 255"
        )


def _is_byte(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 255


def _check_numbers(call: Call) -> None:
    args = call.args
    if call.name == "floats":
        if not all(isinstance(name, str) for name in args):
            raise UsageError(f"--preprocess: {call}: write names of columns, such as floats(age)")
        return
    if call.name == "tokens":
        if args and not (type(args[0]) is int and args[0] >= 0):
            raise UsageError(f"--preprocess: {call}: the token of padding is a whole number from 0")
        return
    if not all(type(n) in (int, float) and _is_finite(n) for arg in args for n in _flat(arg)):
        raise UsageError(f"--preprocess: {call}: arguments must be finite numbers")
    if args and 0 in _flat(args[-1]):
        raise UsageError(f"--preprocess: {call} divides by 0")
    channels = {len(arg) for arg in args if isinstance(arg, tuple | list)}
    if channels and (call.name == "scale" or len(channels) > 1 or 0 in channels):
        raise UsageError(
            f"--preprocess: {call}: write one number, or for normalize one tuple entry a channel"
        )


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # whole, and larger than a float can be
        return False


def _flat(arg: Any) -> list:
    return list(arg) if isinstance(arg, tuple | list) else [arg]
