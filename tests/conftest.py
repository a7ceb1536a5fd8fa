"""What tests share: small trained files made once, a way to run the command line, toy data."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from softlabels.system.progress import Progress
from tests import processes

settings.register_profile("quiet", deadline=None)  # no timed tests
settings.load_profile("quiet")
torch.set_num_threads(1)
# A shell that starts the tests in the background has them ignore Ctrl-C, and so do their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory):
    """Tests leave nothing in the user's caches."""
    os.environ["SOFTLABELS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    folder = str(tmp_path_factory.mktemp("hf-cache"))
    os.environ["HF_DATASETS_CACHE"] = folder
    if "datasets" in sys.modules:
        import datasets

        datasets.config.HF_DATASETS_CACHE = Path(folder)


class Finished:
    """What a process of the command line said."""

    def __init__(self, code: int | None, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def value(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


@pytest.fixture
def cli(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """`cli("dump", "--teacher", "t.pt")`: a real process in an empty folder."""
    said = tmp_path_factory.mktemp("said")

    def run(*words: object, cwd: Path = tmp_path, timeout: float = 120) -> Finished:
        process = processes.command(*words, cwd=cwd, out=said / "out", err=said / "err")
        process.join(timeout)
        if process.is_alive():
            processes.kill(process)
            raise TimeoutError(f"softlabels {words} took more than {timeout} s")
        texts = ((said / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return Finished(process.exitcode, *texts)

    return run


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with t.pt, a small teacher of digits, and digits-t, its dump. Not to be changed."""
    import softlabels

    folder = tmp_path_factory.mktemp("made")
    softlabels.fit(
        data="digits", model="mlp:64", epochs=15, batch_size=64, lr=3e-3, out=str(folder / "t.pt")
    )
    softlabels.dump(
        teacher=str(folder / "t.pt"), out=str(folder / "digits-t"), shard_rows=500, batch_size=100
    )
    return folder


@pytest.fixture(scope="session")
def teacher(made: Path) -> str:
    return str(made / "t.pt")


@pytest.fixture(scope="session")
def dump_folder(made: Path) -> str:
    return str(made / "digits-t")


@pytest.fixture(scope="session")
def views_folder(teacher: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump of digits in the clean view and two drawn ones, in four shards. Not to be changed."""
    import softlabels

    out = tmp_path_factory.mktemp("made") / "digits-views"
    words = {"views": 2, "augment": "jitter(1)", "shard_rows": 300, "batch_size": 400}
    softlabels.dump(teacher=teacher, out=str(out), **words)
    return out


def png(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def vectors(tmp_path: Path) -> str:
    """A Parquet file of 300 labelled vectors of 6 numbers in 3 classes, no ids."""
    return make_vectors(tmp_path / "vectors.parquet")


def make_vectors(path: Path, rows: int = 300, seed: int = 0, **columns: list) -> str:
    import datasets

    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, rows)
    values = (random.normal(size=(rows, 6)) + labels[:, None]).astype(np.float32)
    features = datasets.Features(
        {
            "x": datasets.List(datasets.Value("float32"), length=6),
            "label": datasets.ClassLabel(names=["a", "b", "c"]),
            **{name: datasets.Value("string") for name in columns},
        }
    )
    content = {"x": values.tolist(), "label": labels.tolist(), **columns}
    datasets.Dataset.from_dict(content, features=features).to_parquet(str(path))
    return str(path)


class Linear(torch.nn.Module):
    """A teacher for vectors of 6 with chosen outliers: what a row gives is known by hand."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layer = torch.nn.Linear(6, 3)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) * self.scale


def save_script(module: torch.nn.Module, path: Path) -> str:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    return str(path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB. Needs the right to mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True
    )
    if done.returncode:
        pytest.skip("may not mount a small file system here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


class Lines(Progress):
    """A progress that keeps what was said, in `lines`."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Firsts(torch.nn.Module):
    """A teacher whose logits are the first numbers of its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :3]


def wide_dump(place: Path, out: str, **words: object) -> torch.Tensor:
    """Two shards of 100 rows, whose inputs are a thousand times as large as the logits, [200, 3],
    that are returned."""
    import datasets

    import softlabels

    values = np.random.default_rng(0).normal(size=(200, 4000)).astype(np.float32)
    features = datasets.Features({"x": datasets.List(datasets.Value("float32"), length=4000)})
    data = str(place / "wide.parquet")
    datasets.Dataset.from_dict({"x": values}, features=features).to_parquet(data)
    teacher = save_script(Firsts(), place / "firsts.pt")
    softlabels.dump(teacher=teacher, data=data, out=out, shard_rows=100, **words)
    return torch.from_numpy(values[:, :3]).half()


def whole(dataset) -> torch.Tensor:
    """All logits as a loaded dataset gives them, [R, C], every file checked."""
    logits = dataset.rows.gather(np.arange(len(dataset))).dense()
    dataset.settle()
    return logits


def every(reader) -> np.ndarray:
    """All logits of a dump, decoded, [R, C]."""
    return reader.logits_of(np.arange(len(reader)))[0].dense().numpy()
