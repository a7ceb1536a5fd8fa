"""The recipes of docs/exchange.md do what they say: run as they stand, and read back."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import softlabels
from softlabels.exchange import import_logits
from softlabels.store.folder import Folder
from softlabels.store.reader import DumpReader
from tests.conftest import every

PAGE = Path(__file__).parents[2] / "docs" / "exchange.md"


def run_recipe(word: str) -> None:
    """The only block of the page with this word in it."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    [recipe] = [block for block in blocks if word in block]
    exec(recipe, {})


@pytest.fixture
def dump(dump_folder, tmp_path, monkeypatch) -> DumpReader:
    """The digits' dump where the recipes look for it."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "digits-t").symlink_to(Path(dump_folder).resolve())
    monkeypatch.chdir(tmp_path)
    return DumpReader(Folder(dump_folder))


def test_npz_there_and_back(dump):
    run_recipe("np.savez")
    found = import_logits(file="digits-npz", data="digits", out="back")
    back = DumpReader(Folder(found.out))
    assert every(back).tobytes() == every(dump).tobytes()
    for column in ("ids", "hashes", "labels"):
        assert np.array_equal(getattr(back, column), getattr(dump, column))
    assert softlabels.verify(dump=found.out, source=True).good


def test_webdataset(dump):
    webdataset = pytest.importorskip("webdataset", reason="webdataset comes with the extra dev")
    run_recipe("webdataset.ShardWriter")
    tars = [str(path) for path in sorted(Path("digits-tars").glob("*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    check(dump, samples, [s["json"]["id"] for s in samples], [s["json"]["label"] for s in samples])


def test_mds(dump):
    rivals = Path(sys.prefix) / "rivals"  # where `make bench` puts it
    if rivals.exists():
        sys.path.append(str(rivals))
    if importlib.util.find_spec("streaming") is None:
        pytest.skip("mosaicml-streaming is not installed; `make bench` does it")
    from benchmarks.rivals import _streaming

    streaming = _streaming()
    run_recipe("MDSWriter")
    samples = list(streaming.LocalDataset("digits-mds"))
    check(dump, samples, [int(s["id"]) for s in samples], [s["label"] for s in samples])


def check(dump: DumpReader, samples: list[dict], ids: list, labels: list) -> None:
    name = "logits.npy" if "logits.npy" in samples[0] else "logits"
    assert np.stack([sample[name] for sample in samples]).tobytes() == every(dump).tobytes()
    assert ids == dump.ids.tolist()
    assert labels == dump.labels.tolist()
