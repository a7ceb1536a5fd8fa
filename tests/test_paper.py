"""The paper's experiments: a graph of steps that goes on where it was stopped, and its page."""

import re
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks.hinton2015.experiments import CONFIGS, Experiments
from benchmarks.hinton2015.page import Page
from benchmarks.steps import Step, Steps

DIGITS = list("0123456789")
ROOT = Path(__file__).parents[1]


class Kitchen:
    """Steps that note how often they are done."""

    def __init__(self, place: Path) -> None:
        self.place, self.done, self.failing = place, Counter(), set()

    def steps(self, recipe: str = "a") -> Steps:
        def step(name: str, argument: str, *needs: str) -> Step:
            return Step(name, (argument,), needs, lambda: self.note(name))

        return Steps(
            [step("eat", "e", "cook", "lay"), step("cook", recipe, "buy"), step("buy", "b"),
             step("lay", "l")],
            self.place,
        )  # fmt: skip

    def note(self, name: str) -> dict:
        if name in self.failing:
            raise RuntimeError(name)
        self.done[name] += 1
        return {"times": self.done[name]}


def test_a_step_that_is_done_is_not_done_again(tmp_path):
    kitchen = Kitchen(tmp_path)
    kitchen.steps().run(2)
    kitchen.steps().run(2)
    assert kitchen.done == {"eat": 1, "cook": 1, "buy": 1, "lay": 1}
    assert kitchen.steps().record("cook")["result"] == {"times": 1}


def test_what_is_made_otherwise_is_made_again_with_all_that_needs_it(tmp_path):
    kitchen = Kitchen(tmp_path)
    kitchen.steps().run(1)
    assert kitchen.steps("another").record("eat") is None
    kitchen.steps("another").run(1)
    assert kitchen.done == {"eat": 2, "cook": 2, "buy": 1, "lay": 1}


def test_a_run_that_failed_goes_on(tmp_path):
    kitchen = Kitchen(tmp_path)
    kitchen.failing = {"cook"}
    with pytest.raises(RuntimeError, match="cook"):
        kitchen.steps().run(1)
    assert "eat" not in kitchen.done
    kitchen.failing = set()
    kitchen.steps().run(1)
    assert kitchen.done == {"eat": 1, "cook": 1, "buy": 1, "lay": 1}


def test_a_step_that_was_stopped_goes_on_and_one_made_otherwise_begins_anew(tmp_path):
    """It finds what it has written, unless it was made otherwise."""
    state, is_stopped, found = tmp_path / "s.pt.state", True, []

    def make() -> dict:
        found.append(state.exists())
        state.touch()
        if is_stopped:
            raise KeyboardInterrupt
        return {}

    def run(rate: str) -> Steps:
        arguments = ("--lr", rate, "--out", f"{tmp_path / 's.pt'}")
        steps = Steps([Step("train", arguments, work=make)], tmp_path)
        steps.run(1)
        return steps

    for rate in "1122":
        with pytest.raises(KeyboardInterrupt):
            run(rate)
    assert found == [False, True, False, True]
    is_stopped = False
    assert run("2").record("train")["starts"] == 3
    assert run("1").record("train")["starts"] == 1
    assert found[4:] == [True, False]


def test_other_data_under_the_same_name_are_seen(tmp_path):
    data, count = tmp_path / "train.parquet", Counter()
    for content in "aab":
        data.write_text(content)
        step = Step("fit", ("--data", f"{data}"), work=lambda: count.update("x") or {})
        Steps([step], tmp_path / "out").run(1)
    assert count["x"] == 2


def test_only_some_steps_and_what_they_need(tmp_path):
    kitchen = Kitchen(tmp_path)
    kitchen.steps().run(1, ["coo"])
    assert kitchen.done == {"cook": 1, "buy": 1}


def test_a_page_of_nothing_says_so(tmp_path):
    experiments = Experiments(tmp_path, tmp_path / "out")
    page = Page(experiments, Steps(experiments.steps(), tmp_path / "out")).render()
    assert "Nothing of" in page
    assert "| student 800-800, hard labels | 146 | not run |" in page


def test_the_page_in_the_repository_is_whole():
    page = (ROOT / "benchmarks/hinton2015.md").read_text(encoding="utf-8")
    assert "not run" not in page
    for picture in re.findall(r"\]\((hinton2015[^)]*\.png)\)", page):
        assert (ROOT / "benchmarks" / picture).stat().st_size > 1000
    for recipe in re.findall(r"`([-\w]+\.yaml)`", page):
        assert (ROOT / CONFIGS / recipe).exists()


@pytest.mark.slow
def test_all_experiments_of_a_small_data_set(tmp_path, monkeypatch):
    """Each recipe with less to do, by the commands themselves."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, count in (("train", 400), ("test", 100)):
        pictures = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=DIGITS)}
        datasets.Dataset.from_dict(
            {"image": [Image.fromarray(one) for one in pictures], "label": np.arange(count) % 10},
            datasets.Features(features),
        ).to_parquet(tmp_path / f"{split}.parquet")
    CONFIGS.mkdir(parents=True)
    small = {"epochs": 2, "rows": 100, "seeds": 2, "T": [2, 8]}
    for recipe in (ROOT / CONFIGS).glob("*.yaml"):
        options = yaml.safe_load(recipe.read_text(encoding="utf-8"))
        less = {name: value for name, value in small.items() if name in options}
        if not isinstance(options.get("T"), list):
            less.pop("T", None)
        (CONFIGS / recipe.name).write_text(yaml.safe_dump(options | less), encoding="utf-8")
    experiments = Experiments(tmp_path, tmp_path / "out", members=2, seeds=1, views=2)
    steps = Steps(experiments.steps(), tmp_path / "out")
    steps.run(2)
    page = Page(experiments, steps).render()
    assert "not run" not in page
    hard, soft = (steps.record(f"{name}-0.test")["result"]["errors"]
                  for name in ("hard", "distilled"))  # fmt: skip
    assert f"| hard labels, distilled at T = 20 | {hard - soft:+d} |" in page
    moved = steps.record("no3-0.bias")["result"]
    assert moved["test"]["errors"] <= moved["plain"]["errors"]
