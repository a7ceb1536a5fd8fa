"""The training loops of docs/loops.md and docs/losses.md run as they stand there."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = [DOCS / "loops.md", DOCS / "losses.md"]


LIBRARIES = {
    "PyTorch": "torch", "Lightning": "lightning", "Views": "torch",
    "Views with Lightning": "lightning", "transformers": "transformers", "In a loop": "torch",
}  # fmt: skip


def run(section: str) -> dict:
    """The Python of this section of the docs, run; its names."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    code = re.search(rf"^## {section}\n.*?```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    names: dict = {"__name__": "loop"}
    exec(compile(code[1], f"docs, {section}", "exec"), names)
    return names


@pytest.mark.parametrize("section", LIBRARIES)
def test_a_loop_of_the_docs_trains_a_student(
    section, dump_folder, views_folder, tmp_path, monkeypatch
):
    pytest.importorskip(LIBRARIES[section])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "digits-t").symlink_to(dump_folder)
    (tmp_path / "data" / "digits-views").symlink_to(views_folder)
    monkeypatch.chdir(tmp_path)
    assert run(section)["accuracy"] > 0.85


@pytest.mark.slow
def test_a_language_model_of_the_docs_learns_without_its_logits(tmp_path, monkeypatch):
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    for name, width in (("big", 32), ("small", 16)):
        config = transformers.LlamaConfig(
            vocab_size=60, hidden_size=width, intermediate_size=width, num_hidden_layers=1,
            num_attention_heads=2,
        )  # fmt: skip
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(name)
    names = run("Language models")
    assert len(names["losses"]) == 20
    assert sum(names["losses"][-4:]) < sum(names["losses"][:4])
    logits = names["student"](names["tokens"]).logits[:, :-1].flatten(0, 1)
    student = names["hidden"] @ names["student"].lm_head.weight.T
    assert logits.shape == student.shape == (8 * 15, 60)
    teacher = names["teacher"](names["tokens"]).logits[:, :-1].flatten(0, 1)
    assert (teacher - names["targets"].dense()).abs().max() < 0.01
