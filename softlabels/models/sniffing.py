"""What kind of file a model's is, read off its first bytes and its zip members."""

import zipfile
from pathlib import Path

from softlabels.errors import TeacherError

# ONNX is protobuf, which has no magic number. Writers put the fields in order, and the first is
# ir_version, a number.
IR_VERSION = b"\x08"


def sniff(path: Path) -> str:
    """`torchscript`, `exported`, `pickle` (torch.save), `safetensors`, `shards` (an index of such
    files) or `onnx`.

    Raises TeacherError for an empty, truncated or unknown file.
    """
    with path.open("rb") as file:
        head = file.read(16)
    if head[:2] == b"PK":
        return _sniff_zip(path)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if head[:1] == b"\x80":
        return "pickle"
    if head.lstrip()[:1] == b"{":
        return "shards"
    if head[:1] == IR_VERSION or path.suffix.lower() == ".onnx":  # which its loader holds it to
        return "onnx"
    raise TeacherError(
        f"{path} is no model that can be read ({path.stat().st_size} bytes, starting "
        f"{head[:4]!r}); expected a checkpoint, a TorchScript archive, a .pt2 program, an ONNX "
        f"file, or a state dict"
    )


def _sniff_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise TeacherError(
            f"{path} is truncated or damaged ({error}); copy or save it again"
        ) from error
    inner = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in inner):
        return "torchscript"
    if "models/model.json" in inner:
        return "exported"
    if "data.pkl" in inner:
        return "pickle"
    raise TeacherError(f"{path} is a zip archive, but of no kind that torch writes")
