"""Folders of images: classes, splits, ids, order, and what else lies there."""

import numpy as np
import pytest

from softlabels.errors import SourceError, UnreadableInput
from softlabels.inputs.describing import describe
from softlabels.inputs.examples import Examples
from softlabels.inputs.opening import open_source
from softlabels.inputs.preprocess import Preprocess
from tests.conftest import png


def fill(folder, *names, value=0):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(np.full((4, 4), value + number)))


def seen(folder, split="train"):
    source = open_source(str(folder), split)
    return source.class_names, source.ids.tolist(), source.labels.tolist()


def test_the_class_is_the_first_folder_and_ids_are_paths(tmp_path):
    fill(tmp_path, "dog/in/2.png", "cat/10.png", "cat/9.png", "cat/train_7.png", "dog/out/test.png")
    ids = ["cat/9.png", "cat/10.png", "cat/train_7.png", "dog/in/2.png", "dog/out/test.png"]
    assert seen(tmp_path) == (["cat", "dog"], ids, [0, 0, 0, 1, 1])
    fill(tmp_path, "cat/1.png")
    assert seen(tmp_path)[1] == ["cat/1.png", *ids]


def test_splits_share_their_classes(tmp_path):
    fill(
        tmp_path, "train/cat/1.png", "train/dog/1.png", "val/dog/1.png", "test/3.png", "test/1.png"
    )
    assert seen(tmp_path, "train") == (["cat", "dog"], ["cat/1.png", "dog/1.png"], [0, 1])
    assert seen(tmp_path, "validation") == (["cat", "dog"], ["dog/1.png"], [1])
    assert seen(tmp_path, "test") == (None, ["1.png", "3.png"], [-1, -1])


def test_number_names_sort_as_numbers_and_the_other_order_is_said(tmp_path):
    fill(tmp_path, *(f"{n}/a.png" for n in range(12)))
    source = open_source(str(tmp_path))
    assert source.class_names == [str(n) for n in range(12)]
    assert source.labels.tolist() == list(range(12))
    assert any("torchvision" in line for line in describe(source))
    named = open_source(str(tmp_path), class_names=[str(n) for n in range(12)])
    assert not any("torchvision" in line for line in describe(named))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.png", "dog/1.png", "x.png"], r"1 image \(x.png\) beside the class folders"),
        (["train/cat/1.png", "trainval/cat/2.png"], r"1 file \(trainval/cat/2.png\) in no split"),
        (["train/1.png", "2.png"], r"1 file \(2.png\) in no split"),
        (["cat/1.png", "labels.csv"], r"1 image \(cat/1.png\) and 1 data file \(labels.csv\)"),
        (["test/cat/1.png"], "no split 'train'; it has test"),
        (["seg_train/a/1.png", "seg_test/a/1.png"], "seg_test and seg_train look like splits"),
        (["set/train/a/1.png", "set/val/a/1.png"], "set/train and set/val look like splits"),
        (["trainImages/a.png", "testImages/a.png"], "testImages and trainImages look like splits"),
    ],
)  # fmt: skip
def test_what_fits_no_rule_is_named(tmp_path, names, message):
    fill(tmp_path, *names)
    with pytest.raises(SourceError, match=message):
        open_source(str(tmp_path))


@pytest.mark.parametrize("split", ["", "train"])
def test_splits_below_the_classes_are_refused_not_mixed(tmp_path, split):
    fill(tmp_path / split, "cat/train/1.png", "dog/test/1.png")
    with pytest.raises(SourceError, match=r"cat/train, dog/test; .* test/cat"):
        open_source(str(tmp_path))


def test_a_folder_below_a_class_may_be_called_like_one_split(tmp_path):
    fill(tmp_path, "bus/train/1.png", "bus/2.png", "tram/3.png")
    assert seen(tmp_path)[0] == ["bus", "tram"]


def test_names_that_only_begin_alike_are_classes(tmp_path):
    fill(tmp_path, "test_tube/1.png", "train_station/1.png", "contest/1.png", "latest/train_1.png")
    assert seen(tmp_path)[0] == ["contest", "latest", "test_tube", "train_station"]
    fill(tmp_path / "s", "train/train/1.png", "train/test/1.png", "val/test/2.png")
    assert seen(tmp_path / "s")[0] == ["test", "train"]


