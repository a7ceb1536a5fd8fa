"""Ways to read stored logits in batches of 256: this loader's, and those of other formats.

`write` stores the same random logits in every format; `ways` lists who reads them. All that can be
installed beside us is: `make bench` brings mosaicml-streaming, and without it that is left out.
What stores one row at a time is given fewer rows: it would take minutes.

Shapes: N rows of a batch, C classes.
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import softlabels
from softlabels.capture.planning import group_rows, shard_rows
from softlabels.targets.orders import permutation
from tests.dumps import make_dump

BATCH = 256
SLOW_SHARE = 10  # formats of one row at a time hold a tenth of the rows
BLOCK = 20_000  # rows that are drawn; more repeat them
REWRITTEN = {
    "zstd": {"compression": "zstd", "use_dictionary": False},
    "zstd-dictionary": {"compression": "zstd"},  # pyarrow's own default, and so that of datasets
}


@dataclass(frozen=True)
class Way:
    """open(cache): a store, opened with this folder for whatever is cached; batches(store, shuffle,
    epoch): its batches [N, C]; files: where it lies; settle(store): background work is over;
    alone: threads or processes of its own read on while nobody asks."""

    name: str
    files: Path
    open: Callable[[Path], Any]
    batches: Callable[[Any, bool, int], Iterator[Tensor]]
    settle: Callable[[Any], None] = lambda store: None
    alone: bool = False

    @property
    def bytes(self) -> int:
        files = [self.files] if self.files.is_file() else self.files.rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())


def write(place: Path, rows: int, classes: int, only_ours: bool = False) -> None:
    """The same logits in every format, under `place`."""
    drawn = np.random.default_rng(0).standard_normal((min(rows, BLOCK), classes), np.float32)
    drawn = drawn.astype(np.float16)
    logits_RC = np.tile(drawn, (-(-rows // len(drawn)), 1))[:rows]
    group = group_rows(2 * classes, 0)
    shards = shard_rows(2 * classes, group)
    make_dump(place / "dump", logits_RC, group, shards)
    for name, options in REWRITTEN.items():
        make_dump(place / name, logits_RC, group, shards, options)
    np.save(place / "map.npy", logits_RC)
    if only_ours:
        return
    (place / "npy").mkdir()
    for start in range(0, rows, BATCH):
        np.save(place / "npy" / f"{start:08}.npy", logits_RC[start : start + BATCH])
    few_RC = logits_RC[: max(BATCH, rows // SLOW_SHARE)]
    if importlib.util.find_spec("webdataset"):
        _write_webdataset(place / "webdataset", few_RC)
    if importlib.util.find_spec("streaming"):
        _write_mds(place / "mds", few_RC)


def ways(place: Path) -> list[Way]:
    """Everything that can be read there; the bare memory map, the limit, comes first."""
    results = [_memmap(place / "map.npy"), *ours(place)]
    parquet = place / "dump" / "data"
    results.append(Way("datasets, torch format", parquet, _open_datasets(parquet), _from_datasets))
    if (place / "npy").exists():
        npy = place / "npy"
        results.append(Way(".npy a batch (files shuffled)", npy, _list(npy), _from_npy))
    if (place / "webdataset").exists():
        tars = place / "webdataset"
        results.append(Way("webdataset", tars, _list(tars), _from_webdataset))
    if (place / "mds").exists():
        results.append(Way("mosaicml-streaming, MDS", place / "mds", _open_mds(place / "mds"),
                         _from_mds))  # fmt: skip
    return results


def missing() -> list[str]:
    """What is not installed, in words."""
    extras = {"webdataset": "the extra dev", "streaming": "constraints-bench.txt"}
    return [
        f"{name} is left out: it comes with {extra}, which make bench installs"
        for name, extra in extras.items()
        if not importlib.util.find_spec(name)
    ]


def ours(place: Path) -> list[Way]:
    """This loader: mapped, decoded into memory, by blocks, through a DataLoader."""
    return [
        _our("softlabels, mapped", place / "dump", _batches(True)),
        _our("… from zstd, decoded", place / "zstd", _batches(True)),
        _our("… from zstd with a dictionary, decoded", place / "zstd-dictionary", _batches(True)),
        _our("… shuffle='blocks(64, 512)'", place / "dump", _batches("blocks(64, 512)")),
        _our("… streaming", place / "dump", _batches("blocks"), streaming=True),
        _our("… DataLoader", place / "dump", _through_loader(0)),
        _our("… DataLoader, 2 workers", place / "dump", _through_loader(2)),
    ]


def _our(name: str, dump: Path, batches: Callable, **options: Any) -> Way:
    def open_dump(cache: Path) -> softlabels.SoftDataset:
        return softlabels.load(dump, T=4, inputs=False, cache=cache, **options)

    alone = any(word in name for word in ("blocks", "workers", "streaming"))
    return Way(name, dump / "data", open_dump, batches, lambda store: store.settle(), alone)


def _batches(how: bool | str) -> Callable:
    def read(store: softlabels.SoftDataset, shuffle: bool, epoch: int) -> Iterator[Tensor]:
        for batch in store.batches(BATCH, shuffle=how if shuffle else False, epoch=epoch):
            yield batch["logits"]

    return read


def _through_loader(workers: int) -> Callable:
    def read(store: softlabels.SoftDataset, shuffle: bool, epoch: int) -> Iterator[Tensor]:
        for batch in DataLoader(store, BATCH, shuffle=shuffle, num_workers=workers):
            yield batch["logits"]

    return read


def _memmap(path: Path) -> Way:
    def open_map(cache: Path) -> Tensor:
        return torch.from_numpy(np.load(path, mmap_mode="c"))  # torch warns of read-only memory

    def read(logits_RC: Tensor, shuffle: bool, epoch: int) -> Iterator[Tensor]:
        if not shuffle:
            for part in logits_RC.split(BATCH):
                yield part.clone()
            return
        order = torch.from_numpy(permutation(len(logits_RC), 0, epoch))
        for part in order.split(BATCH):
            yield logits_RC.index_select(0, part)

    return Way("memory map, index_select", path, open_map, read)


def _open_datasets(folder: Path) -> Callable[[Path], datasets.Dataset]:
    def open_parquet(cache: Path) -> datasets.Dataset:
        files = [str(path) for path in sorted(folder.iterdir())]
        results = datasets.load_dataset(
            "parquet", data_files=files, split="train", cache_dir=str(cache)
        )
        return results.select_columns("logits").with_format("torch")

    return open_parquet


def _from_datasets(store: datasets.Dataset, shuffle: bool, epoch: int) -> Iterator[Tensor]:
    if not shuffle:
        for batch in store.iter(BATCH):
            yield batch["logits"]
        return
    order = permutation(len(store), 0, epoch)
    for start in range(0, len(order), BATCH):
        yield store[order[start : start + BATCH]]["logits"]


def _list(place: Path) -> Callable[[Path], list[Path]]:
    return lambda cache: sorted(place.iterdir())


def _from_npy(store: list[Path], shuffle: bool, epoch: int) -> Iterator[Tensor]:
    order = permutation(len(store), 0, epoch) if shuffle else range(len(store))
    for index in order:
        yield torch.from_numpy(np.load(store[index]))


def _write_webdataset(place: Path, logits_RC: np.ndarray) -> None:
    import webdataset

    place.mkdir()
    with webdataset.ShardWriter(str(place / "%05d.tar"), maxcount=2000, verbose=0) as writer:
        for row, logits_C in enumerate(logits_RC):
            writer.write({"__key__": f"{row:08}", "logits.npy": logits_C})


def _from_webdataset(store: list[Path], shuffle: bool, epoch: int) -> Iterator[Tensor]:
    import webdataset

    urls = [str(path) for path in store]
    pipeline = webdataset.WebDataset(urls, shardshuffle=100 if shuffle else False, seed=epoch)
    if shuffle:
        pipeline = pipeline.shuffle(1000)
    for (logits_NC,) in pipeline.decode().to_tuple("logits.npy").batched(BATCH):
        yield torch.from_numpy(np.asarray(logits_NC))


def _write_mds(place: Path, logits_RC: np.ndarray) -> None:
    columns = {"logits": f"ndarray:float16:{logits_RC.shape[1]}"}
    with _streaming().MDSWriter(out=str(place), columns=columns) as writer:
        for logits_C in logits_RC:
            writer.write({"logits": logits_C})


def _open_mds(place: Path) -> Callable[[Path], dict]:
    def open_mds(cache: Path) -> dict:
        """An order is fixed when a StreamingDataset is made: one with, one without, when needed."""
        return {"local": str(place), "batch_size": BATCH}

    return open_mds


def _from_mds(store: dict, shuffle: bool, epoch: int) -> Iterator[Tensor]:
    if shuffle not in store:
        options = {name: store[name] for name in ("local", "batch_size")}
        store[shuffle] = _streaming().StreamingDataset(shuffle=shuffle, **options)
    try:
        for batch in DataLoader(store[shuffle], BATCH):
            yield batch["logits"]
    finally:
        store[shuffle]._iterator.exit()  # else its threads look for the files after they are gone


def _streaming() -> ModuleType:
    """mosaicml-streaming imports rooms for pictures and text, and with them torchvision and
    transformers; none of them is needed here, and empty ones stand in for them meanwhile."""
    if "streaming" not in sys.modules:
        empty = {
            "streaming.vision": [],
            "streaming.text": [],
            "streaming.multimodal": [],
            "transformers": [],
            "transformers.feature_extraction_utils": ["BatchFeature"],
            "transformers.tokenization_utils_base": ["BatchEncoding"],
        }
        for name, classes in empty.items():
            sys.modules[name] = ModuleType(name)
            vars(sys.modules[name]).update({one: type(one, (), {}) for one in classes})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("streaming")
        for name in empty:
            del sys.modules[name]
    return sys.modules["streaming"]
