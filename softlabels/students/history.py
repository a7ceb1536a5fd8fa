"""The history of a training: a line of JSON for each epoch, beside the checkpoint."""

import json
from pathlib import Path
from typing import Any

from softlabels.system.humanize import json_text
from softlabels.system.local_files import appearing


class History:
    """`s.pt.history.jsonl`, the history of the training that writes `s.pt`."""

    def __init__(self, out: str) -> None:
        self.path = Path(f"{out}.history.jsonl")
        self.is_ours = False

    def add(self, entries: list[dict[str, Any]]) -> None:
        """Append the last of these entries, which are those of all epochs so far. Raises OSError.

        The first time all are written: the file may be an earlier training's, and a killed one may
        have left epochs in it that are trained again.
        """
        if not self.is_ours:
            with appearing(
                self.path, str(self.path.with_name(f".{self.path.name}.partial"))
            ) as file:
                file.writelines(map(_line, entries))
            self.is_ours = True
            return
        with self.path.open("ab") as file:
            file.write(_line(entries[-1]))

    def read(self) -> list[dict[str, Any]]:
        """The entries of the file, one an epoch. Raises OSError, and ValueError for a file that is
        no history."""
        entries = [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]
        if not all(isinstance(entry, dict) and "epoch" in entry for entry in entries):
            raise ValueError(f"{self.path} has lines that are no epochs")
        return entries


def _line(entry: dict[str, Any]) -> bytes:
    return json_text(entry).encode() + b"\n"
