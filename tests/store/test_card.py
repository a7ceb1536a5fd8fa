"""The page of a dump: whole cells, whatever names hold; a command that makes the same dump."""

import random
import shlex
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import typer
import yaml
from markdown_it import MarkdownIt

import softlabels
from softlabels.cli.app import app
from softlabels.options import DumpOptions, make_options
from softlabels.reports.markdown import shown, table
from softlabels.reports.recipe import call_of, recipe
from softlabels.store.folder import Folder
from softlabels.store.ledger import read_manifest
from softlabels.store.plan_parts import SourceColumns
from tests.conftest import Linear, png, save_script

STRANGE = [
    "rgb|scale",
    "`tick`",
    "<b>",
    "[a](http://x)",
    "a\\|b",
    "*",
    "www.x.org",
    "_u_",
    "",
    "&lt;",
]
# options of a dump that decide no row, and so are in no recipe
OTHERS = {
    "allow_codec_error",
    "out",
    "resume",
    "check",
    "engine",
    "device",
    "workers",
    "outputs",
    "weights",  # of a name: the same as --teacher FILE with --model NAME
    "truncate",  # the same as --max-length with what the teacher takes
}


def cells(page: str) -> list[str]:
    """What is in the cells of the tables of a page, as a browser shows it."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(page)
    return [
        "".join(part.content for part in inner.children or [])
        for opened, inner in pairwise(tokens)
        if opened.type in ("td_open", "th_open")
    ]


def test_a_cell_shows_any_text_as_it_is():
    draw = random.Random(0)
    signs = "ab1 |`\\*_<>[]()!#&;~-:./@w\n'\"{}é+=^$%—…?🍞"
    texts = ["of(_x_)", "— _x_ —"]
    texts += ["".join(draw.choice(signs) for _ in range(draw.randint(1, 9))) for _ in range(3000)]
    for text in texts:
        page = table(("fact", "value"), [("x", shown(text))])
        assert cells(page)[2:] == ["x", " ".join(text.split())], text


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_script(Linear(), tmp_path / "t.pt")
    return tmp_path


def make_pictures(path: Path, names: list[str]) -> None:
    random = np.random.default_rng(0)
    images = [{"bytes": png(random.integers(0, 255, (4, 4, 3))), "path": None} for _ in range(40)]
    features = datasets.Features(
        img=datasets.Image(), kind=datasets.ClassLabel(names=names), key=datasets.Value("string")
    )
    rows = {"img": images, "kind": [i % len(names) for i in range(40)],
            "key": [f"row {i}" for i in range(40)]}  # fmt: skip
    datasets.DatasetDict({"dev": datasets.Dataset.from_dict(rows, features)}).save_to_disk(path)


class Colours(torch.nn.Module):
    """Ten logits of pictures of 4 × 4, or of what is cut out of them."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


def test_the_page_of_strange_names(place):
    make_pictures(place / "my|pets", STRANGE)
    teacher = save_script(Colours(), place / "c.pt")
    preprocess = "rgb|center_crop(2)|scale(255)|normalize(0.5, 0.2)"
    softlabels.dump(teacher=teacher, data="my|pets", split="dev", preprocess=preprocess,
                    name="res|net*50*", out="d")  # fmt: skip
    page = Path("d/README.md").read_text()
    _, header, body = page.split("---\n", 2)
    found = cells(body)
    assert found[found.index("preprocessing") + 1] == preprocess
    assert found[found.index("classes") + 1] == "10: " + ", ".join(name or '""' for name in STRANGE)
    assert found[found.index("source") + 1] == "my|pets, split dev"
    assert "# Soft targets of `res|net*50*` on `my|pets`" in body
    assert "" not in found, "no empty header row"
    assert body.index("<details>") < body.index("sha256:"), "hashes are folded away"
    told = yaml.safe_load(header)
    assert told["task_categories"] == ["image-classification"]
    assert datasets.load_dataset("d", split="dev").features["label"].names == STRANGE


def test_the_header_of_a_thousand_classes_is_short(place):
    names = [f"class {i}" for i in range(1000)]

    class Wide(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.flatten(1)] * 21, 1)[:, :1000] * 8 - 4

    make_pictures(place / "pets", names)
    softlabels.dump(teacher=save_script(Wide(), place / "w.pt"), data="pets", split="dev", out="d",
                    preprocess="rgb|scale(255)")  # fmt: skip
    page = Path("d/README.md").read_text()
    assert page.count("\n") < 120
    assert "1,000: class 0, class 1" in page
    assert datasets.load_dataset("d", split="dev").features["label"].names == names


