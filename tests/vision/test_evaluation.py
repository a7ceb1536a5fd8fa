"""The pixels of torchvision's and timm's ImageNet evaluation, beside ours.

Skipped where one of them is not installed: they need the torch that they were built for.
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from softlabels.errors import UsageError
from softlabels.inputs.examples import as_tensor
from softlabels.inputs.preprocess import Preprocess
from tests.inputs.test_orientation import turned
from tests.inputs.test_preprocess import picture

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORMAL = f"scale(255)|normalize({MEAN}, {STD})"
FILTERS = ["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"]
MODES = ["RGB", "L", "P", "CMYK", "RGBA", "LA", "1", "YCbCr"]
sides, filters, modes = st.integers(1, 90), st.sampled_from(FILTERS), st.sampled_from(MODES)


def ours(image: Image.Image, words: str) -> torch.Tensor:
    preprocess = Preprocess.parse(words)
    return preprocess.on_numbers(as_tensor(preprocess.on_picture(image)[None]))[0]


@given(sides, sides, st.integers(1, 64), filters, modes, st.data())
def test_torchvision_resize_and_center_crop(height, width, size, name, mode, data):
    transforms = pytest.importorskip("torchvision.transforms")
    crop = data.draw(st.integers(1, size))
    image = picture(height, width).convert(mode)
    theirs = transforms.Compose(
        [
            transforms.Resize(size, transforms.InterpolationMode(name)),
            transforms.CenterCrop(crop),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )(image.convert("RGB"))
    found = ours(image, f"rgb|resize({size}, {name}, pillow)|center_crop({crop})|{NORMAL}")
    assert torch.equal(found, theirs)
    exact = transforms.Resize((size, crop), transforms.InterpolationMode(name))
    exact = transforms.functional.pil_to_tensor(exact(image.convert("RGB")))
    pixels = Preprocess.parse(f"rgb|resize({size}, {crop}, {name}, pillow)").on_picture(image)
    assert np.array_equal(pixels, exact.numpy())


@pytest.mark.parametrize(("height", "width"), [(500, 375), (333, 500), (232, 232), (300, 1000)])
def test_what_torchvision_writes_for_its_weights(height, width):
    models = pytest.importorskip("torchvision.models")
    image = picture(height, width)
    words = f"rgb|resize(232, pillow)|center_crop(224)|{NORMAL}"
    theirs = models.ResNet50_Weights.IMAGENET1K_V2.transforms()(image)
    assert torch.equal(ours(image, words), theirs)


def test_torchvision_does_not_turn_pictures(tmp_path):
    folder = pytest.importorskip("torchvision.datasets.folder")
    path = tmp_path / "turned.png"
    path.write_bytes(turned(6))
    found = Preprocess.parse("rgb").on_picture(Image.open(path))
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(folder.default_loader(str(path))))


@given(sides, sides, st.integers(1, 90), st.integers(1, 90), modes)
def test_torchvision_pads_what_is_smaller_than_the_crop(height, width, high, wide, mode):
    transforms = pytest.importorskip("torchvision.transforms")
    image = picture(height, width).convert(mode)
    theirs = transforms.functional.pil_to_tensor(
        transforms.CenterCrop((high, wide))(image.convert("RGB"))
    )
    words = Preprocess.parse(f"rgb|pad({high}, {wide})|center_crop({high}, {wide})")
    assert np.array_equal(words.on_picture(image), theirs.numpy())


@given(sides, sides, st.integers(1, 64), st.integers(1, 64) | st.none(), filters,
       st.sampled_from([0.5, 0.875, 0.9, 0.95, 1.0, 1.1]),
       st.sampled_from(["center", "squash", "border"]), modes)  # fmt: skip
def test_timm_evaluation(height, width, high, wide, name, share, mode, colours):
    data = pytest.importorskip("timm.data")
    image = picture(height, width).convert(colours)
    transform = data.create_transform(
        (3, high, wide or high), interpolation=name, mean=MEAN, std=STD, crop_pct=share,
        crop_mode=mode,
    )  # fmt: skip
    sizes = f"{high}, {wide}" if wide else high
    fill = f", {tuple(round(255 * mean) for mean in MEAN)}" if mode == "border" else ""
    words = f"rgb|crop_pct({share}, {sizes}, {mode}, {name}, pillow{fill})|{NORMAL}"
    try:
        theirs = transform(image.convert("RGB"))
    except (ValueError, ZeroDivisionError):  # a side of 0 pixels
        with pytest.raises((ValueError, UsageError)):
            ours(image, words)
    else:
        assert torch.equal(ours(image, words), theirs)


@pytest.mark.parametrize("save", [
    lambda path: picture(9, 8).convert("CMYK").save(path.with_suffix(".jpg")),
    lambda path: picture(9, 8).convert("RGBA").save(path.with_suffix(".png")),
    lambda path: picture(9, 8).convert("P").save(path.with_suffix(".png"), transparency=3),
    lambda path: picture(9, 8).convert("L").save(path.with_suffix(".png"), transparency=3),
    lambda path: picture(9, 8).save(path.with_suffix(".gif"), save_all=True,
                                    append_images=[picture(8, 9).resize((8, 9))]),
])  # fmt: skip
def test_files_give_what_torchvision_loads_of_them(tmp_path, save):
    folder = pytest.importorskip("torchvision.datasets.folder")
    save(tmp_path / "a")
    (path,) = tmp_path.iterdir()
    found = Preprocess.parse("rgb").on_picture(Image.open(path))
    assert np.array_equal(found.transpose(1, 2, 0), np.asarray(folder.default_loader(str(path))))
