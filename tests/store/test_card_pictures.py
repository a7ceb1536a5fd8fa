"""The pictures of a card: on white, the same bytes again, and whole whatever classes are called."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from softlabels.logits import DenseLogits
from softlabels.measures import Calibration, Softness
from softlabels.reports.confusions import Confusions
from softlabels.reports.figures import CLASSES_PICTURE, PICTURE, draw_classes, pictures_of
from softlabels.reports.survey import TEMPERATURES, Survey

pytest.importorskip("scipy")
matplotlib = pytest.importorskip("matplotlib")
STRANGE = ["$x$ and $", "汽车", "", "a" * 200, "two\nlines", "_^{", "\u202eright to left", "<b>"]


def confusions(classes: int, rows: int = 2000, several: bool = False) -> Confusions:
    """Of classes of which each four are near to each other."""
    draws = torch.Generator().manual_seed(0)
    centres = torch.randn(classes // 4, 8, generator=draws).repeat_interleave(4, 0)
    centres = 2 * centres + torch.randn(classes, 8, generator=draws)
    labels = torch.arange(rows) % classes
    logits = (centres[labels] + torch.randn(rows, 8, generator=draws)) @ centres.T
    found = Confusions(classes, labelled=True, several=several)
    hot = torch.nn.functional.one_hot(labels, classes)
    found.count(DenseLogits(logits), hot if several else labels)
    return found


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("classes", [8, 200])
def test_classes_are_drawn_on_white_and_the_same_again(classes, monkeypatch):
    names = [STRANGE[i % len(STRANGE)] for i in range(classes)]
    found = confusions(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a letter that no font has, or a layout without room
        first = draw_classes(found, names)
    pixels = opened(first)
    assert pixels.shape[1] == 990
    edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    assert all((edge == 255).all() for edge in edges)
    assert (pixels.max(-1) < 200).mean() > 0.005
    with matplotlib.rc_context({"figure.facecolor": "black", "text.color": "white"}):
        assert draw_classes(found, names) == first


def test_other_answers_make_another_picture():
    found = confusions(8)
    first = draw_classes(found, list("abcdefgh"))
    assert draw_classes(found, list("abcdefgi")) != first
    found.soft[4.0][0, 1] *= 3
    assert draw_classes(found, list("abcdefgh")) != first


def test_a_card_has_the_picture_of_classes_where_some_are_confused():
    def surveyed(found: Confusions | None) -> Survey:
        softness = {T: Softness() for T in TEMPERATURES}
        return Survey(Calibration(), softness, 1.0, confusions=found)

    names = STRANGE
    whole = surveyed(confusions(8))
    pictures = pictures_of(whole, names)
    assert list(pictures) == [PICTURE, CLASSES_PICTURE]
    assert "confuse" in pictures[CLASSES_PICTURE][0]
    lines = whole.pairs_section(names).splitlines()
    rows = [line for line in lines if line.startswith("| ")][2:]
    assert len(rows) == len(whole.confusions.pairs(10))
    assert f"| {whole.confusions.pairs(1)[0].probability:.2%} |" in rows[0]
    several = pictures_of(surveyed(confusions(8, several=True)), names)
    assert "confuse" in several[CLASSES_PICTURE][0]
    for none in (None, Confusions(8, labelled=True)):  # too many classes; no rows
        assert list(pictures_of(surveyed(none), names)) == [PICTURE]
        assert surveyed(none).pairs_section(names) == ""
