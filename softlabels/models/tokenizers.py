"""Tokenizers of transformers, held against the model that reads their tokens."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from softlabels.errors import TeacherError
from softlabels.models.causes import first_line
from softlabels.models.keywords import keywords_of
from softlabels.models.limits import (
    limits_of,
    reader_in,
    refuse_without_pad,
)
from softlabels.models.tokens import IDS, KINDS, Tokens
from softlabels.system.extras import need

# What a tokenizer may be read from; one of the first must be there.
VOCABULARIES = ["tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "tokenizer.model",
                "sentencepiece.bpe.model", "tokenizer_config.json"]  # fmt: skip
FILES = [*VOCABULARIES, "merges.txt", "special_tokens_map.json", "added_tokens.json"]
NO_LIMIT = 10**9  # transformers says 10**30 where a tokenizer knows none
FEW = 0.9  # of a model's tokens; a tokenizer with fewer is perhaps another model's
HASH_DIGITS = 16
PROBES = [
    "Garlic BREAD, the 2nd: don't!",
    "Käse\u00a0 ÉTÉ e\u0301 ﬁ",
    "熊が\u3000好き\n\tok",
    "a_b-c/d@e 3.14",
]
PART = 1 << 20  # characters that are encoded at once


class Tokenizer:
    """name: of its folder, or on the Hub; hash: `sha256:` and 16 hex digits, of what decides its
    tokens. Raises TeacherError for one that draws tokens at random."""

    def __init__(self, tokenizer: Any, place: str, name: str = "") -> None:
        self.tokenizer, self.place = tokenizer, place
        folder = Path(place)
        self.name = name or (folder.resolve().name if folder.is_dir() else place)
        _refuse_random(tokenizer, self.name)
        self.hash = f"sha256:{_hash(tokenizer)[:HASH_DIGITS]}"
        self.lock = Lock()  # truncation is a state of the tokenizer

    def __reduce__(self) -> tuple:
        return Tokenizer, (self.tokenizer, self.place, self.name)

    @property
    def side(self) -> str:
        """Where it pads, left or right."""
        return str(self.tokenizer.padding_side)

    @property
    def largest(self) -> int:
        """The largest number of a token."""
        return max(self.tokenizer.get_vocab().values())

    def encode(self, columns: Sequence[list[str]], most: int | None = None) -> Tokens:
        """The tokens of texts, or of pairs of them, with the special ones; cut to `most`, of a pair
        the longer text first."""
        sizes = np.sum([[len(text) for text in texts] for texts in columns], axis=0)
        parts = np.cumsum(sizes) // PART  # an encoding takes about a hundred bytes a token
        ends = [*(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(sizes)]
        starts = [0, *ends[:-1]]
        pieces = [[texts[a:b] for texts in columns] for a, b in zip(starts, ends, strict=True)]
        made = [self._encode(piece, most) for piece in pieces]
        return made[0] if len(made) == 1 else Tokens.joined(made)

    def _encode(self, columns: Sequence[list[str]], most: int | None) -> Tokens:
        cut = {} if most is None else {"truncation": True, "max_length": most}
        with self.lock:  # a fast one encodes with as many threads as there are cores
            encoded = self.tokenizer(
                *columns, padding=False, return_attention_mask=False, verbose=False, **cut
            )
        known = {name: rows for name, rows in encoded.items() if name in (IDS, KINDS)}
        return Tokens.of(known)

    def check(self, module: nn.Module, title: str) -> list[str]:
        """Remarks. Raises TeacherError where the tokens are not the model's, or where it has no
        token to pad with."""
        ours, theirs = len(self.tokenizer), limits_of(reader_in(module)).vocabulary
        remedy = "Give the tokenizer that the model was trained with: --tokenizer FOLDER"
        if theirs is not None and ours > theirs:
            raise TeacherError(
                f"the tokenizer {self.name} has {ours:,} tokens, and {title} knows {theirs:,}: it "
                f"is another model's. {remedy}"
            )
        pad, own = self.pad_of(module, title), self._pad
        if own is not None and own != pad:
            raise TeacherError(
                f"the tokenizer {self.name} pads with the token {own}, and {title} with {pad}: it "
                f"is another model's. {remedy}"
            )
        if theirs is not None and ours < FEW * theirs:
            return [
                f"warning: the tokenizer {self.name} has {ours:,} tokens, and {title} knows "
                f"{theirs:,}: is it this model's?"
            ]
        return []

    @property
    def _pad(self) -> int | None:
        pad: int | None = getattr(self.tokenizer, "pad_token_id", None)
        return pad

    def pad_of(self, module: nn.Module, title: str) -> int:
        """The token that rows are padded with: that of the model of transformers, or of the one
        inside the module, else the tokenizer's. Raises TeacherError where none is named."""
        reader = reader_in(module)
        if reader is not None and reader is getattr(module, "held", module):
            return refuse_without_pad(module, title)
        pad = self._pad if (own := limits_of(reader).pad) is None else own
        if pad is None:
            raise TeacherError(
                f"neither {title} nor the tokenizer {self.name} names a token for padding: set "
                f"tokenizer.pad_token, such as to tokenizer.eos_token, and save it again"
            )
        return pad

    def longest(self, module: nn.Module) -> int | None:
        """How many tokens the model takes at most; None where neither of them says."""
        most = limits_of(reader_in(module)).longest or NO_LIMIT
        least = min(self.tokenizer.model_max_length, most)
        return int(least) if least < NO_LIMIT else None

    @property
    def files(self) -> dict[str, Tensor]:
        """What save_pretrained writes of it: the bytes of each file, uint8, by its name."""
        with tempfile.TemporaryDirectory() as folder, self.lock:
            self.tokenizer.save_pretrained(folder)
            paths = [path for path in sorted(Path(folder).iterdir()) if path.is_file()]
            return {path.name: torch.from_numpy(np.fromfile(path, np.uint8)) for path in paths}