def test_one_folder_around_the_classes_is_said(tmp_path):
    fill(tmp_path, "PetImages/cat/1.png", "PetImages/dog/1.png")
    begin = "warning: all images lie in the one class folder 'PetImages', in 2 folders (cat, dog)"
    assert any(line.startswith(begin) for line in describe(open_source(str(tmp_path))))
    assert seen(tmp_path / "PetImages")[0] == ["cat", "dog"]
    fill(tmp_path, "PetImages/1.png")
    assert not any("warning" in line for line in describe(open_source(str(tmp_path))))


def test_other_files_and_empty_classes_are_said(tmp_path):
    fill(tmp_path, "cat/1.PNG", "dog/1.png", "cat/.hidden.png", "__MACOSX/x/1.png")
    (tmp_path / "cat" / "notes.txt").write_text("")
    (tmp_path / "cat" / "photo.heic").write_text("")
    (tmp_path / "README.md").write_text("")
    (tmp_path / "empty").mkdir()
    lines = describe(open_source(str(tmp_path)))
    assert "2 images in 3 classes: cat, dog, empty; ids are paths" in lines[0]
    assert "1 file (cat/notes.txt) left out: no image" in lines
    assert any(line.startswith("warning: 1 picture (cat/photo.heic) left out") for line in lines)
    assert "no image of 1 class folder (empty) in the split 'train'" in lines


def test_a_header_may_not_put_images_elsewhere(tmp_path):
    fill(tmp_path, "train/cat/1.png", "train/dog/1.png", "test/dog/2.png")
    header = "---\nconfigs:\n- config_name: a\n  data_files:\n  - split: train\n    path: {}\n---\n"
    (tmp_path / "README.md").write_text(header.format("train/**"))
    assert len(open_source(str(tmp_path))) == 2
    (tmp_path / "README.md").write_text(header.format('"**"'))
    with pytest.raises(SourceError, match="a split 'train' of 3 images; by their folders it has 2"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("ending", [".webp", ".tif", ".jp2", ".BMP"])
def test_whatever_pillow_opens_is_an_image(tmp_path, ending):
    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / f"a{ending}")
    assert seen(tmp_path) == (None, [f"a{ending}"], [-1])


def test_links_are_followed_and_circles_end(tmp_path):
    fill(tmp_path / "far", "1.png")
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "cat").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "again").symlink_to(tmp_path / "pets")
    assert seen(tmp_path / "pets")[0] == ["cat"]


def metadata(folder, *lines):
    (folder / "metadata.csv").write_text("file_name,label,age\n" + "".join(f"{x}\n" for x in lines))


def test_metadata_are_joined_by_name_and_counted(tmp_path):
    fill(tmp_path, "10.png", "9.png")
    metadata(tmp_path, "10.png,b,1", "9.png,a,2")
    assert seen(tmp_path) == (["a", "b"], ["9.png", "10.png"], [0, 1])
    metadata(tmp_path, "10.png,b,1")
    with pytest.raises(SourceError, match=r"no row for 1 image \(9.png\)"):
        open_source(str(tmp_path))
    metadata(tmp_path, "10.png,b,1", "9.png,a,2", "../8.png,a,3")
    with pytest.raises(SourceError, match=r"names 1 image \(../8.png\) that"):
        open_source(str(tmp_path))
    metadata(tmp_path, "10.png,b,1", "9.png,a,2", "9.png,a,3")
    with pytest.raises(SourceError, match=r"two rows for 9.png"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no picture", "its bytes are no image"),
        (b"", "it has no bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
    ],
)
def test_a_file_that_is_no_image_inside_is_named_by_its_path(tmp_path, content, reason):
    fill(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "dog" / "2.png").write_bytes(content)
    source = open_source(str(tmp_path))
    with pytest.raises(UnreadableInput, match=rf"id dog/2.png can't be read: .*{reason}"):
        Examples(source, Preprocess.parse("scale(255)")).gather(np.arange(3))
