"""A folder of pictures of several sizes and modes, none turned, for teachers of pictures."""

from pathlib import Path

import torch
from PIL import Image

import softlabels
from softlabels.inputs.preprocess import Preprocess
from softlabels.teachers import resolve
from tests.inputs.test_preprocess import picture

COUNT = 10


def save_pictures(folder: Path) -> Path:
    for i, mode in enumerate(["RGB", "L", "P", "CMYK", "RGBA", "LA", "1", "RGB", "RGB"]):
        image = picture(140 + 57 * i, 400 - 35 * i).convert(mode)
        image.save(folder / f"{i}.{'tiff' if mode == 'CMYK' else 'png'}")
    picture(264, 300).save(folder / "9.jpg")
    return folder


def read_pictures(folder: Path) -> list[Image.Image]:
    """In the order of their rows, as every library's own loader converts them."""
    return [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]


def logits_of(
    teacher: object, folder: Path, out: Path, exact: bool = False, **words: object
) -> torch.Tensor:
    """The logits that a dump of the folder stores, float32 [COUNT, C].

    exact: with the teacher's own preprocessing, resized by Pillow
    """
    if exact:
        known = resolve(
            teacher, **{n: words[n] for n in ("weights", "model") if n in words}
        ).preprocess
        words["preprocess"] = str(Preprocess.parse(known).by_pillow)
    teacher = teacher if isinstance(teacher, torch.nn.Module) else str(teacher)
    softlabels.dump(teacher=teacher, data=str(folder), out=str(out), dtype="float32", **words)
    rows = softlabels.load(str(out)).take(list(range(COUNT)))
    return rows["logits"]


def check_same(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    """Print the largest difference, and hold it against float32 rounding."""
    apart, spread = float((ours - theirs).abs().max()), float(theirs.std())
    print(f"{what}: largest difference {apart:.2g}, of logits with a spread of {spread:.2g}")
    torch.testing.assert_close(ours, theirs, atol=1e-5 * spread, rtol=1e-4)


def check_near(ours: torch.Tensor, theirs: torch.Tensor, what: str) -> None:
    """Print the largest difference, and hold it against what a level of some pixels does."""
    apart, spread = float((ours - theirs).abs().max()), float(theirs.std())
    print(f"{what}, resized by torch: {apart:.2g}, of logits with a spread of {spread:.2g}")
    assert 0 < apart < 0.03 * spread