@dataclass(frozen=True)
class OwnTokenizer:
    """What opens the tokenizer in a model's folder or repository. at: its revision, and the like"""

    place: str
    at: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Tokenizer:
        return open_tokenizer(self.place, **self.at)

    @property
    def is_there(self) -> bool:
        """Whether the folder has files of one."""
        transformers = need("transformers", "transformers", f"the tokenizer {self.place}")
        with suppress(OSError):  # of a name on the Hub that can't be asked for
            return any(_has(transformers, self.place, name, self.at) for name in VOCABULARIES)
        return False


def reads_tokens(module: nn.Module) -> bool:
    """Whether it takes tokens by name, as models of transformers do."""
    return IDS in keywords_of(module).names


def tokenizer_of(given: Any) -> Tokenizer:
    """One in memory. Raises TeacherError where it is none."""
    if not (
        callable(given) and hasattr(given, "padding_side") and hasattr(given, "save_pretrained")
    ):
        raise TeacherError(
            f"the tokenizer is a {type(given).__name__}; give one of transformers, such as "
            f"AutoTokenizer.from_pretrained(FOLDER), or the folder of one"
        )
    place = str(getattr(given, "name_or_path", "") or "")
    is_path = os.path.isabs(place) or os.path.exists(place)  # records hold no path of a machine
    name = (Path(place).name if is_path else place) or type(given).__name__
    return Tokenizer(given, place, name)


def tokenizer_from(files: Mapping[str, Tensor], name: str, known: str, title: str) -> Tokenizer:
    """The tokenizer of these files, which the file `title` holds.

    known: its hash

    Raises TeacherError where it can't be loaded, or makes other tokens than it did.
    """
    need("transformers", "transformers", f"the tokenizer of {title}")
    with tempfile.TemporaryDirectory() as folder:
        for file, content in files.items():
            if Path(file).name != file or file == "..":  # a stranger's file leads nowhere else
                raise TeacherError(f"{title} holds a file of a tokenizer called {file!a}")
            Path(folder, file).write_bytes(content.numpy().tobytes())
        tokenizer = Tokenizer(open_tokenizer(folder).tokenizer, title, name)
    if tokenizer.hash != known:
        raise TeacherError(
            f"the tokenizer that {title} holds is {tokenizer.hash} here, and was {known}: another "
            f"version of transformers or tokenizers reads it otherwise. It was trained with the "
            f"versions that the file names"
        )
    return tokenizer


