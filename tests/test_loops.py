"""The training loops of docs/loops.md run as they stand there."""

import re
import shutil
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "loops.md"


@pytest.mark.parametrize(
    ("section", "library"),
    [("PyTorch", "torch"), ("Lightning", "lightning"), ("transformers", "transformers")],
)
def test_a_loop_of_the_docs_trains_a_student(section, library, dump_folder, tmp_path, monkeypatch):
    pytest.importorskip(library)
    shutil.copytree(dump_folder, tmp_path / "data" / "digits-t")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    code = re.search(rf"^## {section}\n.*?```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    names: dict = {"__name__": "loop"}
    exec(compile(code[1], f"{PAGE.name}, {section}", "exec"), names)
    assert names["accuracy"] > 0.85
