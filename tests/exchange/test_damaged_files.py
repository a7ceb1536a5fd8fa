"""`softlabels import`: damaged, odd and hostile files end in an error that says why."""

import io
import pickle
import resource
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from softlabels.errors import (
    SoftlabelsError,
    SourceError,
    StoreError,
    UntrustedPickle,
    UsageError,
)
from softlabels.exchange import import_logits
from tests.conftest import make_vectors
from tests.exchange.foreign_files import soft

ROWS = 20
NAMES = [f"n{row:02d}" for row in range(ROWS)]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    return make_vectors(tmp_path_factory.mktemp("named") / "v.parquet", ROWS, name=NAMES)


@pytest.fixture
def words(named, tmp_path):
    np.save(tmp_path / "z.npy", soft(ROWS, 3)[0])
    return {"data": named, "id_column": "name", "out": str(tmp_path / "d")}


def refused(words: dict, match: str, error=SourceError) -> None:
    with pytest.raises(error, match=match):
        import_logits(**words)


def contents() -> dict[str, bytes]:
    """A good file of each kind."""
    z = soft(ROWS, 3)[0]
    found = {name: io.BytesIO() for name in ("a.npy", "b.npz", "c.npz", "d.pt", "e.pt")}
    np.save(found["a.npy"], z)
    np.savez(found["b.npz"], logits=z, ids=np.array(NAMES))
    np.savez_compressed(found["c.npz"], logits=z, ids=np.array(NAMES))
    torch.save({"logits": torch.from_numpy(z), "ids": NAMES}, found["d.pt"])
    torch.save(torch.from_numpy(z), found["e.pt"], _use_new_zipfile_serialization=False)
    return {name: file.getvalue() for name, file in found.items()}


@pytest.mark.parametrize("name", list(contents()))
def test_bytes_that_changed_end_in_no_other_error(words, tmp_path, name):
    random, whole = np.random.default_rng(0), contents()[name]
    for seed in range(60):
        content = bytearray(whole)
        for place in random.integers(0, len(content), 4):
            content[place] = random.integers(256)
        (tmp_path / name).write_bytes(content[: len(content) - seed % 3 * 40])
        try:
            import_logits(**words | {"out": str(tmp_path / f"o{seed}"), "file": tmp_path / name})
        except SoftlabelsError:
            continue


def archive(path, head: bytes, name: str = "logits.npy") -> str:
    z = io.BytesIO()
    np.save(z, soft(ROWS, 3)[0])
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("logits.npy", z.getvalue()) if name != "logits.npy" else None
        file.writestr(name, b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head)
    return str(path)


@pytest.mark.parametrize("name", ["logits.npy", "ids.npy"])
@pytest.mark.parametrize("shape", ["(1152921504606846976,)", "(-1, 3)", "(9999999999, 9999999999)"])
def test_a_header_that_promises_too_much_is_refused(words, tmp_path, name, shape):
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': %s}\n" % shape.encode()
    refused(words | {"file": archive(tmp_path / "z.npz", head, name)}, "has 0 bytes, not")


@pytest.mark.parametrize("head", [b"{'descr': (((", b"{'descr': '<f4'}\n", b"\xff", b"{}[", b""])
def test_headers_that_are_none_are_refused(words, tmp_path, head):
    refused(words | {"file": archive(tmp_path / "z.npz", head)}, "can't be read")
    content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head
    (tmp_path / "y.npy").write_bytes(content)
    refused(words | {"file": str(tmp_path / "y.npy")}, "can't be read")
    refused(words | {"file": str(tmp_path / "z.npy"), "ids": str(tmp_path / "y.npy")}, "be read")


def test_tensors_that_want_gradients_are_taken(words, tmp_path):
    z = torch.from_numpy(soft(ROWS, 3)[0]).requires_grad_()
    torch.save({"logits": z, "ids": NAMES}, tmp_path / "z.pt")
    import_logits(**words, file=str(tmp_path / "z.pt"))


def odd() -> dict[str, tuple[object, str]]:
    z = torch.from_numpy(soft(ROWS, 3)[0])
    return {
        "sparse": ({"logits": z.to_sparse()}, "sparse.*dense"),
        "meta": ({"logits": z.to("meta")}, "meta.*dense"),
        "labels": ({"logits": z, "labels": torch.zeros(ROWS).bfloat16()}, "labels .*bfloat16"),
        "ragged": ({"logits": z, "ids": [[1, 2], [3]]}, "ids is list that is no plain array"),
        "mixed": ({"logits": z, "ids": [None] * ROWS}, "ids is object; expected whole"),
        "wide": ({"logits": z, "ids": np.full(ROWS, 2**63, np.uint64).tolist()}, r"below 2\^63"),
    }


@pytest.mark.parametrize("what", list(odd()))
def test_tensors_that_are_no_plain_numbers_are_refused(words, tmp_path, what):
    content, match = odd()[what]
    torch.save(content, tmp_path / "z.pt")
    refused(words | {"file": str(tmp_path / "z.pt")}, match)


