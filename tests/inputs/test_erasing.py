"""A part of the picture becomes one colour."""

import numpy as np
import pytest
import torch

from softlabels.errors import UsageError
from softlabels.inputs.views.augment import parse_augment
from softlabels.inputs.views.chance import counters
from softlabels.inputs.views.erasing import HEIGHT, LEFT, TOP, WIDTH, Erase

PICTURES = torch.from_numpy(np.random.default_rng(0).integers(1, 100, (50, 3, 12, 9), np.uint8))


def of(text: str) -> Erase:
    [step] = parse_augment(text).on([3, 12, 9], "--augment").steps
    assert isinstance(step, Erase)
    return step


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int64, torch.float32])
@pytest.mark.parametrize("fill", [0, 101, (110, 120, 125)])
def test_a_part_has_one_colour_and_the_rest_stays(fill, kind):
    step, pictures = of(f"erase(0.5, 0.05, 0.4, {fill})"), PICTURES.to(kind)
    drawn, before = step.draw(0, np.arange(50), 1), pictures.clone()
    shown = step.apply(pictures, drawn)
    assert torch.equal(pictures, before), "what is given stays"
    assert shown.dtype == kind
    for i, (top, left, tall, wide) in enumerate(
        zip(*(drawn[n] for n in step.columns), strict=True)
    ):
        for channel, value in enumerate(np.broadcast_to(fill, 3).tolist()):
            pictures[i, channel, top : top + tall, left : left + wide] = value
    assert torch.equal(shown, pictures)


def test_parts_are_as_many_as_large_and_where_they_should_be():
    step = parse_augment("erase(0.3, 0.1, 0.2)").on([1, 300, 400], "it").steps[0]
    drawn = step.draw(0, np.arange(20_000), 1)
    top, left, tall, wide = (drawn[name].astype(float) for name in (TOP, LEFT, HEIGHT, WIDTH))
    erased = tall > 0
    assert 5700 < erased.sum() < 6300
    assert (wide[~erased] == 0).all()
    top, left, tall, wide = (values[erased] for values in (top, left, tall, wide))
    areas, ratios = tall * wide / 120_000, np.log(tall / wide) / np.log(3.3)
    assert 0.098 < areas.min() < areas.max() < 0.202
    assert -1.03 < ratios.min() < ratios.max() < 1.03
    at = np.linspace(0, 1, 21)
    for share in ((areas - 0.1) / 0.1, top / (300 - tall), left / (400 - wide)):
        assert abs(np.quantile(share, at) - at).max() < 0.03


def test_draws_are_the_documented_ones():
    """Numbers written down, so that another version can't change what a seed means."""
    keys = counters(np.array(["a", "b", "née-0", "d"]))
    [step] = parse_augment("erase(1)").on([3, 32, 32], "it").steps
    assert {name: values.tolist() for name, values in step.draw(7, keys, 3).items()} == {
        "erase_top": [2, 6, 9, 22],
        "erase_left": [6, 14, 18, 17],
        "erase_height": [11, 16, 17, 4],
        "erase_width": [15, 18, 14, 6],
    }


def test_what_would_cover_a_side_is_not_drawn():
    thin = parse_augment("erase(1, 0.9, 1)").on([1, 2, 90], "it").steps[0]
    drawn = thin.draw(0, np.arange(300), 1)
    assert set(drawn[HEIGHT]) == {0}, "no such part is lower than the picture"
    drawn = of("erase(1, 0.02, 1)").draw(0, np.arange(3000), 1)
    assert (drawn[HEIGHT].max(), drawn[WIDTH].max()) == (11, 8)
    assert (drawn[TOP] + drawn[HEIGHT]).max() == 12
    assert (drawn[LEFT] + drawn[WIDTH]).max() == 9


def test_a_part_that_anyone_wrote_is_cut_to_the_picture():
    """Also one of no pixels, at whatever place."""
    corners = np.array([[-3, -2, 5, 4], [10, 8, 900, 900], [5, 5, -2, 3], [-9, 0, 4, 9]], np.int16)
    shown = of("erase(1)").apply(PICTURES[:4], dict(zip(Erase.columns, corners.T, strict=True)))
    expected = PICTURES[:4].clone()
    expected[0, :, :2, :2] = 0
    expected[1, :, 10:, 8:] = 0
    assert torch.equal(shown, expected)


def test_a_level_that_a_type_has_not_is_refused():
    step = of("erase(1, 200)")
    with pytest.raises(UsageError, match=r"erase\(1, 200\) fills with 200, and these pictures ar"):
        step.apply(PICTURES.to(torch.int8), step.draw(0, np.arange(50), 1))
