"""The language of augmentations: what is drawn, and what is made of pictures."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softlabels.errors import UsageError
from softlabels.inputs.views.augment import parse_augment
from softlabels.inputs.views.augmentations import FLIP, Flip, RandomCrop, RandomResizedCrop
from softlabels.inputs.views.chance import counters

TENSOR_WORDS = (
    "random_crop((8, 6), 3)|flip|jitter(2)|color_jitter(1, 1, 1, 0.5)|grey(0.5)|erase(1, 0.1, 0.5)"
)
PICTURES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 8, 6), np.uint8))


@pytest.mark.parametrize(
    "text",
    [
        "random_resized_crop(224)|flip",
        "random_resized_crop(224, 0.35, 1)",
        "random_resized_crop((128, 256), 0.12345678, 0.9)|random_crop((128, 256), 4)|jitter(2)",
        "random_crop(32, 4)|flip",
        "flip|random_crop((8, 6), 1)",
        "jitter(2)",
        "color_jitter(0.4)|grey(0.2)|erase(0.25)",
        "color_jitter(0, 0.4, 0, 0.1)",
        "color_jitter(0.4, 0.4, 0.4)|erase(1, 127)",
        "erase(0.25, 0.1, 0.2)|flip",
        "erase(0.25, 0.1, 0.2, (124, 116, 104))",
    ],
)
def test_text_round_trips(text):
    assert str(parse_augment(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; use random_resized_crop"),
        ("flop", r"no word 'flop'; did you mean flip\? Use random_resized_crop, random_crop, flip"),
        ("RandomCrop(32)", "no word 'RandomCrop'; did you mean random_crop"),
        ("flip|flip", "flip comes 2 times; use it once"),
        (
            "flip|random_resized_crop(8)",
            "random_resized_crop must come first, since it crops th",
        ),
        ("flip(0.3)", "flip takes no number; it flips half of them"),
        ("jitter(0)", "has not one whole number of pixels from 1 to"),
        ("random_crop", "can't read 'random_crop'; write the size and the padding"),
        ("random_crop(32, -1)", r"can't read 'random_crop\(32, -1\)'; write the size and the"),
        ("random_crop(32, 32, 4)", "write the size and the padding"),
        ("random_crop((32, 4.5))", "write the size and the padding"),
        ("random_resized_crop(0.5)", "write the size in whole pixels"),
        ("random_resized_crop(9999)", "write the size in whole pixels"),
        ("random_resized_crop(8, 0.5, 0.3)", "shares of the area lie between 0 and 1, the least"),
        ("random_resized_crop(8, 0, 1)", "shares of the area lie between 0 and 1"),
        ("random_resized_crop(8, 0.1, 224)", "shares of the area lie between 0 and 1"),
        ("random_resized_crop(8, bicubic)", "write the size in whole pixels"),
        ("color_jiter(0.4)", r"no word 'color_jiter'; did you mean color_jitter\?"),
        ("color_jitter", "can't read 'color_jitter'; write how far brightness, contrast, satura"),
        ("color_jitter(-0.1)", "each a number of 0 or more"),
        ("color_jitter(1e999)", "each a number of 0 or more"),
        ("color_jitter(0.4, 0.4, 0.4, 0.1, 0.1)", "as many of the four as you like"),
        ("color_jitter(0, 0, 0, 0.6)", "moves hue by up to 0.6, and 0.5 reaches all of the circ"),
        ("color_jitter(0, 0)", "changes nothing; use numbers above 0"),
        ("grey", "can't read 'grey'; write the share of the pictures that turn grey, above 0"),
        ("grey(0)", "above 0 and up to 1, such as grey"),
        ("grey(1.5)", "above 0 and up to 1, such as grey"),
        ("erase", "can't read 'erase'; write the share of the pictures, if you like the least"),
        ("erase(0)", "can't read 'erase.0.'; write the share"),
        ("erase(0.5, 0.2)", "the level that fills it, from 0 to 255, or one a channel"),
        ("erase(0.5, 256)", "the level that fills it, from 0 to 255, or one a channel"),
        ("erase(0.5, 0.1, 0.2, ())", "the level that fills it, from 0 to 255, or one a channel"),
        ("erase(0.5, 0.3, 0.2)", "shares of the area lie between 0 and 1, the least first, such"),
        ("erase(0.5, 0, 0.2)", "shares of the area lie between 0 and 1, the least first, such"),
    ],
)
def test_what_is_no_augmentation_is_refused(text, message):
    with pytest.raises(UsageError, match=f"--augment.*{message}"):
        parse_augment(text)


@pytest.mark.parametrize(
    ("text", "shape", "message"),
    [
        ("flip", [6], r"is for pictures \[C, H, W\]; these inputs are \[6\]. Leave it out"),
        ("flip", [32, 32, 3], r"these inputs are \[32, 32, 3\], with channels last as it seems"),
        ("jitter(8)", [1, 8, 9], "jitter.8. can shift pictures of 8×9 pixels out of sight; use le"),
        ("random_crop(13, 2)", [3, 8, 8], r"is larger than the pictures of 8×8 pixels with 2 arou"),
        ("random_crop(9)", [3, 8, 8], "is larger than the pictures of 8×8 pixels; crop less"),
        ("random_crop(8)", [3, 8, 8], "changes nothing, since pictures have 8×8 pixels here; pad"),
        (
            "random_crop(6)",
            [3, 8, 8],
            "gives pictures of 6×6 pixels, and the preprocessing gives",
        ),
        ("random_resized_crop(9)|flip", [3, 8, 8], "gives pictures of 9×9 pixels, and the prepro"),
        ("grey(0.1)", [1, 8, 8], "changes nothing, since pictures have one channel here; leave it"),
        ("grey(0.1)", [4, 8, 8], "is for pictures of three channels, red, green and blue, or of o"),
        ("color_jitter(0.4)", [2, 8, 8], "or of one; these have 2. Leave it out, or add rgb to"),
        ("color_jitter(0, 0, 1)", [1, 8, 8], "changes nothing, since pictures have one channel h"),
        ("erase(0.5, (1, 2))", [3, 8, 8], "fills 2 channels, and pictures have 3 here; give one"),
        ("erase(0.5)", [1, 1, 8], "erases nothing of pictures of 1×8 pixels, since what it erase"),
    ],
)
def test_pictures_that_an_augmentation_does_not_fit_are_refused(text, shape, message):
    with pytest.raises(UsageError, match=f"--augment.*{message}"):
        parse_augment(text).on(shape, "--augment")


def test_a_crop_may_lead_back_to_the_size_of_the_preprocessing():
    augment = parse_augment("random_resized_crop(12)|random_crop((8, 6))").on([3, 8, 6], "it")
    drawn = augment.draw(0, np.arange(500), 1)
    assert set(drawn["window_top"]) == set(range(5))
    assert set(drawn["window_left"]) == set(range(7))


@given(
    st.integers(0, 2**40),
    st.lists(st.integers(0, 2**50), min_size=1, max_size=9, unique=True),
    st.integers(1, 1000),
)
def test_a_view_depends_on_seed_id_and_epoch_alone(seed, ids, epoch):
    augment = parse_augment(f"random_resized_crop((8, 6))|{TENSOR_WORDS}")
    augment = augment.on([3, 8, 6], "it")
    keys = counters(np.array(ids))
    whole = augment.draw(seed, keys, epoch)
    alone = [augment.draw(seed, keys[[i]], epoch) for i in range(len(ids))]
    for name, values in whole.items():
        assert values.tolist() == [drawn[name][0] for drawn in alone]
    chances = augment.crop.chances(seed, keys, epoch)
    assert (chances >= 0).all()
    assert (chances < 1).all()
    for i in range(len(ids)):
        assert (augment.crop.chances(seed, keys[[i]], epoch)[0] == chances[i]).all()


def test_no_word_changes_what_another_draws():
    keys = np.arange(1000)
    many = parse_augment(TENSOR_WORDS).on([3, 8, 6], "it")
    drawn = many.draw(3, keys, 7)
    assert (Flip().draw(3, keys, 7)[FLIP] == drawn[FLIP]).all()
    alone = parse_augment("color_jitter(1, 1, 1, 0.5)").on([3, 8, 6], "it").draw(3, keys, 7)
    assert all((values == drawn[name]).all() for name, values in alone.items())
    # a part's size and place go together: a high one has less room
    names = [name for name in drawn if not name.startswith("erase")] + ["erase_height"]
    columns = [drawn[name] for name in names] + [many.draw(3, keys, 8)[FLIP]]
    columns = np.stack(columns).astype(float)
    apart = np.corrcoef(columns) - np.eye(len(columns))
    assert abs(apart).max() < 0.12, "nothing is drawn from the same numbers"


def test_half_are_flipped_and_twice_is_as_before():
    drawn = Flip().draw(0, np.arange(10_000), 1)
    assert 4800 < drawn[FLIP].sum() < 5200
    drawn = Flip().draw(0, np.arange(40), 1)
    flipped = Flip().apply(PICTURES, drawn)
    for picture, before, is_flipped in zip(flipped, PICTURES, drawn[FLIP], strict=True):
        assert torch.equal(picture, before.flip(-1) if is_flipped else before)
    assert torch.equal(Flip().apply(flipped, drawn), PICTURES)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.int64])
@pytest.mark.parametrize("size", [(8, 6), (5, 6), (10, 3)])
def test_a_random_crop_is_a_window_of_the_padded_picture(size, dtype):
    crop = RandomCrop(*size, 2).on([3, 8, 6], "it")
    drawn = crop.draw(1, np.arange(40), 1)
    shown = crop.apply(PICTURES.to(dtype), drawn)
    assert shown.dtype == dtype
    padded = np.pad(PICTURES.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    for i, (top, left) in enumerate(zip(drawn["window_top"], drawn["window_left"], strict=True)):
        window = padded[i, :, top : top + size[0], left : left + size[1]]
        assert np.array_equal(shown[i].numpy(), window)
    tops = set(crop.draw(1, np.arange(1000), 1)["window_top"])
    assert tops == set(range(8 + 4 - size[0] + 1))


def test_a_wide_border_takes_no_more_memory_than_pictures():
    """256 of them with all their zeros would be 200 GB."""
    pictures = torch.randint(1, 256, (256, 3, 8, 8), dtype=torch.uint8)
    crop = parse_augment("random_crop(8, 8000)").on([3, 8, 8], "--augment")
    drawn = {name: np.zeros(256, np.int16) for name in crop.columns}
    drawn["window_top"][1], drawn["window_left"][1] = 8005, 7998
    shown = crop.apply(pictures, drawn)
    assert not shown[[0, *range(2, 256)]].any()
    assert torch.equal(shown[1, :, :3, 2:], pictures[1, :, 5:, :6])
    assert np.count_nonzero(shown[1]) == 3 * 3 * 6


def test_a_whole_crop_without_padding_changes_nothing():
    crop = RandomCrop(8, 6)
    assert torch.equal(crop.apply(PICTURES, crop.draw(0, np.arange(40), 1)), PICTURES)


def test_areas_and_ratios_of_boxes_are_even():
    """Area and the logarithm of the ratio are uniform, where every box fits into the picture."""
    crop = RandomResizedCrop(8, 8, 0.1, 0.4)
    chances = crop.chances(0, np.arange(4000), 1).tolist()
    boxes = np.array([crop.box(chance, 1000, 1200) for chance in chances])
    top, left, height, width = boxes.T
    areas = (height * width / 1_200_000 - 0.1) / 0.3
    ratios = (np.log(width / height) - math.log(3 / 4)) / (math.log(4 / 3) - math.log(3 / 4))
    shares = np.stack([areas, ratios, top / (1000 - height), left / (1200 - width)])
    for share in shares:
        quantiles = np.quantile(share, np.linspace(0, 1, 21))
        assert abs(quantiles - np.linspace(0, 1, 21)).max() < 0.03
    assert abs(np.corrcoef(shares) - np.eye(4)).max() < 0.05


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**30))
def test_a_box_lies_in_the_picture(height, width, id):
    crop = RandomResizedCrop(8, 8)
    top, left, tall, wide = crop.box(crop.chances(0, np.array([id]), 1)[0].tolist(), height, width)
    assert 0 <= top <= top + tall <= height
    assert 0 <= left <= left + wide <= width
    assert min(tall, wide) > 0


def test_where_no_box_fits_it_is_the_middle():
    """Numbers as torchvision's formula has them: 4/3 as wide as high, or as high as wide."""
    crop = RandomResizedCrop(8, 8)
    chances = crop.chances(0, np.arange(1), 1)[0].tolist()
    assert crop.box(chances, 3, 1000) == (0, 498, 3, 4)
    assert crop.box(chances, 1000, 3) == (498, 0, 4, 3)
    assert RandomResizedCrop(8, 8, 1, 1).box([0.5, 0] * 10 + [0, 0], 90, 100) == (0, 0, 90, 100)


def test_draws_are_the_documented_ones():
    """Numbers written down, so that another version can't change what a seed means."""
    augment = parse_augment("random_resized_crop(8)|random_crop(8, 4)|flip").on([3, 8, 8], "it")
    keys = counters(np.array(["a", "b", "née-0", "d"]))
    drawn = {name: values.tolist() for name, values in augment.draw(7, keys, 3).items()}
    assert drawn == {
        "window_top": [4, 3, 6, 8],
        "window_left": [7, 7, 6, 4],
        "flip": [False, False, False, True],
    }
    boxes = [augment.crop.box(c.tolist(), 375, 500) for c in augment.crop.chances(7, keys, 3)]
    assert boxes == [
        (121, 150, 247, 195),
        (29, 109, 331, 368),
        (53, 26, 283, 328),
        (16, 21, 252, 306),
    ]
