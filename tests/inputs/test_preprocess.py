import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from softlabels.errors import UsageError
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.views.augmentations import draw_shifts, shift
from softlabels.inputs.views.chance import counter_random
from softlabels.spec import Call, parse_pipeline
from softlabels.system.reused_memory import fresh


@pytest.mark.parametrize(
    "text", ["", "scale(255)", "grey|resize(28, bilinear, torch)|scale(255)",
             "rgb|resize(2, 3, bicubic, pillow)|center_crop(2)",
             "scale(255)|normalize((0.5, 0.4, 0.3), (0.1, 0.2, 0.3))", "tokens",
             "upright|rgb|resize(256, bicubic, torch)|resize(4, 5, lanczos, pillow)|scale(255)",
             "upright|eight_bit|rgb|contain(9, 8, bicubic, torch)|cover(7, bilinear, pillow)|"
             "pad(9, 9, (1, 2, 3))|pad(9)",
             "upright|reduced|rgb|resize(256, bicubic, torch)",
             "reduced(1.5)|grey|cover(7, box, pillow)",
             "eight_bit|center_crop(2, floor)|pad(3, (255,))"],
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
        ("resize('a')", "no filter 'a'; use nearest, box, bilinear"),
        ("resize(256, cubic)", "no filter 'cubic'"),
        ("resize(bicubic)", "sizes must be"),
        ("resize(2, 3, 4)", "sizes must be"),
        ("resize((2, 3))", "sizes must be"),
        ("resize(2, 3, 'box', pillow, 4)", "has not 1 to 4 arguments"),
        ("resize(2, torch, bicubic)", "then one filter, then torch or pillow"),
        ("resize(2, torch, pillow)", "then one filter, then torch or pillow"),
        ("resize(2, lanczos, torch)", "torch has no lanczos filter: leave torch out"),
        ("resize(2, opencv)", "no filter 'opencv'; use nearest.*lanczos, torch, pillow"),
        ("center_crop(2, bicubic)", "no word 'bicubic'; use floor"),
        ("center_crop(2, floor, floor)", "sizes come first, then one name or fill"),
        ("cover(bicubic, 2)", "sizes come first, then one filter, then torch or pillow"),
        ("pad(2, floor)", "no word 'floor'; use none"),
        ("pad(2, 255)|pad(2, 0)", "sizes must be"),
        ("pad(2, (0, 1))", "a fill has one or three whole numbers from 0 to 255"),
        ("pad(2, (0, 1, 256))", "a fill has one or three whole numbers from 0 to 255"),
        ("contain(2, (0,))", "only pad takes a fill"),
        ("crop_pct(0.9, 224, torch, pillow)", "one filter and one resizer"),
        ("crop_pct(0.9, 224, box, torch)", "torch has no box filter"),
        ("rgb|eight_bit", "eight_bit must come first, or after upright"),
        ("eight_bit|upright", "upright must come first"),
        ("reduced(0.5)|resize(2)", "how many times as large is a number from 1 on"),
        ("reduced('a')|resize(2)", "how many times as large is a number from 1 on"),
        ("reduced|center_crop(2)|resize(2)", "before the first step that changes the size"),
        ("resize(4)|reduced|resize(2)", "before the first step that changes the size"),
        ("reduced|reduced|resize(2)", "reduced must come once"),
        ("reduced|rgb|scale(255)", "this one of resize, contain, cover"),
        ("crop_pct(224, 0.875)", "write a share above 0, one or two sizes"),
        ("crop_pct(0, 224)", "write a share above 0, one or two sizes"),
        ("crop_pct(0.9, 224, squash, center)", "write a share above 0, one or two sizes"),
        ("crop_pct(0.9, 224, middle)", "no mode or filter 'middle'; use center, squash, border"),
        ("crop_pct(0.9, 224, border)", r"border needs a fill, timm's is round\(255 \* mean\)"),
        ("crop_pct(0.9, 224, (1, 2, 3))", "center takes no fill"),
        ("crop_pct(0.001, 224)", r"resize\(224000\): sizes must be"),
        ("scale(2)|crop_pct(0.9, 224)", "must come before scale"),
        ("grey|upright", "upright must come first"),
        ("upright|upright", "upright must come first"),
        ("scale(bicubic)", "must be finite numbers"),
        ("scale(1e999)", "must be finite numbers"),
        ("scale(1" + 400 * "0" + ")", "must be finite numbers"),
        ("scale((1, 2))", "write one number"),
        ("normalize((), ())", "one tuple entry a channel"),
        ("normalize((1, 2), (1, 2, 3))", "one tuple entry a channel"),
        ("scale(" + 5000 * "-" + "1)", "can't read"),
        ("scale(__import__('os').getpid())", "can't read"),
        ("scale(255", "can't read"),
        ("tokens(3, 4)", "has not 0 to 1 arguments"),
        ("tokens(-1)", "the token of padding is a whole number from 0"),
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
    for mode in "IF":
        with pytest.raises(ValueError, match="more than 8 bits and no stated range"):
            Preprocess.parse("eight_bit").on_picture(Image.new(mode, (2, 3)))


def test_sixteen_bits_become_eight_only_where_that_is_asked_for():
    values = np.array([[0, 255, 256, 1000, 32768, 65535]], np.uint16)
    image = Image.fromarray(values)
    with pytest.raises(ValueError, match=r"16 bits \(mode I;16\).* put eight_bit first"):
        Preprocess.parse("rgb").on_picture(image)
    found = Preprocess.parse("upright|eight_bit|rgb").on_picture(image)
    assert found.tolist() == 3 * [[[0, 0, 1, 3, 128, 255]]]
    assert Preprocess.parse("eight_bit").on_picture(Image.new("L", (1, 1), 7)).tolist() == [[[7]]]


def picture(height: int, width: int, mode: str = "RGB") -> Image.Image:
    """Noise, in which each pixel that is another one shows."""
    values = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3))
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


