"""Temperatures that change as training goes on."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import softlabels
from softlabels.errors import UsageError

SHAPES = ["linear", "cosine", "exponential"]
T = st.floats(1e-6, 1e6)


@pytest.mark.parametrize("shape", SHAPES)
@given(first=T, last=T, x=st.floats(0, 1), y=st.floats(0, 1))
def test_a_schedule_goes_from_its_first_temperature_to_its_last(shape, first, last, x, y):
    schedule = softlabels.temperature_schedule(f"{shape}({first!r}, {last!r})")
    assert schedule(0) == pytest.approx(first, rel=1e-9)
    assert schedule(1) == pytest.approx(last, rel=1e-9)
    (least, most), (x, y) = sorted([first, last]), sorted([x, y])
    assert least <= schedule(x) <= most
    rises = last > first
    assert (schedule(y) >= schedule(x) * (1 - 1e-9)) if rises else (
        schedule(y) <= schedule(x) * (1 + 1e-9)
    )  # fmt: skip
    assert softlabels.temperature_schedule(str(schedule)) == schedule


def test_the_shapes_by_hand():
    linear, cosine, exponential = (
        softlabels.temperature_schedule(f"{shape}(16, 1)") for shape in SHAPES
    )
    assert [linear(x) for x in (0, 0.2, 0.5, 1)] == [16, 13, 8.5, 1]
    assert cosine(0.25) == pytest.approx(1 + 15 * (1 + math.sqrt(0.5)) / 2)
    assert cosine(0.5) == pytest.approx(8.5)
    assert [exponential(x) for x in (0, 0.25, 0.5, 1)] == pytest.approx([16, 8, 4, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8", "can't read '8'"),
        ("", "is no schedule of a temperature"),
        ("cosine", "write one word with the first and the last temperature"),
        ("cosine(20)", "such as cosine(20, 2)"),
        ("cosine(20, 2)|linear(2, 1)", "is no schedule"),
        ("cosin(20, 2)", "no schedule 'cosin'; did you mean cosine? Use linear, cosine, exp"),
        ("steps(3)", "no schedule 'steps'; use linear, cosine, exponential"),
        ("linear(20, 0)", "linear(20, 0) has 0 for a temperature, which must be a finite number"),
        ("linear(-1, 2)", "has -1 for a temperature"),
        ("linear(1e999, 2)", "has inf for a temperature"),
        ("linear(True, 2)", "has True for a temperature"),
        ("linear(hot, 2)", "has 'hot' for a temperature"),
        (4, "this is 4; a T that stays is given as a number in its place"),
        (None, "is text such as 'cosine(20, 2)', and this is None"),
    ],
)
def test_text_that_is_no_schedule(text, message):
    with pytest.raises(UsageError) as caught:
        softlabels.temperature_schedule(text)
    assert message in str(caught.value)


@pytest.mark.parametrize("progress", [-0.1, 1.1, math.nan])
def test_training_is_between_its_first_step_and_its_last(progress):
    with pytest.raises(UsageError, match="it must be a number from 0 to 1"):
        softlabels.temperature_schedule("linear(20, 2)")(progress)