def parse(command: str) -> dict:
    """A command line as the program reads it."""
    program, verb, *words = shlex.split(command)
    assert program == "softlabels"
    command_ = typer.main.get_command(app).commands[verb]
    return command_.make_context(verb, words).params


@pytest.mark.parametrize("inputs", ["none", "original", "resized(3)"])
def test_the_command_on_the_card_makes_the_same_plan(place, inputs):
    make_pictures(place / "it's my data", STRANGE)
    teacher = save_script(Colours(), place / "c.pt")
    softlabels.dump(teacher=teacher, data="it's my data", split="dev", out="d", store_inputs=inputs,
                    preprocess="rgb|resize(3)|center_crop(2)|scale(255)", id_column="key",
                    shard_rows=16, label_column="kind", input_column="img", dtype="float32",
                    name="a 'b' $c")  # fmt: skip
    page = Path("d/README.md").read_text()
    start = page.index("    softlabels dump")
    command = page[start : page.index("\n\n", start)]
    assert "TEACHER" in command
    options = parse(command.replace("\\\n", " ").replace("TEACHER", "c.pt"))
    known = {field.name for field in fields(DumpOptions)}
    softlabels.dump(**{k: v for k, v in options.items() if k in known} | {"out": "again"})
    assert read_manifest(Folder("again"))[1].hash == read_manifest(Folder("d"))[1].hash


def test_a_recipe_has_every_option_that_decides_a_row(place):
    """A new option of dump has to stand in the recipe, or among those that decide nothing."""
    softlabels.fit(data="digits", model="linear", epochs=1, out="w.pt")
    weights = torch.load("w.pt", weights_only=True)["state_dict"]
    torch.save(weights, "bare.pt")
    softlabels.dump(teacher="bare.pt", model="linear", data="digits", out="d", dtype="float32")
    _, plan = read_manifest(Folder("d"))
    told = parse(" ".join(recipe(plan)))
    assert (told["model"], told["dtype"], told["data"]) == ("linear", "float32", "digits")
    columns = SourceColumns(inputs=["a", "b"], label=None, label_source="y", id="k")
    source = plan.source.replace(
        origin="hub", revision="v1", columns=columns, class_names_from="file"
    )
    teacher = plan.teacher.replace(kind="pickle", model="nets:small", key="ema", logits="z")
    changed = plan.replace(
        source=source, teacher=teacher, store_inputs="original", batch_size=8, codec="int8",
        views=[1, 2], augment="jitter(2)", data_seed=3, view_shape=[1, 8, 8],
        task="multilabel", compile=True,
        memory_format="channels_last",
    )  # fmt: skip
    text = " ".join(recipe(changed, skipped=True)).replace("--no-clean", "--clean")
    assert "--views 2 --augment 'jitter(2)' --data-seed 3" in text
    unlabelled = source.replace(columns=columns.replace(label_source=None))
    tokens = "tokenizer('ORG/TOK', 'sha256:0123456789abcdef', 128, truncate)"
    without = changed.replace(source=unlabelled, preprocess=tokens)
    assert "--no-labels" not in text
    text += " " + " ".join(recipe(without)).replace("--no-labels", "--labels")
    assert text.count("--own-labels") == 1
    every = [field for field in fields(DumpOptions) if field.name not in OTHERS]
    flags = [f"--{f.name.replace('_', '-')}" for f in every if not f.metadata["only_python"]]
    assert [flag for flag in flags if flag not in text] == []
    live = changed.replace(teacher=teacher.replace(kind="callable", version="3"))
    call = f"dict({', '.join(call_of(live, skipped=True))})"
    given = eval(call, {"TEACHER": "t.pt", "NAMES": "n.txt"})
    assert (given["version"], given["clean"], given["views"]) == ("3", False, 2)
    of_texts = {"tokenizer", "max_length"}  # whose plan is another
    assert given.keys() >= {f.name for f in every} - {"trust_pickle", "model", "labels"} - of_texts
    given = eval(f"dict({', '.join(call_of(without))})", {"TEACHER": "t.pt", "NAMES": "n.txt"})
    assert (given["tokenizer"], given["max_length"]) == ("ORG/TOK", 128)
    assert "preprocess" not in given
    assert make_options(DumpOptions, given).teacher == ("t.pt",)
    assert "labels=False" in call_of(without)
