import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from softlabels.errors import UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.views import counter_random, draw_shifts, shift


@pytest.mark.parametrize(
    "text", ["", "scale(255)", "grey|resize(28)|scale(255)", "rgb|resize(2, 3)|center_crop(2)",
             "scale(255)|normalize((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))", "tokens"],
)  # fmt: skip
def test_text_round_trips(text):
    assert str(Preprocess.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sharpen(2)", "no word 'sharpen'"),
        ("scale", "has not 1 arguments"),
        ("scale(0)", "divides by 0"),
        ("normalize(0.5, (1, 0))", "divides by 0"),
        ("scale(255)|grey", "grey must come before"),
        ("resize(-1)", "sizes must be"),
        ("resize('a')", "must be numbers"),
        ("scale(__import__('os').getpid())", "can't read"),
        ("scale(255", "can't read"),
        ("tokens(3)", "has not 0 arguments"),
        ("tokens|scale(2)", "tokens stands alone"),
        ("grey|tokens", "tokens stands alone"),
    ],
)
def test_what_can_not_be_parsed(text, message):
    with pytest.raises(UsageError, match=message):
        Preprocess.parse(text)


def test_modes_become_grey_or_colour():
    pre = Preprocess.parse("")
    assert pre.on_picture(Image.new("1", (2, 3))).shape == (1, 3, 2)
    assert pre.on_picture(Image.new("RGBA", (2, 3))).shape == (3, 3, 2)
    assert pre.on_picture(Image.new("P", (2, 3))).shape == (3, 3, 2)
    with pytest.raises(ValueError, match="more than 8 bits"):
        pre.on_picture(Image.new("I;16", (2, 3)))


@given(st.integers(0, 2**40), st.lists(st.integers(0, 2**50), min_size=1, max_size=20, unique=True))
def test_views_depend_on_seed_id_and_view_alone(seed, ids):
    whole = draw_shifts(2, seed, np.array(ids), 3)
    alone = np.concatenate([draw_shifts(2, seed, np.array([i]), 3) for i in ids])
    assert (whole == alone).all()
    assert (abs(whole) <= 2).all()


def test_views_differ_and_are_even():
    ids = np.arange(20_000)
    drawn = draw_shifts(2, 0, ids, 0)
    counts = np.bincount((drawn[:, 0] + 2) * 5 + drawn[:, 1] + 2, minlength=25)
    assert (abs(counts - 800) < 150).all()
    others = [counter_random(1, ids, 0, 0), counter_random(0, ids, 1, 0),
              counter_random(0, ids, 0, 1), counter_random(0, ids + 1, 0, 0)]  # fmt: skip
    for other in others:
        assert (counter_random(0, ids, 0, 0) == other).mean() < 0.001


def test_the_generator_is_the_documented_one():
    """Numbers written down, so that another version can't change what a seed means."""
    found = counter_random(7, np.array([0, 1, 2**40]), 3, 1).tolist()
    assert found == [3177934722460906669, 1958795713896930069, 1574597930292114526]


def test_shift_moves_and_fills_with_zero():
    batch = torch.arange(1, 10, dtype=torch.uint8).reshape(1, 1, 3, 3).repeat(3, 1, 1, 1)
    moved = shift(batch, np.array([[1, 0], [0, -1], [0, 0]]))
    assert moved[0, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert moved[1, 0].tolist() == [[2, 3, 0], [5, 6, 0], [8, 9, 0]]
    assert torch.equal(moved[2], batch[2])
    assert moved.dtype == torch.uint8


def test_tokens_stay_whole_numbers():
    tokens = torch.tensor([[2**40, 5]], dtype=torch.int64)
    assert torch.equal(Preprocess.parse("tokens").on_numbers(tokens), tokens)
    assert Preprocess.parse("tokens").on_numbers(tokens.int() % 7).dtype == torch.int64
    with pytest.raises(UsageError, match=r"the inputs are torch\.float32, not whole"):
        Preprocess.parse("tokens").on_numbers(tokens.float())
