"""Files as people have them in a folder: what the teacher sees of each kind, held against the
loader of torchvision's ImageFolder, which is Image.open(path).convert("RGB")."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import softlabels
from softlabels.errors import UnreadableInput
from tests.conftest import save_script
from tests.inputs.test_preprocess import picture


class Sums(nn.Module):
    """Logits that tell pictures of 6×8 apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(144, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


def see_through() -> Image.Image:
    """Colours, of which half lie under full transparency."""
    image = picture(6, 8).convert("RGBA")
    alpha = np.zeros((6, 8), np.uint8)
    alpha[:3] = 255
    image.putalpha(Image.fromarray(alpha))
    return image


KINDS = {
    "cmyk.jpg": lambda path: picture(6, 8).convert("CMYK").save(path),
    "ycbcr.tif": lambda path: picture(6, 8).convert("YCbCr").save(path),
    "rgba.png": lambda path: see_through().save(path),
    "la.png": lambda path: see_through().convert("LA").save(path),
    "palette.png": lambda path: picture(6, 8).convert("P").save(path, transparency=3),
    "palette.gif": lambda path: picture(6, 8).save(path),
    "animated.gif": lambda path: picture(6, 8).save(
        path, save_all=True, append_images=[picture(6, 9).resize((8, 6))]
    ),
    "pages.tif": lambda path: picture(6, 8).save(
        path, save_all=True, append_images=[picture(6, 9).resize((8, 6))]
    ),
    "grey.png": lambda path: picture(6, 8).convert("L").save(path),
    "bits.png": lambda path: picture(6, 8).convert("1").save(path),
}


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, save in KINDS.items():
        save(folder / name)
    return folder


def dumped(folder: Path, out: Path, preprocess: str) -> dict[str, torch.Tensor]:
    """The input of each row by its id."""
    teacher = save_script(Sums(), folder.parent / "t.pt")
    softlabels.dump(teacher=teacher, data=str(folder), out=str(out), preprocess=preprocess)
    batch = softlabels.load(out).take(range(len(softlabels.load(out))))
    return dict(zip(batch["id"], batch["input"], strict=True))


def test_what_the_teacher_sees_is_what_the_usual_loader_gives(photos, tmp_path):
    inputs = dumped(photos, tmp_path / "d", "rgb|scale(255)")
    assert sorted(inputs) == sorted(KINDS)
    for name, values in inputs.items():
        with Image.open(photos / name) as image:
            expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(values, expected / 255), name


def test_sixteen_bits_are_refused_by_name_until_eight_bit_is_asked_for(photos, tmp_path):
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1365
    Image.fromarray(values).save(photos / "deep.png")
    with pytest.raises(UnreadableInput, match=r"id deep\.png .*16 bits .* put eight_bit first"):
        dumped(photos, tmp_path / "d", "rgb|scale(255)")
    inputs = dumped(photos, tmp_path / "d", "upright|eight_bit|rgb|scale(255)")
    deep = torch.from_numpy((values // 256).astype(np.uint8)) / 255
    assert torch.equal(inputs["deep.png"], deep.expand(3, 6, 8))
    with Image.open(photos / "rgba.png") as image:  # 8 bits stay as they are
        colours = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(inputs["rgba.png"], colours / 255)


def test_a_new_file_changes_the_id_and_the_logits_of_no_other_row(photos, tmp_path):
    dumped(photos, tmp_path / "d", "rgb|scale(255)")
    picture(6, 8).save(photos / "0.png")
    dumped(photos, tmp_path / "e", "rgb|scale(255)")
    before, after = (softlabels.load(tmp_path / name, inputs=False) for name in "de")
    assert set(after.ids) == {*before.ids, "0.png"}
    rows = after.rows_of(before.ids)
    assert torch.allclose(after.take(rows)["logits"], before["logits"], atol=1e-3)
