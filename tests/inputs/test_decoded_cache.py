"""Decoded inputs in a mapped file of the cache: pictures that don't fit into memory, numbers for
later runs."""

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

import softlabels
from softlabels.inputs import decoding, examples
from softlabels.inputs.decoding import decode_image
from softlabels.system.cache import LocalCache
from softlabels.targets.soft_dataset import Dump
from tests.conftest import Linear, Lines, make_vectors, save_script
from tests.processes import start

ROWS = 1200


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty cache, on a machine whose memory has no room for pictures."""
    monkeypatch.setenv("SOFTLABELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(examples, "CACHE_BYTES", 1000)
    monkeypatch.setattr(examples, "LOOK_SECONDS", 0.0)
    return tmp_path / "cache" / "decoded"


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The ids of the pictures that were decoded in this process."""
    seen: list[int] = []

    def decode(cell, preprocess, id):
        seen.append(int(id))
        return decode_image(cell, preprocess, id)

    monkeypatch.setattr(decoding, "decode_image", decode)
    return seen


@pytest.fixture(scope="module")
def pictures(dump_folder) -> torch.Tensor:
    """All of them, kept in memory."""
    return softlabels.load(dump_folder).take(np.arange(ROWS))["input"]


def check(dataset: Dump, pictures: torch.Tensor, workers: int = 0, epochs: int = 1) -> Dump:
    """Epochs give what memory gives, and afterwards all are read."""
    for epoch in range(epochs):
        for batch in dataset.batches(100, shuffle=True, epoch=epoch, workers=workers):
            assert torch.equal(batch["input"], pictures[batch["id"]])
    if dataset.examples.kept and not workers:
        dataset.examples._kept.filler.wait()
    return dataset


@pytest.mark.parametrize("workers", [0, 2])
def test_they_are_decoded_once_for_all_runs(dump_folder, pictures, place, decoded, workers):
    heard = Lines()
    check(softlabels.load(dump_folder, progress=heard), pictures, workers, epochs=2)
    assert [line for line in heard.lines if "more than the memory has for them" in line]
    (entry,) = LocalCache().entries()
    assert entry.description == "decoded pictures of digits"
    (file,) = place.glob("*/inputs")
    assert file.stat().st_size == pictures.numel()
    done = len(decoded)
    again = check(softlabels.load(dump_folder), pictures, workers)
    assert again.examples._kept.is_made
    assert len(decoded) - done <= 3, "the first rows are a sample"


def flip(folder: Path) -> None:
    content = bytearray((folder / "inputs").read_bytes())
    content[777 * 64 + 5] ^= 8
    (folder / "inputs").write_bytes(content)


def cut(folder: Path) -> None:
    os.truncate(folder / "inputs", 777 * 64)


def kill_before_the_end(folder: Path) -> None:
    (folder / "checks.npy").unlink()
    (folder / "inputs").rename(folder / ".inputs.partial")
    with open(folder / ".inputs.partial", "r+b") as file:
        file.write(b"\0" * 1000)


def lose_checks(folder: Path) -> None:
    (folder / "checks.npy").unlink()


def change_a_check(folder: Path) -> None:
    checks = np.load(folder / "checks.npy")
    checks[777] += 1
    np.save(folder / "checks.npy", checks)


@pytest.mark.parametrize(
    ("harm", "anew"),
    [(flip, 1), (change_a_check, 1), (cut, ROWS), (kill_before_the_end, ROWS), (lose_checks, ROWS)],
)
def test_damage_is_never_given(dump_folder, pictures, place, decoded, harm, anew):
    check(softlabels.load(dump_folder), pictures)
    (folder,) = place.glob("*/")
    intact = (folder / "inputs").read_bytes()
    harm(folder)
    done = len(decoded)
    check(softlabels.load(dump_folder), pictures)
    assert anew <= len(decoded) - done < 2 * anew + 3
    check(softlabels.load(dump_folder), pictures)
    assert (folder / "inputs").read_bytes() == intact, "it is mended"


def test_others_decode_for_themselves_until_it_is_whole(dump_folder, pictures, place, decoded):
    first, second = softlabels.load(dump_folder), softlabels.load(dump_folder)
    assert len(first.take([3, 5])["input"]) == 2
    assert not list(place.glob("*/")), "a look at some rows is no reason to keep all"
    next(iter(first.batches(100)))
    check(second, pictures)
    assert not second.examples._kept or second.examples._kept.is_made
    check(first, pictures)
    assert check(second, pictures).examples._kept.is_made


