"""The training loops of docs/loops.md run as they stand there."""

import re
import shutil
from pathlib import Path

import pytest

import softlabels

PAGE = Path(__file__).parents[1] / "docs" / "loops.md"


LIBRARIES = {
    "PyTorch": "torch", "Lightning": "lightning", "Views": "torch",
    "Views with Lightning": "lightning", "transformers": "transformers",
}  # fmt: skip


@pytest.fixture(scope="session")
def views_folder(teacher, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("loops") / "digits-views"
    softlabels.dump(teacher=teacher, out=str(out), views=4, augment="jitter(1)")
    return out


def run(section: str) -> dict:
    """The Python of this section of the docs, run; its names."""
    text = PAGE.read_text(encoding="utf-8")
    code = re.search(rf"^## {section}\n.*?```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    names: dict = {"__name__": "loop"}
    exec(compile(code[1], f"{PAGE.name}, {section}", "exec"), names)
    return names


@pytest.mark.parametrize("section", LIBRARIES)
def test_a_loop_of_the_docs_trains_a_student(
    section, dump_folder, views_folder, tmp_path, monkeypatch
):
    pytest.importorskip(LIBRARIES[section])
    shutil.copytree(dump_folder, tmp_path / "data" / "digits-t")
    shutil.copytree(views_folder, tmp_path / "data" / "digits-views")
    monkeypatch.chdir(tmp_path)
    assert run(section)["accuracy"] > 0.85
