"""Augmentations against torchvision: the same pixels of a box and of a colour, boxes and parts
drawn by the same formula."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from softlabels.inputs.cropping import Cropping
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import Picture
from softlabels.inputs.views.augmentations import RandomResizedCrop
from softlabels.inputs.views.erasing import HEIGHT, LEFT, TOP, WIDTH, Erase
from softlabels.inputs.views.recolouring import CHANGES, ORDER, ORDERS, ColorJitter, Grey
from tests.inputs.test_preprocess import picture

v2 = pytest.importorskip("torchvision.transforms.v2")
timm_data = pytest.importorskip("timm.data")
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
        crop.chances(0, np.arange(20), 1), cropping.drawn(0, np.arange(20), 1), strict=True
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


def pictures(count: int) -> torch.Tensor:
    """Half of them noise, half a photograph's colours; uint8 [N, 3, 40, 30]."""
    noise = np.random.default_rng(0).integers(0, 256, (count // 2, 40, 30, 3), np.uint8)
    smooth = [np.asarray(picture(40 + i, 30 + i))[:40, :30] for i in range(count - count // 2)]
    return torch.from_numpy(np.stack([*noise, *smooth])).permute(0, 3, 1, 2).contiguous()


def with_pillow(shown: torch.Tensor, function, *arguments) -> torch.Tensor:
    image = function(Image.fromarray(shown.permute(1, 2, 0).numpy()), *arguments)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def apart(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


@pytest.mark.parametrize("name", CHANGES)
def test_a_colour_is_that_of_adjust(name):
    """Level for level as of Pillow's pictures, but for hue, and within one as of tensors."""
    adjust, batch = getattr(v2.functional, f"adjust_{name}"), pictures(60)
    step = ColorJitter(**{"brightness": 0} | {name: 0.5 if name == "hue" else 1})
    drawn = step.draw(0, np.arange(60), 1)
    for before, after, factor in zip(
        batch, step.apply(batch, drawn), drawn[name].tolist(), strict=True
    ):
        assert apart(after, adjust(before, factor)) <= 1
        if name != "hue":
            assert torch.equal(after, with_pillow(before, adjust, factor))


@pytest.mark.parametrize("hue", [0, 0.1])
def test_color_jitter_is_that_of_torchvision_with_the_same_factors(hue):
    """Through its own transform. Of Pillow's pictures to the level, but for hue; of tensors within
    a few, since each change of a level goes through those after it."""
    batch, step = pictures(120), ColorJitter(0.4, 0.4, 0.4, hue)
    theirs = v2.ColorJitter(0.4, 0.4, 0.4, hue)
    drawn = step.draw(1, np.arange(120), 1)
    differences = []
    for i, (before, after) in enumerate(zip(batch, step.apply(batch, drawn), strict=True)):
        numbers = [CHANGES.index(name) for name in ORDERS[drawn[ORDER][i]]]
        factors = {f"{name}_factor": float(drawn[name][i]) for name in CHANGES}
        params = {"fn_idx": torch.tensor(numbers), **factors}
        params["hue_factor"] = params["hue_factor"] or None  # Pillow's way to HSV and back loses
        differences.append((after.int() - theirs.transform(before, params).int()).abs())
        if not hue:
            assert torch.equal(after, with_pillow(before, theirs.transform, params))
    differences = torch.stack(differences).float()
    assert differences.max() <= 4
    assert differences.mean() < 0.3


def test_grey_is_that_of_torchvision():
    batch = pictures(60)
    shown = Grey(1).apply(batch, Grey(1).draw(0, np.arange(60), 1))
    for before, after in zip(batch, shown, strict=True):
        assert apart(after, v2.functional.rgb_to_grayscale(before, 3)) <= 1
        assert torch.equal(after, with_pillow(before, v2.functional.rgb_to_grayscale, 3))


def test_a_part_is_erased_as_by_torchvision():
    batch, step = pictures(60), Erase(0.7, fill=(124, 116, 104)).on([3, 40, 30], "it")
    drawn = step.draw(0, np.arange(60), 1)
    fill = torch.tensor([124, 116, 104], dtype=torch.uint8)[:, None, None]
    for i, (before, after) in enumerate(zip(batch, step.apply(batch, drawn), strict=True)):
        box = [int(drawn[name][i]) for name in (TOP, LEFT, HEIGHT, WIDTH)]
        assert torch.equal(after, v2.functional.erase(before, *box, fill))


@pytest.mark.parametrize("size", [(224, 224), (32, 32), (30, 200)])
@pytest.mark.parametrize("whose", ["torchvision", "timm"])
def test_parts_are_distributed_as_theirs(size, whose):
    """timm erases in place, from 0.3 to 1/0.3 times as high as wide; torchvision to 3.3."""
    torch.manual_seed(0)
    random.seed(0)
    count, step = 2000, Erase(1, 0.02, 1 / 3).on([1, *size], "it")
    drawn = step.draw(0, np.arange(count), 1)
    ours = np.stack([drawn[name] for name in (TOP, LEFT, HEIGHT, WIDTH)], axis=1)
    theirs = []
    blank = torch.zeros(1, *size)
    random_erasing = v2.RandomErasing(1, scale=(0.02, 1 / 3))
    of_timm = timm_data.random_erasing.RandomErasing(1, mode="const", device="cpu")
    for _ in range(count):
        if whose == "torchvision":
            params = random_erasing.make_params([blank])
            theirs.append([params[name] if params["v"] is not None else 0 for name in "ijhw"])
        else:
            rows, columns = np.nonzero(of_timm(torch.ones(1, *size))[0].numpy() == 0)
            first = (rows.min(), columns.min()) if len(rows) else (0, 0)
            theirs.append([*first, len(set(rows)), len(set(columns))])
    at = np.linspace(0.1, 0.9, 9)
    for column, side in zip(range(4), (*size, *size), strict=True):
        quantiles = (np.quantile(boxes[:, column], at) for boxes in (ours, np.array(theirs)))
        assert abs(np.subtract(*quantiles)).max() < 0.05 * side + 1


def _params(image: Image.Image, **words) -> tuple[int, int, int, int]:
    drawn = v2.RandomResizedCrop(56, **words).make_params([image])
    return drawn["top"], drawn["left"], drawn["height"], drawn["width"]
