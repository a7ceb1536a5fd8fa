"""mixup and cutmix: what is drawn, and what is made of two pictures."""

import math
from decimal import Decimal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from softlabels.errors import UsageError
from softlabels.inputs.views import mixing
from softlabels.inputs.views.beta import STEPS, beta_steps, exact_steps
from softlabels.inputs.views.chance import counter_random
from softlabels.inputs.views.mixing import Mixing, mixed, parse_mixing, partners_of
from softlabels.spec import parse_pipeline

WORD = st.integers(0, 2**64 - 1)
ALPHAS = st.floats(0.001, 1000, allow_nan=False)
KEYS = np.arange(20_000, dtype=np.uint64)


def weights(alpha: float) -> np.ndarray:
    first, second = (counter_random(7, KEYS, 1, stream) for stream in (66, 67))
    return beta_steps(alpha, first, second) / STEPS


@given(ALPHAS, WORD, WORD)
def test_a_weight_is_the_formulas_to_the_last_step(alpha, first, second):
    found = beta_steps(alpha, np.array([first], np.uint64), np.array([second], np.uint64))
    assert found.tolist() == [exact_steps(alpha, first, second)]
    assert 0 <= found[0] <= STEPS


def test_weights_by_hand():
    """alpha 1: p is u, and with v = ¼ + 2^-54 the cosine is nearly √½: w = ½ + ½·√(q/(2p + q))."""
    u, quarter = 1 << 63, 1 << 62  # u is ½
    assert exact_steps(1.0, u, quarter) == round((0.5 + 0.5 * math.sqrt(1 / 3)) * 65536)
    assert exact_steps(1.0, u, 2**64 - quarter) == round((0.5 - 0.5 * math.sqrt(1 / 3)) * 65536)
    assert exact_steps(0.2, 0, 0) == 65536  # u is nearly 0, so all is one picture's
    assert exact_steps(0.2, 0, 2**64 - 1) == 0


def test_what_is_close_to_the_middle_of_two_steps_is_drawn_with_many_digits(monkeypatch):
    """A float64 that errs by a ten-thousandth of a step would round some of these otherwise."""
    from softlabels.inputs.views import beta

    asked = []
    monkeypatch.setattr(beta, "CLOSE", 2.0**-9)
    monkeypatch.setattr(
        beta, "exact_steps", lambda *words: asked.append(words) or exact_steps(*words)
    )
    first, second = (counter_random(7, KEYS[:9000], 1, stream) for stream in (66, 67))
    found = beta_steps(0.7, first, second)
    assert 10 < len(asked) < 100
    monkeypatch.setattr(beta, "CLOSE", 0)
    assert np.array_equal(beta_steps(0.7, first, second), found)


@pytest.mark.parametrize(
    ("alpha", "share"),
    [
        (0.5, lambda x: 2 / math.pi * math.asin(math.sqrt(x))),
        (1.0, lambda x: x),
        (2.0, lambda x: 3 * x**2 - 2 * x**3),
    ],
)
def test_weights_have_the_distribution_of_beta(alpha, share):
    drawn = weights(alpha)
    for x in (0.05, 0.3, 0.5, 0.8):
        expected = share(x)
        assert abs((drawn < x).mean() - expected) < 4 * math.sqrt(expected / len(KEYS))


@given(st.integers(2, 50), st.integers(0, 2**63 - 1), st.integers(1, 30))
def test_a_partner_is_any_other_row(rows, seed, view):
    numbers = np.arange(rows)
    partners = partners_of(seed, numbers.astype(np.uint64), view, numbers, rows)
    assert ((partners >= 0) & (partners < rows) & (partners != numbers)).all()


def test_partners_come_from_the_whole_set_alike():
    numbers = np.arange(20_000)
    partners = partners_of(3, KEYS, 2, numbers, 20_000)
    assert np.abs(np.histogram(partners, 10, (0, 20_000))[0] - 2000).max() < 200
    farther = (partners - numbers) % 20_000
    assert np.abs(np.histogram(farther, 10, (0, 20_000))[0] - 2000).max() < 200
    assert np.array_equal(
        partners[500:600], partners_of(3, KEYS[500:600], 2, numbers[500:600], 20_000)
    )
    assert np.array_equal(partners_of(3, KEYS, 0, numbers, 20_000), numbers), "the clean input"


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_a_box_lies_in_its_picture_and_leaves_its_weight(height, width, seed):
    drawn = Mixing(cutmix=1.0).on([3, height, width]).draw(seed, KEYS[:64], 1)
    top, left, high, wide = (drawn[name].astype(int) for name in mixing.BOX)
    assert (np.minimum.reduce([top, left, high, wide]) >= 0).all()
    assert ((top + high <= height) & (left + wide <= width)).all()
    own = (1 - high * wide / (height * width)).astype(np.float32)
    assert np.array_equal(drawn["mix_weight"], own)