def test_only_a_pickle_is_called_one(words, tmp_path):
    for name, content, error in (
        ("damaged", b"\x80\x02", SourceError),
        ("code", b"\x80\x02cos\nsystem\n.", UntrustedPickle),
    ):
        (tmp_path / name).write_bytes(content)
        refused(words | {"file": str(tmp_path / name)}, name, error)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("i.json", b"[" * 5000, "can't be read"),
        ("i.csv", b"a" * 200_000 + b"\n", "can't be read"),
        ("i.txt", b"a\n" * (ROWS - 1) + b"b" * 2000, "text of 2,000 characters"),
        ("i.npy", b"hello", "is no .npy"),
        ("i.txt", b"\xff\xfe", "can't be read"),
    ],
)
def test_id_files_that_are_none_are_refused(words, tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    refused(words | {"file": str(tmp_path / "z.npy"), "ids": str(tmp_path / name)}, match)


def test_an_npz_is_no_npy_of_ids_and_no_id_wraps_around(words, tmp_path):
    given = words | {"file": str(tmp_path / "z.npy"), "ids": str(tmp_path / "i.npy")}
    with (tmp_path / "i.npy").open("wb") as file:
        np.savez(file, ids=np.array(NAMES))
    refused(given, "is a .npz, not a .npy")
    np.save(tmp_path / "i.npy", np.arange(ROWS, dtype=np.uint64) + np.uint64(2**63))
    refused(given, r"has 9223372036854775827; expected .* below 2\^63")


@pytest.mark.parametrize("ending", ["txt", "csv"])
def test_a_byte_order_mark_is_no_part_of_an_id(words, tmp_path, ending):
    ids = tmp_path / f"i.{ending}"
    ids.write_text("\n".join(NAMES) + "\n", encoding="utf-8-sig")
    import_logits(**words, file=str(tmp_path / "z.npy"), ids=str(ids))


def test_a_path_that_no_file_system_takes_is_refused(words, tmp_path):
    refused(words | {"file": "x" * 300}, "can't be read: File name too long")


def test_a_home_that_nobody_has_holds_no_file(words):
    refused(words | {"file": "~nobody-at-all/z.npy"}, "~nobody-at-all/z.npy does not exist")


@pytest.mark.parametrize("name", ["out", "name", "file", "ids"])
def test_a_zero_byte_in_a_name_is_refused(words, tmp_path, name):
    given = words | {"file": str(tmp_path / "z.npy"), name: "a\0b"}
    refused(given, rf"{name} is 'a\\x00b'; no name has a zero byte", UsageError)


@pytest.mark.parametrize("out", ["x" * 300, "file/o", "file"])
def test_a_folder_that_can_not_be_is_refused(words, tmp_path, out):
    (tmp_path / "file").touch()
    given = words | {"file": str(tmp_path / "z.npy"), "out": str(tmp_path / out)}
    refused(given, "can't write in .*; choose another folder with --out", StoreError)


class Stored:
    """A storage of so many float32, as a pickle of before the zip format names one."""

    def __init__(self, numbers: int) -> None:
        self.numbers = numbers


class Viewed:
    """A tensor that is a view of it."""

    def __init__(self, numbers: int, shape: tuple, stride: tuple) -> None:
        self.parts = Stored(numbers), 0, shape, stride, False, OrderedDict()

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, self.parts


class Zeros:
    def __init__(self, count: int) -> None:
        self.count = count

    def __reduce__(self):
        return bytearray, (self.count,)


def before_zip(path, content, numbers: int) -> str:
    """A file in torch's older format, which promises a storage and holds 3,600 bytes of it."""
    heads = (0x1950A86A20F9469CFC6C, 1001, {
        "protocol_version": 1001, "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 8},
    })  # fmt: skip
    with path.open("wb") as file:
        for head in heads:
            pickle.dump(head, file, protocol=2)
        pickler = pickle.Pickler(file, protocol=2)
        pickler.persistent_id = lambda held: (
            ("storage", torch.FloatStorage, "0", "cpu", held.numbers, None)
            if isinstance(held, Stored)
            else None
        )
        pickler.dump(content)
        pickle.dump(["0"], file, protocol=2)
        file.write(numbers.to_bytes(8, "little") + b"\0" * 3600)
    return str(path)


GIGA = 1 << 30
PROMISES = {
    "a storage": (Viewed(4 * GIGA, (ROWS, 3), (3, 1)), 4 * GIGA, "can't be read"),
    "more than there is": (Viewed(4000 * GIGA, (ROWS, 3), (3, 1)), 4000 * GIGA, "can't be read"),
    "a view": (Viewed(900, (ROWS, GIGA), (GIGA, 1)), 900, "can't be read|promises"),
    "repeated rows": (
        Viewed(900, (GIGA, 3), (0, 1)), 900,
        r"promises \[1073741824, 3\] of torch.float32, 12,884,901,888 bytes, and has .*clone",
    ),
    "repeated labels": (
        {"logits": Viewed(900, (ROWS, 3), (3, 1)), "labels": Viewed(900, (GIGA,), (0,))}, 900,
        "promises",
    ),
    "zeros": (Zeros(6 * GIGA), 900, "bytearray"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(PROMISES))
def test_a_small_torch_file_that_promises_much_gets_no_memory(words, tmp_path, what):
    content, numbers, match = PROMISES[what]
    file = before_zip(tmp_path / "z.pt", content, numbers)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(words | {"file": file}, match, SoftlabelsError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB


@pytest.mark.parametrize("what", ["logits", "labels", "bytearray"])
def test_so_does_a_zip(words, tmp_path, what):
    z = torch.zeros(1, 3).expand(GIGA if what == "logits" else ROWS, 3)
    held = {"logits": z if what == "logits" else z.clone()}
    if what == "labels":
        held["labels"] = torch.zeros(1, dtype=torch.int64).expand(GIGA)
    if what == "bytearray":
        held["x"] = Zeros(6 * GIGA)
    torch.save(held, tmp_path / "z.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(words | {"file": str(tmp_path / "z.pt")}, "promises|bytearray", SoftlabelsError)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
