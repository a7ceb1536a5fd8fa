"""Pictures as a dump stores them, in its own words: `resized(256)`.

    resized(H[, W][, FILE])    what the step resize(H[, W]) of the preprocessing leaves of a
                               picture, with all steps before it, as a file: jpeg (quality 95, the
                               default) or png (without loss)

Decoded again, they are what the teacher sees: after the step `resize` a dump's preprocessing has
`jpeg(95)`, where they are JPEGs, and goes on from there. H, W, C of a picture.
"""

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from softlabels.errors import UsageError
from softlabels.inputs.hashing import hash_bytes
from softlabels.inputs.pictures import (
    FILE,
    LARGEST,
    OF_FILE,
    QUALITY,
    SCALING,
    SHOWING,
    SIZED,
    apply_words,
    as_jpeg,
    by_kind,
    how_scaled,
    size_after,
)
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import Picture
from softlabels.inputs.sources import Source
from softlabels.inputs.steps import without_files
from softlabels.spec import Call, parse_pipeline, short

OPTION, WORD = "--store-inputs", "resized"
WHOLE = ("none", "original")
JPEG, PNG = "jpeg", "png"
UPRIGHT = Call("upright", ())


@dataclass(frozen=True)
class Resized:
    """Pictures that are stored as one step of the preprocessing leaves them. `str()` says all of
    it: `resized(256, jpeg)`.

    sizes: those of the step, [height, width], or the shorter side alone
    file: jpeg or png
    """

    sizes: tuple[int, ...]
    file: str = JPEG

    @classmethod
    def parse(cls, text: str) -> "Resized | None":
        """None for `none` and `original`, which store no pictures of their own. Raises UsageError
        for other words."""
        if text in WHOLE:
            return None
        known = f"use {', '.join(WHOLE)}, {WORD}(256), or {WORD}(256, {PNG}) for no loss"
        calls = parse_pipeline(text, OPTION)
        if [call.name for call in calls] != [WORD]:
            raise UsageError(f"{OPTION} is {short(text)!r}; {known}")
        sizes, names, _ = by_kind(calls[0])
        file = names[0] if names else JPEG
        right = 1 <= len(sizes) <= 2 and all(type(n) is int and 0 < n <= LARGEST for n in sizes)
        if not right or [*calls[0].args] != [*sizes, *names[:1]] or file not in (JPEG, PNG):
            raise UsageError(
                f"{OPTION} is {short(text)!r}; sizes are one or two whole numbers from 1 to "
                f"{LARGEST}, then comes {JPEG} or {PNG}: {known}"
            )
        return cls(tuple(sizes), file)

    def __str__(self) -> str:
        return str(Call(WORD, (*self.sizes, self.file)))

    @property
    def title(self) -> str:
        """What was done to them, in messages."""
        return f"after {Call('resize', self.sizes)}"

    @property
    def least(self) -> tuple[int, int]:
        """Height and width of the smallest picture that is stored."""
        return self.sizes[0], self.sizes[-1]

    def within(self, preprocess: Preprocess, source: Source) -> Preprocess:
        """The preprocessing of a dump that stores such pictures: upright, with the step that they
        are stored after, unless it has it already.

        Raises UsageError for inputs that are no pictures, for a function, and for steps that would
        show another part of a stored picture than of the source's, or more pixels than it has.
        """
        if source.kind != "image":
            kind = {"array": "numbers"}.get(source.kind, f"{source.kind.removesuffix('s')}s")
            raise UsageError(
                f"{OPTION} is {self}, which is for pictures, and the inputs of {source.data!r} are "
                f"{kind}: say {OPTION} original"
            )
        if preprocess.is_opaque:
            raise UsageError(
                f"{OPTION} is {self}, and the pictures are preprocessed by {preprocess}, which "
                f"takes them as they are: write the preprocessing as text, or say {OPTION} original"
            )
        steps = preprocess.picture
        steps = steps if preprocess.is_upright else (UPRIGHT, *steps)
        place = next((i for i, step in enumerate(steps) if step.name not in SHOWING), len(steps))
        first = steps[place] if place < len(steps) else None
        if first is not None and first.name == FILE:
            raise UsageError(
                f"{OPTION} is {self}, and {first} comes before all that resizes in the "
                f"preprocessing, {preprocess}: put it behind {Call('resize', self.sizes)}, after "
                f"which pictures are stored"
            )
        if first is None or not self._fits(first):
            raise UsageError(
                f"{OPTION} is {self}, and {_title(first)} of the preprocessing, {preprocess}: what "
                f"is stored would show another part of each picture. Say {OPTION} original, or put "
                f"{Call('resize', self.sizes)} before all that crops or pads, with --preprocess"
            )
        step = Call("resize", (*self.sizes, *how_scaled(first)))
        before, after = (*steps[:place], step), steps[place + (step == first) :]
        self._check_enough(after, preprocess)
        if self.file == JPEG and (step != first or after[:1] != (OF_FILE,)):  # no plan's own words
            before += (OF_FILE,)
        return replace(preprocess, picture=(*before, *after))

    def _fits(self, first: Call) -> bool:
        """Whether a step that comes first in a preprocessing shows the same part of a stored
        picture: one that is in proportion, after another one that is, or one that never is."""
        sizes = by_kind(first)[0]
        squeezes = first.name == "resize" and len(sizes) == 2
        return first.name in SCALING and (squeezes or len(self.sizes) == 1)

    def _check_enough(self, steps: tuple[Call, ...], preprocess: Preprocess) -> None:
        """Raises UsageError where these steps ask for more pixels than a stored picture has."""
        height, width = self.least
        for step in steps:
            if step.name not in SIZED:
                continue
            sizes = by_kind(step)[0]
            if step.name in SCALING:
                new = size_after(height, width, step.name, sizes)
            else:
                new = sizes[0], sizes[-1]
            if step.name != "pad" and (new[0] > height or new[1] > width):
                raise UsageError(
                    f"stored pictures, {self}, may have no more than {height}×{width} pixels where "
                    f"{step} of the preprocessing, {preprocess}, makes {new[0]}×{new[1]} of them: "
                    f"store larger ones, or make smaller ones of them with --preprocess"
                )
            if step.name == "pad":
                height, width = max(height, new[0]), max(width, new[1])
            else:
                height, width = new

    def done_in(self, steps: tuple[Call, ...]) -> int | None:
        """How many of the steps on pictures of a dump's preprocessing stored pictures have behind
        them; None where the steps have no place for these pictures."""
        place = next((i for i, step in enumerate(steps) if step.name not in SHOWING), len(steps))
        before = steps[: place + 1]
        if place == len(steps) or before[0] != UPRIGHT or before[-1].name != "resize":
            return None
        if tuple(by_kind(before[-1])[0]) != self.sizes:
            return None
        if self.file == PNG:
            return len(before)
        return len(before) + 1 if steps[place + 1 : place + 2] == (OF_FILE,) else None

    def of_stored(self, own: Preprocess, given: Preprocess | None = None) -> Preprocess:
        """The preprocessing of the stored pictures of a dump.

        own: the dump's. given: another one: it begins with the same steps up to those that stored
        pictures have behind them, or it is what follows on these.

        Raises UsageError where it asks for more pixels than are stored.
        """
        done = self.done_in(own.picture)
        assert done is not None, "a plan was checked for it"
        if given is None:
            return replace(own, done=done)
        if given.is_opaque:
            return given
        before, steps = without_files(own.picture[:done]), without_files(given.picture)
        if steps[: len(before)] == before:
            after = steps[len(before) :]
        else:
            after = tuple(step for step in steps if step.name not in ("upright", "eight_bit"))
        self._check_enough(after, given)
        return replace(given, picture=(*before, *after), done=len(before))

    def check_shows(self, steps: Preprocess, dump: str, title: str) -> None:
        """Raises UsageError where stored pictures would show a model another part, or another
        scale, than the pictures that its steps are for, those of the source."""
        first = next((step for step in steps.picture if step.name not in SHOWING), None)
        if not steps.is_opaque and (first is None or not self._fits(first)):
            raise UsageError(
                f"{dump} stores pictures {self.title}, and {title} takes them as they come: "
                f"{_title(first)} of its preprocessing, {steps}. Name a dump that stores none, or "
                f"the originals"
            )

    def encode(self, pixels_HWC: np.ndarray) -> bytes:
        """The file that is stored of a resized picture, without EXIF data."""
        if self.file == JPEG:
            return as_jpeg(pixels_HWC, QUALITY)
        buffer = io.BytesIO()
        grey = pixels_HWC.shape[2] == 1
        Image.fromarray(pixels_HWC[:, :, 0] if grey else pixels_HWC).save(buffer, "PNG")
        return buffer.getvalue()


class Storing:
    """The preprocessing of one picture that is stored on its way: what is decoded again of the
    stored file goes on to the teacher.

    content: the file, once the picture was read. hash: its input hash
    """

    is_opaque = False
    content: bytes
    hash: int

    def __init__(self, resized: Resized, preprocess: Preprocess) -> None:
        done = resized.done_in(preprocess.picture)
        assert done is not None, "the preprocessing was made for it"
        self.resized, self.rest = resized, replace(preprocess, done=done)
        self.before = without_files(preprocess.picture[:done])

    def on_picture(self, picture: Picture) -> np.ndarray:
        return self.rest.on_picture(self.stored(picture))

    def stored(self, picture: Picture) -> Picture:
        """What others will decode of it."""
        self.content = self.resized.encode(apply_words(picture, self.before))
        self.hash = hash_bytes(self.content)
        return Picture(self.content)


def _title(first: Call | None) -> str:
    return "no step changes the size" if first is None else f"the first step that does is {first}"
