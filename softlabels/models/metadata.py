"""What a file of `softlabels export` says of itself, so that it is a teacher with all that the
checkpoint knew. Class names stand under the key that other programs use too."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXTRA = "softlabels.json"  # in a .pt2 archive, in its folder `extra`
LARGEST = 64 << 20  # bytes of it that are read


@dataclass(frozen=True)
class Metadata:
    """model: the checkpoint's; task: classification or multilabel
    before: the steps that a program has to take before the file's own, in words of --preprocess
    inside: those that the file has
    """

    model: str
    task: str
    before: str
    inside: str
    class_names: list[str] | None = None

    def as_text(self) -> dict[str, str]:
        """As texts by key."""
        names = {} if self.class_names is None else {"class_names": self.class_names}
        texts = {name: json.dumps(value, ensure_ascii=False) for name, value in names.items()}
        return texts | {
            "softlabels_model": self.model,
            "softlabels_task": self.task,
            "softlabels_preprocess_before": self.before,
            "softlabels_preprocess_inside": self.inside,
        }


def known_of(texts: Mapping[str, str]) -> dict[str, Any]:
    """What such texts say of a model, as fields of `Model`, but for class names; nothing for a file
    of another program."""
    before, task = texts.get("softlabels_preprocess_before"), texts.get("softlabels_task")
    known: dict[str, Any] = {} if before is None else {"preprocess": before}
    return known | ({"data": {"task": task}} if task else {})


def of_archive(path: Path) -> dict[str, str]:
    """The texts in a .pt2 archive; none where there are none."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if entry.filename.endswith(f"/extra/{EXTRA}") and entry.file_size <= LARGEST:
                try:
                    value = json.loads(archive.read(entry))
                except ValueError:
                    return {}
                pairs = value.items() if isinstance(value, dict) else ()
                return {str(key): text for key, text in pairs if isinstance(text, str)}
    return {}
