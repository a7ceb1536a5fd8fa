"""Whether a model's preprocessing in words is what its own library does, pixel for pixel.

The words are made from the model's configuration, field by field, and a library may do more with a
field than its name says. So both are run on pictures before the words stand in a plan.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from softlabels.errors import TeacherError
from softlabels.inputs.examples import as_tensor
from softlabels.inputs.preprocess import Preprocess
from softlabels.models.model import Model

SIZES = [(301, 500), (512, 387), (640, 640)]  # H, W: a step that rounds otherwise shows in one
CLOSE = 1e-4  # of numbers of a few units; one level of a pixel is 0.004 or more of them


def check_own_preprocessing(model: Model, sizes: Sequence[tuple[int, int]] = SIZES) -> None:
    """Raises TeacherError where words can't say how the teacher's library prepares a picture, or
    say something else. sizes: height and width of the pictures that are tried."""
    remedy = "Say with --preprocess what is done instead, if you know that it is as good"
    if model.unsaid:
        raise TeacherError(
            f"{model.title} does not say how pictures become its inputs in words that "
            f"--preprocess has: {model.unsaid}. {remedy}"
        )
    if model.transform is None or model.preprocess is None:
        return
    # with these libraries' own resizer, so that a difference is one of sizes, filters or order
    preprocess = Preprocess.parse(model.preprocess).by_pillow
    draw = np.random.default_rng(0)
    for height, width in sizes:
        image = Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))
        theirs = model.transform(image).float()
        try:
            ours = preprocess.on_numbers(as_tensor(preprocess.on_picture(image)[None]))[0]
        except ValueError as error:
            raise TeacherError(
                f"{model.preprocess}, as the configuration of {model.title} reads, can't be "
                f"applied to a picture: {error}. {remedy}"
            ) from error
        if ours.shape != theirs.shape or not ours.allclose(theirs, atol=CLOSE, rtol=CLOSE):
            same = ours.shape == theirs.shape
            how = f"by up to {float((ours - theirs).abs().max()):.2g}" if same else "in their shape"
            raise TeacherError(
                f"the inputs that {model.title}'s own library makes of a picture of "
                f"{height}×{width} differ {how} from those of {model.preprocess}, as its "
                f"configuration reads. {remedy}"
            )
