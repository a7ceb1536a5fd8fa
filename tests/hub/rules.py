"""What the Hub decides and refuses by itself: upload modes, paths, names, a card's header."""

import re
from fnmatch import fnmatchcase
from typing import Any

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

INLINE_BYTES = 10 * 2**20  # a larger file must be an LFS file
REPO_NAME = re.compile(r"[A-Za-z0-9](?:[\w\-.]{0,94}\w)?", re.ASCII)
LFS_PATTERNS = """
*.7z *.arrow *.avro *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.lz4 *.mds *.mlmodel
*.model *.msgpack *.npy *.npz *.onnx *.ot *.parquet *.pb *.pickle *.pkl *.pt *.pth *.rar
*.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*
*.pcm *.sam *.raw *.aac *.flac *.mp3 *.ogg *.wav *.bmp *.gif *.png *.tiff *.jpg *.jpeg *.webp
*.mp4 *.webm
"""
ATTRIBUTES = "".join(
    f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS.split()
)


class Refused(Exception):
    """An answer that is no success. `code` is what clients tell kinds of 404 by."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str) -> None:
        super().__init__(message)
        self.status = status
        line = " ".join(message.encode("ascii", "replace").decode().split())
        self.headers = {"X-Error-Message": line, **headers}
        if code:
            self.headers["X-Error-Code"] = code


def check_name(name: Any) -> None:
    if not isinstance(name, str) or not REPO_NAME.fullmatch(name) or re.search(r"--|\.\.", name):
        raise Refused(400, f"Invalid repo name: {name!r}")
    if name.endswith(".git"):
        raise Refused(400, f"Repo name can't end with .git: {name!r}")


def check_path(path: Any) -> None:
    """Refuses what would leave a checkout or go into its `.git`."""
    parts = path.split("/") if isinstance(path, str) else [""]
    if {"", ".", "..", ".git"} & {part.lower() for part in parts} or "\\" in path or "\0" in path:
        raise Refused(400, f"Invalid path: {path!r}")


def must_be_lfs(path: str, size: int, sample: bytes, attributes: str) -> bool:
    """By `.gitattributes`, by size, and because it is no text."""
    lines = [line.split() for line in attributes.splitlines()]
    patterns = [line[0] for line in lines if "filter=lfs" in line[1:]]
    name = path.rsplit("/", 1)[-1]
    return (
        any(fnmatchcase(path if "/" in pattern else name, pattern) for pattern in patterns)
        or size > INLINE_BYTES
        or b"\0" in sample
    )


def ignored(path: str, rules: str) -> bool:
    """As a `.gitignore` without negations says."""
    parts = path.split("/")
    heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    patterns = [line.strip() for line in rules.splitlines()]
    return any(
        fnmatchcase(part, pattern.strip("/"))
        for pattern in patterns
        if pattern and not pattern.startswith("#")
        for part in (heads if "/" in pattern.rstrip("/") else parts)
    )


def read_header(card: str) -> tuple[dict[str, Any], list[str]]:
    """A card's metadata, and what is wrong with them."""
    found = REGEX_YAML_BLOCK.search(card)
    if not found:
        return {}, []
    try:
        told = yaml.safe_load(found[2])
    except yaml.YAMLError as error:
        return {}, [str(error)]
    if not isinstance(told, dict):
        return {}, ["the metadata must be an object"]
    kinds: dict[str, tuple[type, ...]] = {
        "tags": (list,), "configs": (list,), "license": (str, list), "language": (str, list),
        "pretty_name": (str,), "task_categories": (list,), "size_categories": (str, list),
        "dataset_info": (dict, list),
    }  # fmt: skip
    wrong = [
        f'"{key}" must be {" or ".join(kind.__name__ for kind in allowed)}'
        for key, allowed in kinds.items()
        if told.get(key) is not None and not isinstance(told[key], allowed)
    ]
    if not wrong:
        wrong = [
            f'"configs[{n}].config_name" is required'
            for n, config in enumerate(told.get("configs") or [])
            if not isinstance(config, dict) or not isinstance(config.get("config_name"), str)
        ]
    return told, wrong