def open_tokenizer(place: str, **at: Any) -> Tokenizer:
    """The tokenizer of a folder, or of a repository of the Hub or its cache. Raises TeacherError
    where there is none."""
    transformers = need("transformers", "transformers", f"the tokenizer {place}")
    place = str(Path(place).expanduser())
    try:
        if not any(_has(transformers, place, name, at) for name in VOCABULARIES):
            raise OSError(f"none of the files {', '.join(VOCABULARIES[:3])}, … is there")
        # unless it is told, it asks at the keyboard whether to run a stranger's code
        code = {"trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, **code | at)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError) as error:
        raise TeacherError(
            f"{place} has no tokenizer that can be loaded: {first_line(error)}. Name a folder of "
            f"one with --tokenizer"
        ) from error
    return Tokenizer(tokenizer, place)


def _has(transformers: Any, place: str, name: str, at: dict[str, Any]) -> bool:
    path = transformers.utils.cached_file(
        place,
        name,
        revision=at.get("revision"),
        local_files_only=at.get("local_files_only", False),
        _raise_exceptions_for_missing_entries=False,
    )
    return path is not None


def _refuse_random(tokenizer: Any, name: str) -> None:
    """Raises TeacherError for a tokenizer that splits a text otherwise each time, as some do for
    training a language model (Provilkov et al. 2020; Kudo 2018): its tokens are made once, and a
    teacher asked again would give other logits."""
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    dropout, alpha = getattr(model, "dropout", None) or 0, getattr(model, "alpha", None) or 0
    # 1.0 drops every merge; of one best path there is nothing to draw
    if 0 < dropout < 1:
        how, remedy = f"a dropout of {dropout:g}", "backend_tokenizer.model.dropout = None"
    elif alpha > 0 and getattr(model, "nbest_size", None) != 1:  # which no file of it says
        how, remedy = f"an alpha of {alpha:g}", "backend_tokenizer.model.alpha = None"
    elif (getattr(tokenizer, "sp_model_kwargs", None) or {}).get("enable_sampling"):
        how, remedy = "enable_sampling in sp_model_kwargs", "sp_model_kwargs = {}"
    elif _of_probes(tokenizer) != _of_probes(tokenizer):
        raise TeacherError(
            f"the tokenizer {name} made other tokens of the same text when it was asked again: "
            f"make it deterministic"
        )
    else:
        return
    raise TeacherError(
        f"the tokenizer {name} draws at random how it splits a text ({how}), so that its tokens "
        f"are others each time: set tokenizer.{remedy}, and save it again"
    )


def _of_probes(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(text, verbose=False)[IDS] for text in PROBES]


def _hash(tokenizer: Any) -> str:
    """Of what decides the tokens of a text: the rules and the vocabulary. The token of padding is
    none of it: no answer depends on it, since rows are padded only beside a mask, and only where
    that was seen to change nothing (`find_side`)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:  # one of Python tells its rules by what it makes of texts
        flags = {
            name: value for name, value in tokenizer.init_kwargs.items() if type(value) is bool
        }
        rules: Any = [sorted(tokenizer.get_vocab().items()), flags, _of_probes(tokenizer)]
    else:
        rules = json.loads(backend.to_str())
        rules = {
            name: part for name, part in rules.items() if name not in ("truncation", "padding")
        }
    # beside the rules: whether texts that spell a special token hold it, and what else is made
    more = [tokenizer.split_special_tokens, KINDS in tokenizer.model_input_names]
    known = [type(tokenizer).__name__, rules, tokenizer.truncation_side, more]
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