FILTERS = {"bilinear": 2, "bicubic": 3, "nearest": 0, "lanczos": 1, "box": 4}  # Pillow's numbers
sides = st.integers(1, 90)


@given(sides, sides, st.integers(1, 40), st.sampled_from(sorted(FILTERS)), st.data())
def test_resize_and_center_crop_are_those_of_torchvision(height, width, size, name, data):
    """Written from transforms/functional.py of torchvision 0.29: the longer side of Resize(int) is
    cut off to a whole number, the offset of CenterCrop rounded half to even."""
    image = picture(height, width, data.draw(st.sampled_from(["RGB", "L", "P", "CMYK", "RGBA"])))
    short, long = min(height, width), max(height, width)
    scaled = int(size * long / short)
    new_height, new_width = (scaled, size) if height > width else (size, scaled)
    crop = data.draw(st.integers(1, size))
    top, left = round((new_height - crop) / 2.0), round((new_width - crop) / 2.0)
    expected = image.convert("RGB").resize((new_width, new_height), FILTERS[name])
    expected = expected.crop((left, top, left + crop, top + crop))
    found = Preprocess.parse(f"rgb|resize({size}, {name}, pillow)|center_crop({crop})").on_picture(
        image
    )
    assert np.array_equal(found, np.asarray(expected).transpose(2, 0, 1))
    if name == "bilinear":
        plain = f"rgb|resize({size}, pillow)|center_crop({crop})"
        assert np.array_equal(found, Preprocess.parse(plain).on_picture(image))
    exact = Preprocess.parse(f"rgb|resize({size}, {crop}, {name}, pillow)").on_picture(image)
    expected = image.convert("RGB").resize((crop, size), FILTERS[name])
    assert np.array_equal(exact, np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("crop_pct(0.875, 224)", "resize(256, bilinear, torch)|center_crop(224)"),
        ("crop_pct(0.95, 224, bicubic, pillow)", "resize(235, bicubic, pillow)|center_crop(224)"),
        ("crop_pct(1, 9, 8, center)", "cover(9, 8, bilinear, torch)|center_crop(9, 8)"),
        ("crop_pct(0.9, 9, 8, squash, box)", "resize(10, 8, box, pillow)|center_crop(9, 8)"),
        ("crop_pct(1.1, 224)", "resize(203, bilinear, torch)|pad(224)|center_crop(224)"),
        ("crop_pct(0.9, 224, border, (1, 2, 3))",
         "contain(248, 248, bilinear, torch)|pad(224, (1, 2, 3))|center_crop(224)"),
    ],
)  # fmt: skip
def test_a_crop_percentage_stands_for_steps(text, steps):
    assert str(Preprocess.parse(f"rgb|{text}|scale(255)")) == f"rgb|{steps}|scale(255)"


@given(sides, sides, st.integers(1, 40), st.integers(1, 40))
def test_contain_cover_and_pad_are_those_of_timm(height, width, high, wide):
    """Written from ResizeKeepRatio and center_crop_or_pad in data/transforms.py of timm 1.0.31."""
    image = picture(height, width)
    for word, choose in (("contain", max), ("cover", min)):
        ratio = choose(height / high, width / wide)
        size = round(height / ratio), round(width / ratio)
        words = Preprocess.parse(f"{word}({high}, {wide}, bicubic, pillow)")
        if 0 in size:
            with pytest.raises(ValueError, match="would make"):
                words.on_picture(image)
            continue
        expected = image.resize(size[::-1], Image.Resampling.BICUBIC)
        assert np.array_equal(words.on_picture(image), np.asarray(expected).transpose(2, 0, 1))
    found = Preprocess.parse(f"pad({high}, {wide}, (9, 8, 7))|center_crop({high}, {wide})")
    top, left = max(0, high - height) // 2, max(0, wide - width) // 2
    expected = np.broadcast_to([9, 8, 7], (max(high, height), max(wide, width), 3)).copy()
    expected[top : top + height, left : left + width] = np.asarray(image)
    top, left = round(max(0, height - high) / 2), round(max(0, width - wide) / 2)
    expected = expected[top : top + high, left : left + wide].transpose(2, 0, 1)
    assert np.array_equal(found.on_picture(image), expected)


