"""Random crops against torchvision: the same pixels of a box, boxes drawn by the same formula."""

import numpy as np
import pytest
import torch
from PIL import Image

from softlabels.inputs.augmentations import RandomResizedCrop
from softlabels.inputs.cropping import Cropping
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import Picture
from tests.inputs.test_preprocess import picture

v2 = pytest.importorskip("torchvision.transforms.v2")
TEXTS = {
    "bilinear": "rgb|resize(64, pillow)|center_crop(56)",
    "bicubic": "rgb|crop_pct(0.9, 56, squash, bicubic, pillow)",
    "lanczos": "rgb|cover(60, lanczos)|center_crop(56)",
    "nearest": "rgb|resize(56, 56, nearest)",
}


@pytest.mark.parametrize("filter", TEXTS)
@pytest.mark.parametrize("size", [(120, 90), (40, 300), (30, 31)])
def test_a_box_has_the_pixels_of_resized_crop(filter, size):
    image, crop = picture(*size), RandomResizedCrop(56, 48)
    cropping = Cropping(Preprocess.parse(TEXTS[filter]), crop)
    for chances, one in zip(
        crop.chances(0, np.arange(20), 1), cropping.of(0, np.arange(20), 1), strict=True
    ):
        box = crop.box(chances.tolist(), image.height, image.width)
        mode = v2.InterpolationMode(filter)
        expected = v2.functional.resized_crop(image, *box, [56, 48], mode)
        pixels = np.asarray(expected.convert("RGB")).transpose(2, 0, 1)
        assert np.array_equal(one.on_picture(Picture(image)), pixels)


@pytest.mark.parametrize("size", [(480, 640), (300, 310), (100, 400), (500, 90)])
def test_boxes_are_distributed_as_those_of_torchvision(size):
    torch.manual_seed(0)
    image, crop, count = Image.new("L", size[::-1]), RandomResizedCrop(56, 56), 3000
    theirs = np.array([_params(image) for _ in range(count)])
    ours = np.array([crop.box(c.tolist(), *size) for c in crop.chances(0, np.arange(count), 1)])
    at = np.linspace(0, 1, 11)
    for column, side in zip(range(4), (*size, *size), strict=True):
        apart = np.quantile(ours[:, column], at[1:-1]) - np.quantile(theirs[:, column], at[1:-1])
        assert abs(apart).max() < 0.05 * side


@pytest.mark.parametrize("size", [(3, 1000), (1000, 3), (1, 1), (2, 9)])
def test_where_no_box_fits_the_middle_is_theirs(size):
    """Where boxes are never drawn, so that nothing is left to chance."""
    image, crop = Image.new("L", size[::-1]), RandomResizedCrop(56, 56, 1, 1)
    chances = crop.chances(0, np.arange(1), 1)[0].tolist()
    assert crop.box(chances, *size) == _params(image, scale=(1, 1))


def _params(image: Image.Image, **words) -> tuple[int, int, int, int]:
    drawn = v2.RandomResizedCrop(56, **words).make_params([image])
    return drawn["top"], drawn["left"], drawn["height"], drawn["width"]
