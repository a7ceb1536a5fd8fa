"""Pictures as libjpeg-turbo and torch give them, held against Pillow, on files of every kind."""

import io
import json
from unittest.mock import patch

import numpy as np
import pytest
import simplejpeg
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import softlabels
from softlabels.errors import PlanMismatch, SourceError
from softlabels.inputs.decoding import decode
from softlabels.inputs.preprocess import Preprocess
from softlabels.inputs.rendering import Picture, Scaling, render
from softlabels.inputs.resizing import resize
from tests.conftest import Lines
from tests.inputs.test_preprocess import picture

ORIENTATION = 0x0112
sides = st.integers(1, 70)
kinds = st.sampled_from(["noise", "extremes", "smooth"])


def drawn(height: int, width: int, kind: str, channels: int = 3) -> np.ndarray:
    """uint8 [H, W, C]."""
    chance = np.random.default_rng(height * 1000 + width)
    noise = chance.integers(0, 256, (height, width, channels), np.uint8)
    if kind == "extremes":  # filters overshoot
        return np.where(noise < 128, 0, 255).astype(np.uint8)
    if kind == "smooth":
        waves = np.sin(np.arange(height) / 7)[:, None, None] + np.cos(np.arange(width) / 5)[:, None]
        return (128 + 50 * waves + noise / 16).astype(np.uint8)
    return noise


def encoded(image: Image.Image, **words) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **words)
    return buffer.getvalue()


@st.composite
def jpegs(draw) -> bytes:
    """In grey or colour, of every way to save one."""
    values = drawn(draw(sides), draw(sides), draw(kinds))
    quality = draw(st.sampled_from([1, 10, 50, 75, 90, 95, 100]))
    if draw(st.integers(0, 3)) == 0:  # ways that Pillow can't save
        ratio = draw(st.sampled_from(["440", "411", "444", "422", "420"]))
        return simplejpeg.encode_jpeg(values, quality, colorsubsampling=ratio)
    words = {"quality": quality, "progressive": draw(st.booleans())}
    words["subsampling"] = draw(st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]))
    words["optimize"] = draw(st.booleans())
    words |= draw(st.sampled_from([{}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}]))
    if orientation := draw(st.integers(0, 8)):
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        words["exif"] = exif
    image = Image.fromarray(values)
    if draw(st.integers(0, 5)) == 0:
        return encoded(image, quality=quality, keep_rgb=True)
    return encoded(image.convert("L") if draw(st.booleans()) else image, **words)


def of_pillow(cell: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(cell)) as image:
        image.load()
        values = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    return values[:, :, None] if values.ndim == 2 else values


@given(jpegs())
def test_jpegs_have_the_levels_of_pillow_which_is_not_asked(cell):
    expected = of_pillow(cell)
    with patch.object(Image, "open", side_effect=AssertionError("Pillow was asked")):
        found = render(Picture(cell))
    assert np.array_equal(found, expected)


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of damaged EXIF data
@given(jpegs(), st.data())
def test_what_is_cut_off_or_damaged_is_what_pillow_makes_of_it(cell, data):
    damaged = bytearray(cell)
    for _ in range(data.draw(st.integers(0, 2))):
        damaged[data.draw(st.integers(2, len(cell) - 1))] = data.draw(st.integers(0, 255))
    ends = st.sampled_from([len(cell), len(cell) - 2]) | st.integers(0, len(cell))
    broken = bytes(damaged[: data.draw(ends)])
    try:
        expected = of_pillow(broken)
    except Exception:
        with pytest.raises((OSError, ValueError, SyntaxError, Image.DecompressionBombError)):
            render(Picture(broken))
    else:
        assert np.array_equal(render(Picture(broken)), expected)


@pytest.mark.parametrize(
    "factors", [(h, v) for h in range(1, 5) for v in range(1, 5) if h * v <= 8]
)
def test_any_subsampling_is_pillows(factors):
    """Also those that neither library writes, such as 4:4:1. They are written into the header of
    another file, which scrambles the picture: alike for both."""
    cell = bytearray(encoded(Image.fromarray(drawn(40, 50, "smooth")), subsampling="4:2:0"))
    cell[cell.index(b"\xff\xc0") + 11] = 16 * factors[0] + factors[1]
    assert np.array_equal(render(Picture(bytes(cell))), of_pillow(bytes(cell)))


@pytest.mark.parametrize("inverted", [False, True])
def test_cmyk_is_pillows(inverted):
    image = Image.fromarray(drawn(9, 13, "noise", 4), "CMYK")
    cell = encoded(image, quality=95)
    if inverted:  # YCCK, as Adobe's programs write it: the last byte of their marker is 2
        at = cell.index(b"Adobe") + 11
        cell = cell[:at] + b"\2" + cell[at + 1 :]
    assert np.array_equal(render(Picture(cell)), of_pillow(cell))