def test_half_a_pixel_is_rounded_to_even_or_down():
    image = Image.fromarray(np.arange(5, dtype=np.uint8)[None].repeat(5, 0))
    assert Preprocess.parse("center_crop(2)").on_picture(image)[0, 0].tolist() == [2, 3]
    assert Preprocess.parse("center_crop(2, floor)").on_picture(image)[0, 0].tolist() == [1, 2]


def test_a_fill_of_one_number_is_for_all_channels():
    words, image = Preprocess.parse("pad(1, 3, (9,))"), Image.new("L", (1, 1), 5)
    assert words.on_picture(image).tolist() == [[[9, 5, 9]]]
    assert words.on_picture(image.convert("RGB")).tolist() == 3 * [[[9, 5, 9]]]
    with pytest.raises(ValueError, match=r"fills 3 channels, and the image has 1"):
        Preprocess.parse("pad(1, 3, (9, 8, 7))").on_picture(image)


def test_pictures_that_words_do_not_fit():
    with pytest.raises(ValueError, match=r"center_crop\(5\) is larger than the image, 4×9"):
        Preprocess.parse("center_crop(5)").on_picture(picture(4, 9))
    with pytest.raises(ValueError, match=r"would make 224×13,440,000 pixels of the image, 1×60,0"):
        Preprocess.parse("resize(224)").on_picture(Image.new("L", (60_000, 1)))


@pytest.mark.parametrize("channels", [1, 3])
def test_means_are_one_for_each_channel_or_refused(channels):
    batch = torch.full((2, channels, 4, 4), 51, dtype=torch.uint8)
    words = Preprocess.parse("scale(255)|normalize((0.1, 0.2, 0.3), (0.1, 0.2, 0.5))")
    if channels == 3:
        found = words.on_numbers(batch)[0, :, 0, 0]
        assert torch.allclose(found, torch.tensor([1.0, 0.0, -0.2]), atol=1e-6)
    else:
        with pytest.raises(UsageError, match=r"for 3 channels; these inputs are \[1, 4, 4\]"):
            words.on_numbers(batch)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float32])
def test_steps_on_numbers_leave_the_inputs_as_they_are(dtype):
    batch = torch.arange(24).reshape(2, 3, 2, 2).to(dtype)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.2, 0.3, 0.7])
    expected = (batch.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    words = Preprocess.parse("scale(255)|normalize((0.1, 0.2, 0.3), (0.2, 0.3, 0.7))")
    with torch.inference_mode():
        found = words.on_numbers(batch)
    assert torch.equal(found, expected)
    assert torch.equal(batch, torch.arange(24).reshape(2, 3, 2, 2).to(dtype))
    assert torch.equal(words.on_numbers(batch[:1].expand(4, 3, 2, 2))[3], expected[0])


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


divisors = st.floats(-300, 300, width=32).filter(lambda number: abs(number) > 1e-3)


@settings(max_examples=20)
@given(divisors, divisors, st.tuples(divisors, divisors, divisors), st.integers(0, 9))
def test_pictures_become_the_same_numbers_in_given_memory(divisor, mean, std, rows):
    chance = np.random.default_rng(rows)
    batch = torch.from_numpy(chance.integers(0, 256, (rows, 3, 70, 300), np.uint8))
    batch = batch if rows % 2 else batch[:, :, :4].permute(0, 1, 3, 2)  # more than a block; turned
    for text in ("", f"scale({divisor})", f"scale(255)|normalize({mean}, {std})"):
        words = Preprocess.parse(text)
        assert torch.equal(words.on_numbers(batch, fresh), words.on_numbers(batch))


def test_tokens_stay_whole_numbers():
    tokens = torch.tensor([[2**40, 5]], dtype=torch.int64)
    assert torch.equal(Preprocess.parse("tokens").on_numbers(tokens), tokens)
    assert Preprocess.parse("tokens").on_numbers(tokens.int() % 7).dtype == torch.int64
    with pytest.raises(UsageError, match=r"the inputs are torch\.float32, not whole"):
        Preprocess.parse("tokens").on_numbers(tokens.float())


@given(
    st.lists(
        st.builds(
            Call,
            st.just("tokenizer"),
            st.tuples(
                st.text(max_size=12)
                | st.sampled_from(["a|b", "class", "None", "it's", 'x"|"', "\\"]),
                st.integers() | st.floats(allow_nan=False, allow_infinity=False),
            ),
        ),
        max_size=3,
    )
)
def test_a_pipeline_is_read_as_it_was_written(calls):
    assert parse_pipeline("|".join(map(str, calls)), "--preprocess") == calls