def test_a_box_by_hand(monkeypatch):
    """A share of 9/16 of 8 × 12 pixels is 6 × 9 of them, of which an odd number is rounded down."""
    monkeypatch.setattr(mixing, "beta_steps", lambda *_: np.full(1, STEPS * 7 // 16))
    step = Mixing(cutmix=1.0).on([3, 8, 12])
    key = next(k for k in KEYS if centre(k) == (1, 7))
    drawn = step.draw(0, np.array([key]), 1)
    assert [int(drawn[name][0]) for name in mixing.BOX] == [0, 3, 4, 8], "−2 to 4, and 3 to 11"
    assert drawn["mix_weight"][0] == np.float32(1 - 4 * 8 / 96)


def centre(key) -> tuple[int, int]:
    return tuple(
        int(counter_random(0, np.array([key]), 1, stream)[0]) % side
        for stream, side in ((68, 8), (69, 12))
    )


def test_one_of_two_words_is_chosen_for_each_row():
    both = Mixing(0.2, 1.0).on([3, 8, 8]).draw(1, KEYS, 1)
    assert abs((both["mix"] == 1).mean() - 0.5) < 0.02
    assert set(both["mix"]) == {1, 2}
    one, other = (m.on([3, 8, 8]).draw(1, KEYS, 1) for m in (Mixing(0.2), Mixing(cutmix=1.0)))
    up = both["mix"] == 1
    assert np.array_equal(both["mix_weight"], np.where(up, one["mix_weight"], other["mix_weight"]))
    assert not both["mix_width"][up].any(), "what was drawn for one word depends on no other"
    assert list(one) == ["mix", "mix_weight"]
    clean = Mixing(0.2, 1.0).on([3, 8, 8]).draw(1, KEYS[:5], 0)
    assert clean["mix_weight"].tolist() == [1.0] * 5
    assert not any(values.any() for name, values in clean.items() if name != "mix_weight")


def columns(mix: int, weight: float, box=(0, 0, 0, 0)) -> dict[str, np.ndarray]:
    drawn = {"mix": np.array([mix], np.uint8), "mix_weight": np.array([weight], np.float32)}
    return drawn | {n: np.array([v], np.int16) for n, v in zip(mixing.BOX, box, strict=True)}


def test_pictures_are_mixed_in_fixed_point():
    own = torch.tensor([0, 255, 100, 7], dtype=torch.uint8).reshape(1, 1, 2, 2)
    partner = torch.tensor([255, 255, 50, 8], dtype=torch.uint8).reshape(1, 1, 2, 2)
    for weight, expected in (
        (0.25, [191, 255, 63, 8]),  # 191.25, 255, 62.5, 7.75
        (1.0, [0, 255, 100, 7]), (0.0, [255, 255, 50, 8]), (7.0, [0, 255, 100, 7]),
    ):  # fmt: skip
        assert mixed(own, partner, columns(1, weight)).flatten().tolist() == expected
        floats = mixed(own.float(), partner.float(), columns(1, weight))
        assert (floats.flatten() - torch.tensor(expected)).abs().max() <= 0.5
        assert mixed(own.long(), partner.long(), columns(1, weight)).flatten().tolist() == expected
    assert mixed(own, partner, columns(0, 1.0)).flatten().tolist() == [0, 255, 100, 7]


def test_a_box_of_the_partner_is_pasted():
    own, partner = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, 4)
    found = mixed(own, partner, columns(2, 0.5, (1, 2, 2, 1)))
    assert found[0, 1].tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0]]
    assert not own.any(), "inputs are kept, and mixed again"
    for box in ((-3, 0, 32767, 2), (0, 3, 2, 32767), (9, 9, 1, 1), (0, 0, -4, 3)):
        mixed(own, partner, columns(2, 0.5, box))  # of anyone's file


@given(st.integers(0, 10**6), st.sampled_from([np.uint8, np.int16, np.float32, np.float64]))
def test_every_device_mixes_alike(seed, kind):
    """The road of other devices, on a CPU: the same to the last bit."""
    chance = np.random.default_rng(seed)
    own, partner = (
        torch.from_numpy(chance.integers(0, 256, (6, 2, 5, 4)).astype(kind)) for _ in range(2)
    )
    drawn = Mixing(0.5, 1.0).on([2, 5, 4]).draw(seed, KEYS[:6], 1)
    weights_N111 = torch.from_numpy(drawn["mix_weight"]).reshape(-1, 1, 1, 1)
    there = mixing._blended_there(own, partner, weights_N111)
    inside = mixing._inside([drawn[name] for name in mixing.BOX], own)
    found = mixed(own, partner, drawn)
    for place, way in enumerate(drawn["mix"].tolist()):
        pasted = torch.where(inside, partner, own)
        assert torch.equal(found[place], (there if way == 1 else pasted)[place])


@pytest.mark.parametrize("text", ["mixup(0.2)", "cutmix(1.0)", "mixup(0.2)|cutmix(1.0)"])
def test_text_round_trips(text):
    assert str(parse_mixing(parse_pipeline(text, "--augment"), "--augment")) == text


@pytest.mark.parametrize("text", ["mixup", "mixup(0)", "cutmix(-1)", "mixup(1e9)", "cutmix(a)",
                                  "mixup(0.2, 1)", "mixup(True)"])  # fmt: skip
def test_another_alpha_is_refused(text):
    with pytest.raises(
        UsageError, match=r"write alpha of Beta.*from 0.001 to 1,000, such as mixup"
    ):
        parse_mixing(parse_pipeline(text, "--augment"), "--augment")


def test_pi_is_pi():
    from softlabels.inputs.views.beta import PI, _sine

    assert abs(_sine(PI / 6) - Decimal("0.5")) < Decimal("1e-26")
