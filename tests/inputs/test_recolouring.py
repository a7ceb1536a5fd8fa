"""Colours changed as Pillow changes them, and hue as the standard library turns it."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from softlabels.errors import SourceError, UsageError
from softlabels.inputs.views import batch_rows
from softlabels.inputs.views.augment import parse_augment
from softlabels.inputs.views.chance import counters
from softlabels.inputs.views.recolouring import CHANGES, GREY, ORDER, ORDERS

PILLOW = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}
chance = np.random.default_rng(0)
NOISE = torch.from_numpy(chance.integers(0, 256, (24, 3, 9, 7), np.uint8))
PALE = torch.from_numpy(chance.integers(100, 112, (24, 3, 9, 7), np.uint8))
EXTREME = NOISE // 128 * 255
PICTURES = torch.cat([NOISE, PALE, EXTREME])


def of(text: str, shape: tuple[int, ...] = (3, 9, 7)):
    [step] = parse_augment(text).on([*shape], "--augment").steps
    return step


def factors(count: int, order: int = 0, **given: object) -> dict[str, np.ndarray]:
    values = dict.fromkeys(CHANGES, 1) | {"hue": 0} | given
    drawn = {n: np.broadcast_to(v, count).astype(np.float32) for n, v in values.items()}
    return drawn | {ORDER: np.full(count, order, np.uint8)}


def as_image(picture: torch.Tensor) -> Image.Image:
    channels_last = picture.permute(1, 2, 0).numpy()
    return Image.fromarray(channels_last[:, :, 0] if len(picture) == 1 else channels_last)


def pixels(image: Image.Image) -> torch.Tensor:
    values = torch.from_numpy(np.array(image))
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PILLOW)
def test_levels_are_those_of_pillow(name, channels):
    pictures = PICTURES[:, :channels]
    step = of("color_jitter(1, 1, 1)", (channels, 9, 7))
    values = np.concatenate([[0, 1, 2, 0.5, 1 / 3], chance.uniform(0, 2, len(pictures) - 5)])
    drawn = factors(len(pictures), **{name: values})
    for picture, shown, factor in zip(
        pictures, step.apply(pictures, drawn), drawn[name].tolist(), strict=True
    ):
        assert torch.equal(shown, pixels(PILLOW[name](as_image(picture)).enhance(factor)))


def test_hue_turns_within_a_level_of_the_formula():
    shifts = np.concatenate([[0, 0.5, -0.5, 1 / 6], chance.uniform(-0.5, 0.5, len(PICTURES) - 4)])
    shown = of("color_jitter(0, 0, 0, 0.5)").apply(PICTURES, factors(len(PICTURES), hue=shifts))
    for picture, after, shift in zip(PICTURES, shown, shifts, strict=True):
        for before, now in zip(picture.flatten(1).T.tolist(), after.flatten(1).T, strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*before)
            exact = torch.tensor(colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value))
            assert (now - exact).abs().max() < 0.501
    assert torch.equal(shown[0], PICTURES[0])


def test_one_pixel_by_hand():
    orange = torch.tensor([200, 100, 50], dtype=torch.uint8).reshape(1, 3, 1, 1)
    step = of("color_jitter(1, 1, 1, 0.5)", (3, 1, 1))
    for name, value, expected in (
        ("brightness", 0.5, [100, 50, 25]),
        ("contrast", 0.5, [162, 112, 87]),  # its grey is 124.2, as a level 124
        ("saturation", 2, [255, 76, 0]),
        ("hue", 0.5, [50, 150, 200]),
        ("hue", 1 / 3, [50, 200, 100]),
        ("hue", -1 / 3, [100, 50, 200]),
    ):
        assert step.apply(orange, factors(1, **{name: value})).flatten().tolist() == expected


def test_the_order_is_the_one_that_is_written():
    step, count = of("color_jitter(0.9, 0.9, 0.9, 0.4)"), len(ORDERS)
    drawn = step.draw(0, np.arange(count), 1) | {ORDER: np.arange(count, dtype=np.uint8)}
    shown = step.apply(NOISE, drawn)
    for i, order in enumerate(ORDERS):
        picture = NOISE[[i]]
        for name in order:
            picture = step.apply(picture, factors(1, **{name: drawn[name][i]}))
        assert torch.equal(shown[[i]], picture)
    assert ORDERS[0] == CHANGES
    assert ORDERS[7] == ("contrast", "brightness", "hue", "saturation")
    assert len({one.numpy().tobytes() for one in shown}) == count


@pytest.mark.parametrize("text", ["color_jitter(0.4, 0.4, 0.4, 0.1)", "grey(0.5)"])
def test_a_picture_does_not_depend_on_its_batch(text, monkeypatch):
    step, keys = of(text), np.arange(len(PICTURES))
    drawn, before = step.draw(3, keys, 2), PICTURES.clone()
    shown = step.apply(PICTURES, drawn)
    assert torch.equal(PICTURES, before), "what is given stays"
    monkeypatch.setattr(batch_rows, "BLOCK_VALUES", 500)  # of two pictures
    assert torch.equal(step.apply(PICTURES, drawn), shown)
    for i in (0, 30, 71):
        one = {name: values[[i]] for name, values in drawn.items()}
        assert torch.equal(step.apply(PICTURES[[i]], one), shown[[i]])
    assert len(step.apply(PICTURES[:0], {n: v[:0] for n, v in drawn.items()})) == 0


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int64, torch.float32])
def test_grey_is_that_of_pillow_and_whole_numbers_stay_whole(kind):
    step = of("grey(0.5)")
    drawn = step.draw(0, np.arange(len(PICTURES)), 1)
    given = PICTURES.to(kind) * (100 if kind in (torch.int16, torch.int64) else 1)
    shown = step.apply(given, drawn)
    assert shown.dtype == kind
    for picture, after, is_grey in zip(given, shown, drawn[GREY], strict=True):
        expected = picture
        if kind == torch.uint8 and is_grey:
            expected = pixels(as_image(picture).convert("L")).expand(3, -1, -1)
        elif is_grey:
            shares = torch.tensor([19595, 38470, 7471], dtype=torch.float64)[:, None, None]
            mean = (picture * shares).sum(0, keepdim=True) / 65536
            expected = (mean if kind.is_floating_point else (mean + 0.5).floor()).to(kind)
        torch.testing.assert_close(after, expected.expand(3, -1, -1), rtol=1e-6, atol=0)


def test_factors_are_even_between_their_bounds():
    drawn = of("color_jitter(0.4, 2, 0.1, 0.3)").draw(1, np.arange(4000), 1)
    at = np.linspace(0, 1, 21)
    for name, low, high in (
        ("brightness", 0.6, 1.4), ("contrast", 0, 3), ("saturation", 0.9, 1.1), ("hue", -0.3, 0.3),
    ):  # fmt: skip
        assert abs(np.quantile(drawn[name], at) - (low + (high - low) * at)).max() < 0.03 * (
            high - low
        )
    assert (np.bincount(drawn[ORDER], minlength=24) > 120).all()
    assert set(of("color_jitter(0.4)").draw(1, np.arange(9), 1)["saturation"]) == {1}
    assert 1100 < of("grey(0.3)").draw(1, np.arange(4000), 1)[GREY].sum() < 1300


def test_draws_are_the_documented_ones():
    """Numbers written down, so that another version can't change what a seed means."""
    keys = counters(np.array(["a", "b", "née-0", "d"]))
    drawn = of("color_jitter(0.4, 0.3, 0.2, 0.1)").draw(7, keys, 3)
    drawn |= of("grey(0.9)").draw(7, keys, 3)
    documented = {
        "brightness": [1.0614140, 1.0039604, 0.7744283, 1.3500694],
        "contrast": [1.0048488, 0.9408250, 1.2538867, 0.8706410],
        "saturation": [1.1446623, 1.1533184, 0.8557019, 1.0395228],
        "hue": [0.02759645, 0.04658801, -0.07190035, -0.09581342],
        "colour_order": [9, 8, 14, 3],
        "grey": [True, False, True, True],
    }
    assert [*drawn] == [*documented]
    for name, values in documented.items():
        assert drawn[name].tolist() == pytest.approx(values, rel=2e-7)


def test_what_has_no_largest_value_or_no_such_order_is_refused():
    step = of("color_jitter(0.4)")
    with pytest.raises(UsageError, match=r"color_jitter\(0.4\) is for pictures of 8 bits, from 0"):
        step.apply(PICTURES.float(), factors(len(PICTURES)))
    with pytest.raises(SourceError, match="colour_order of a view is 24; it is the number of one"):
        step.apply(PICTURES, factors(len(PICTURES), order=24))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("brightness", np.nan), ("contrast", np.inf), ("saturation", -0.1), ("saturation", 1.5),
        ("hue", 9),
    ],
)  # fmt: skip
def test_what_is_never_drawn_is_refused(name, value):
    step = of("color_jitter(0.4, 1.4, 0.4, 0.1)")
    assert step.apply(NOISE, step.draw(0, np.arange(24, dtype=np.uint64), 1)).shape == NOISE.shape
    with pytest.raises(
        SourceError, match=rf"{name} of a view is .*draws it from .* row is damaged"
    ):
        step.apply(NOISE, factors(len(NOISE), **{name: value}))
