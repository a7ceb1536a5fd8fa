"""The inputs of training rows, changed at random in each epoch. N rows of a batch."""

import numpy as np
import torch
from torch import Tensor

from softlabels.errors import UsageError
from softlabels.inputs.cropping import Cropping
from softlabels.inputs.examples import Examples
from softlabels.inputs.views.augment import Augment
from softlabels.inputs.views.chance import counters
from softlabels.inputs.views.mixing import WEIGHT, mixed, partners_of

OPTION = "--augment"


class Augmented:
    """Examples as an epoch of training shows them.

    What a row looks like is drawn for (seed, id, epoch) alone, so neither the batch, the rank nor a
    resume changes it. ids: of all rows, int64 or str.

    Raises UsageError where the augmentation does not fit the inputs.
    """

    def __init__(self, examples: Examples, augment: Augment, seed: int, ids: np.ndarray) -> None:
        self.augment, self.cropping = fit_to(examples, augment)
        self.examples, self.seed, self.keys = examples, seed, counters(ids)
        self.among = np.arange(len(ids))
        if self.cropping is not None:
            examples.decode_when_asked()

    def gather(self, rows: np.ndarray, epoch: int) -> Tensor:
        """The inputs of these rows as this epoch, 1 or more, shows them, [N, C, H, W], as `gather`
        of examples gives them."""
        shown, mixing = self._alone(rows, epoch), self.augment.mixing
        if mixing is None:
            return shown
        others = self._alone(self.partners(rows, epoch)[0], epoch)
        return mixed(shown, others, mixing.draw(self.seed, self.keys[rows], epoch))

    def mix_among(self, rows: np.ndarray) -> None:
        """Mix with these rows alone, ascending: those that are trained on. Raises UsageError where
        mixing needs more."""
        self.among = rows
        if self.augment.mixing is not None and len(rows) < 2:
            raise UsageError(
                f"{OPTION}: {self.augment.mixing} mixes an input with another one, and there is "
                f"one to train on; leave it out"
            )

    def partners(self, rows: np.ndarray, epoch: int) -> tuple[np.ndarray, Tensor]:
        """The rows that these are mixed with, int64 [N], and the weights of their own inputs."""
        assert self.augment.mixing is not None, "there are partners"
        keys_N, places_N = self.keys[rows], np.searchsorted(self.among, rows)
        others_N = partners_of(self.seed, keys_N, epoch, places_N, len(self.among))
        weights_N = self.augment.mixing.draw(self.seed, keys_N, epoch)[WEIGHT]
        return self.among[others_N], torch.from_numpy(weights_N)

    def _alone(self, rows: np.ndarray, epoch: int) -> Tensor:
        """Not mixed with others yet."""
        keys_N = self.keys[rows]
        if self.cropping is None:
            inputs = self.examples.gather(rows)
        else:
            preprocesses = self.cropping.drawn(self.seed, keys_N, epoch)
            inputs = self.examples.gather_pictures(rows, preprocesses)
        return self.augment.apply(inputs, self.augment.draw(self.seed, keys_N, epoch))

    @property
    def reads_ahead(self) -> bool:
        """As that of examples; what is cropped is decoded for each batch."""
        if self.cropping is None:
            return self.examples.reads_ahead
        return not self.examples.source.runs_code

    @property
    def remarks(self) -> list[str]:
        """What is done, for the user."""
        text = f"augmented by {self.augment}, drawn for each epoch by data seed {self.seed}"
        lines = [f"{text}; held-out rows stay as they are"]
        return lines if self.cropping is None else [*lines, str(self.cropping)]


def fit_to(examples: Examples, augment: Augment) -> tuple[Augment, Cropping | None]:
    """What draws and shows views of these inputs, and what crops their pictures, if anything does.
    Raises UsageError where they don't fit together."""
    preprocess, crop = examples.preprocess, augment.crop
    if preprocess.is_opaque:
        raise UsageError(
            f"{OPTION} is {str(augment)!r}, which works on pixels; what the function {preprocess} "
            f"gives may be none. Write the preprocessing as text"
        )
    if examples.source.is_by_name:
        raise UsageError(
            f"{OPTION} is {str(augment)!r}, which works on pixels; the inputs are columns, "
            f"{', '.join(examples.source.columns.inputs)}. Leave it out"
        )
    fitted = augment.on(examples.input_shape, OPTION)
    if crop is None:
        # a step may not be for numbers of this type
        fitted.apply(examples.sample(1), fitted.draw(0, np.zeros(1, np.uint64), 1))
        return fitted, None
    if examples.source.kind != "image":
        raise UsageError(
            f"{OPTION}: {crop} crops encoded pictures before they are resized; the inputs of "
            f"{examples.source.data!r} are numbers. Use random_crop, such as "
            f"random_crop({crop.height}, 4)"
        )
    return fitted, Cropping(preprocess, crop)