@pytest.mark.parametrize(
    ("step", "scaling", "divisor"),
    [
        ("reduced", "resize(20, 31)", 4),
        ("reduced", "resize(21, 31)", 2),
        ("reduced(4)", "resize(20)", 2),
        ("reduced(1)", "cover(20)", 8),
        ("reduced(1)", "contain(101, 156)", 1),
        ("reduced", "resize(81)", 1),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_a_reduced_jpeg_is_decoded_as_pillow_drafts_it(
    step, scaling, divisor, orientation, subsampling
):
    height, width = (248, 160) if orientation == 6 else (160, 248)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(drawn(height, width, "smooth"))
    cell = encoded(image, exif=exif, quality=90, subsampling=subsampling)
    drafted = Image.open(io.BytesIO(cell))
    drafted.draft("RGB", (width // divisor, height // divisor))
    assert drafted.size == (width // divisor, height // divisor)
    same = Preprocess.parse(f"upright|rgb|{scaling}").on_picture(drafted)
    found = Preprocess.parse(f"upright|{step}|rgb|{scaling}").on_picture(Picture(cell))
    assert found.shape == same.shape
    assert np.array_equal(found, same)


def test_reduced_changes_no_other_picture_and_no_crop_of_one(tmp_path):
    image = Image.fromarray(drawn(160, 248, "smooth"))
    plain, reduced = (Preprocess.parse(f"{word}resize(16)") for word in ("", "reduced|"))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    png = Picture(buffer.getvalue())
    assert np.array_equal(reduced.on_picture(png), plain.on_picture(png))
    jpeg = Picture(encoded(image)).shown(False, False, (), 2)
    box, scaling = (3, 5, 100, 120), Scaling(16, 16, "bilinear", "torch")
    assert np.array_equal(render(jpeg, box, scaling), render(Picture(jpeg.cell), box, scaling))


@pytest.mark.parametrize("xmp", [False, True])
@pytest.mark.parametrize("orientation", range(9))
def test_a_turned_jpeg_is_cropped_as_it_is_shown(orientation, xmp):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    tag = f'<x tiff:Orientation="{orientation}"/>'.encode()
    words = {"xmp": tag} if xmp else {"exif": exif}
    cell = encoded(Image.fromarray(drawn(20, 31, "smooth")), quality=90, **words)
    upright = Preprocess.parse("upright").on_picture(Image.open(io.BytesIO(cell)))
    turned = Picture(cell).shown(True, False, ())
    assert turned.size == upright.shape[1:]
    with patch.object(Picture, "pixels", side_effect=AssertionError("it was decoded")):
        assert Picture(cell).size == (20, 31)
    part = render(turned, (2, 3, 11, 9)).transpose(2, 0, 1)
    assert np.array_equal(part, upright[:, 2:13, 3:12])


@pytest.mark.parametrize(
    "before", [b"\xff\xe2\0\6\xff\xda\0\0", b"\xff", b"\0", b"\xff\xe2\0\6\xff\xda\0\0\xff\xff"]
)
def test_an_orientation_is_found_behind_what_looks_like_a_scan_or_is_no_segment(before):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    cell = encoded(Image.fromarray(drawn(20, 31, "smooth")), exif=exif)
    at = cell.index(b"\xff\xe1")
    cell = cell[:at] + before + cell[at:]
    assert Image.open(io.BytesIO(cell)).getexif()[ORIENTATION] == 6
    assert Picture(cell).orientation == 6


def test_pictures_that_pillow_warns_of_are_pillows(monkeypatch):
    cell = encoded(Image.fromarray(drawn(20, 31, "noise")))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.warns(Image.DecompressionBombWarning, match="620 pixels"):
        render(Picture(cell))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(Image.DecompressionBombError):
        render(Picture(cell))


@pytest.mark.parametrize("colour", ["rgb", "grey"])
@pytest.mark.parametrize("size", [(1, 31), (31, 1), (1, 1)])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_turned_picture_of_one_row_or_column_is_resized(orientation, size, colour):
    """numpy takes it for contiguous whatever the stride of an axis of one is; torch reads by it,
    beyond the picture, or refuses a negative one."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image = Image.fromarray(drawn(*size, "smooth"))
    cell = encoded(image.convert("L") if colour == "grey" else image, exif=exif)
    found, exact = (
        Preprocess.parse(f"upright|{colour}|resize(8, 9, {resizer})").on_picture(Picture(cell))
        for resizer in ("torch", "pillow")
    )
    assert abs(found.astype(int) - exact).max() <= 1


@given(sides, sides, sides, sides, kinds, st.sampled_from([1, 3]))
def test_resized_by_torch_is_pillows_but_for_a_level(height, width, high, wide, kind, channels):
    """Two levels for bicubic: each of its passes is off by one at most, and weights of the second
    add up to more than 1 in magnitude."""
    values = drawn(height, width, kind, channels)
    for filter, most in (("bilinear", 1), ("bicubic", 2)):
        exact = resize(values, high, wide, filter, "pillow")
        found = resize(values, high, wide, filter, "torch")
        assert found.shape == exact.shape == (high, wide, channels)
        assert abs(found.astype(int) - exact).max() <= most


def test_a_photograph_of_a_camera_is_resized_by_torch_as_by_pillow_but_for_a_level_here_and_there():
    values = drawn(750, 1000, "smooth")
    for filter in ("bilinear", "bicubic"):
        exact = resize(values, 256, 341, filter, "pillow").astype(int)
        apart = abs(resize(values, 256, 341, filter, "torch") - exact)
        assert apart.max() <= 1
        assert apart.mean() < 0.01


@pytest.mark.parametrize("filter", ["bilinear", "bicubic", "lanczos", "box", "hamming", "nearest"])
def test_a_box_is_cut_out_before_it_is_scaled(filter):
    image = picture(40, 50)
    part = image.crop((7, 5, 7 + 20, 5 + 30)).resize((9, 12), Image.Resampling[filter.upper()])
    for resizer in ("torch", "pillow") if filter in ("bilinear", "bicubic") else ("pillow",):
        found = render(Picture(image), (5, 7, 30, 20), Scaling(12, 9, filter, resizer))
        assert abs(found.astype(int) - np.asarray(part)).max() <= (resizer == "torch") * 2


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_has_every_picture_in_its_place(monkeypatch, threads):
    monkeypatch.setattr("softlabels.inputs.decoding.PARALLEL_BYTES", 0)
    words, ids = Preprocess.parse("rgb|resize(8, 9)"), np.arange(40)
    cells = [encoded(picture(10 + i, 20)) for i in range(40)]
    cells[3], cells[0] = b"none", cells[5][:200]
    decoded = decode(cells, [words] * 40, ids, threads, turns=True)
    assert [place for place, _ in decoded.unreadable] == [0, 3]
    assert "the image of the row with id 3 can't be read" in str(decoded.unreadable[1][1])
    kept = [cell for place, cell in enumerate(cells) if place not in (0, 3)]
    expected = np.stack([words.on_picture(Picture(cell)) for cell in kept])
    assert np.array_equal(decoded.inputs.numpy(), expected)
    assert decoded.turns == [1] * 38
    with pytest.raises(
        SourceError, match=r"id 2 has the shape \[3, 12, 20\], that of id 1 \[3, 11"
    ):
        decode(cells, [Preprocess.parse("rgb")] * 40, ids, threads)
    assert decode(cells[3:4], [words], ids[:1], threads).inputs is None


class Corner(torch.nn.Module):
    """A teacher whose logits are the red of three pixels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, 0, 0, :3]


@pytest.fixture
def photos(tmp_path) -> str:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes(encoded(Image.fromarray(drawn(20, 30 + i, "noise"))))
    return str(folder)


def test_how_pictures_were_made_is_in_the_plan_and_held_against_whoever_goes_on(photos, tmp_path):
    words = {"teacher": Corner().eval(), "data": photos, "out": str(tmp_path / "d")}
    words |= {"preprocess": "rgb|resize(8, 8)|scale(255)|normalize(0.5, 0.1)", "shard_rows": 3}
    softlabels.dump(**words)
    path = tmp_path / "d" / "plan.json"
    plan = json.loads(path.read_text())
    assert plan["preprocess"].startswith("rgb|resize(8, 8, bilinear, torch)|scale(255)|")
    assert plan["decoder"] == "libjpeg-turbo, islow DCT, fancy upsampling"
    exact = words["preprocess"].replace("8)|s", "8, pillow)|s")
    with pytest.raises(PlanMismatch, match=r"preprocess is .*8, bilinear, pillow.*bilinear, torch"):
        softlabels.dump(**words | {"preprocess": exact}, resume=True)
    for words_given, warned in ((exact, True), (None, False), ("rgb|resize(4, pillow)", False)):
        lines = Lines()
        softlabels.load(tmp_path / "d", source=photos, preprocess=words_given, progress=lines)
        line = "warning: pictures are resized by rgb|resize(8, 8, bilinear, pillow); those that the"
        assert (line in str(lines)) == warned
        assert warned or "warning" not in str(lines)


def test_a_dump_by_another_decoder_is_loaded_with_a_warning(photos, tmp_path, monkeypatch):
    words = {"teacher": Corner().eval(), "data": photos, "out": str(tmp_path / "d")}
    words |= {"preprocess": "rgb|resize(8, 8)|scale(255)|normalize(0.5, 0.1)"}
    monkeypatch.setattr("softlabels.capture.planning.DECODER", "nvJPEG")
    softlabels.dump(**words)
    lines = Lines()
    softlabels.load(tmp_path / "d", source=photos, progress=lines)
    assert "warning: pictures are decoded by libjpeg-turbo, islow DCT, fancy" in str(lines)
    assert f"those that the teacher of {tmp_path}/d saw, by nvJPEG" in str(lines)
    monkeypatch.undo()
    with pytest.raises(PlanMismatch, match=r"decoder is 'libjpeg-turbo.* was 'nvJPEG"):
        softlabels.dump(**words, resume=True)