def test_who_gets_no_lock_leaves_what_another_process_decodes(
    dump_folder, pictures, place, monkeypatch
):
    first, second = softlabels.load(dump_folder), softlabels.load(dump_folder)
    next(iter(first.batches(100)))

    def acquire(lock):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    check(second, pictures)
    check(first, pictures)
    assert list(place.glob("*/checks.npy"))


def test_without_room_they_are_decoded_each_time(dump_folder, pictures, place, monkeypatch):
    monkeypatch.setenv("SOFTLABELS_CACHE_GB", "0.00001")
    heard = Lines()
    dataset = check(softlabels.load(dump_folder, progress=heard), pictures)
    assert not dataset.examples.kept
    assert not list(place.glob("*/"))
    (warning,) = (line for line in heard.lines if line.startswith("warning: the 1,200 pictures"))
    assert "SOFTLABELS_CACHE_GB to a larger number" in warning
    assert not softlabels.load(dump_folder, cache=False, source="digits").examples.kept


def test_other_steps_are_other_pictures(dump_folder, pictures, place):
    small = {"preprocess": "resize(4)|scale(16)"}
    expected = softlabels.load(dump_folder, cache=False, **small).take(np.arange(ROWS))["input"]
    check(softlabels.load(dump_folder, **small), expected)
    check(softlabels.load(dump_folder), pictures)
    kept = [json.loads(path.read_text())["shape"] for path in place.glob("*/about.json")]
    assert sorted(kept) == [[ROWS, 1, 4, 4], [ROWS, 1, 8, 8]]


def test_rows_that_are_not_trained_on_are_not_decoded(dump_folder, place, decoded, tmp_path):
    softlabels.train(dump=dump_folder, student="linear", epochs=2, rows=200, holdout=0.1,
                     out=str(tmp_path / "s.pt"))  # fmt: skip
    [about] = place.glob("*/about.json")
    assert json.loads(about.read_text())["shape"] == [320, 1, 8, 8]
    assert len(set(decoded)) <= 320 + 2, "besides a sample"


def test_pictures_that_are_cropped_anew_each_epoch_are_not_kept(dump_folder, place, tmp_path):
    softlabels.train(
        dump=dump_folder, student="linear", epochs=1, out=str(tmp_path / "s.pt"),
        augment="random_resized_crop(8)",
    )  # fmt: skip
    assert not list(place.glob("*/inputs"))
    assert not list(place.glob("*/.*.partial"))


def _train(dump: str, out: str, data: str) -> None:
    """A training of two epochs, in a machine whose memory has no room for pictures."""
    examples.CACHE_BYTES, examples.SAVED_BYTES, examples.LOOK_SECONDS = 1000, 0, 0.1
    softlabels.train(dump=dump, source=data, student="linear", epochs=2, out=out, device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["pictures", "numbers"])
def test_trainings_that_begin_together_share_one_file(dump_folder, tmp_path, what):
    """Two processes at the same moment, several times: the weights are those of one alone."""
    dump, data = dump_folder, "digits"
    if what == "numbers":
        data = make_vectors(tmp_path / "x.parquet", rows=20_000)
        dump = str(tmp_path / "d")
        script = save_script(Linear(), tmp_path / "t.pt")
        softlabels.dump(teacher=script, data=data, out=dump)
        os.utime(data, (1e9, 1e9))
        time.sleep(2.5)  # else it is too young to be remembered
    dataset = softlabels.load(dump, source=data, cache=False)
    expected = dataset.examples.gather(np.arange(len(dataset))).numpy()

    def trained(cache: Path, count: int) -> list[bytes]:
        outs = [str(tmp_path / f"{cache.name}-{number}.pt") for number in range(count)]
        environment = {"SOFTLABELS_CACHE": str(cache)}
        both = [start(_train, environment, dump=dump, out=out, data=data) for out in outs]
        for process in both:
            process.join(300)
            assert process.exitcode == 0
        states = [torch.load(out, weights_only=False)["state_dict"] for out in outs]
        return [b"".join(t.numpy().tobytes() for t in state.values()) for state in states]

    (alone,) = trained(tmp_path / "own", 1)
    for number in range(3):
        cache = tmp_path / f"cache{number}"
        for _ in range(2):  # that fill it, and that find it
            assert trained(cache, 2) == [alone, alone]
        (folder,) = cache.glob("decoded/*/")
        assert not list(folder.glob(".*"))
        assert (folder / "inputs").read_bytes() == expected.tobytes()
