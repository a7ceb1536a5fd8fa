"""The page about a sweep: its numbers are those of the results, and what is missing is said."""

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import softlabels
from softlabels.cli.app import app
from softlabels.errors import UsageError
from softlabels.options import SweepOptions
from softlabels.options.spelling import LINE, command_of
from softlabels.reports.page import Chart, Command, Facts, Page, Remark, Table, charts, render
from softlabels.students.sweeps.folder import write_results
from softlabels.students.sweeps.grid import Trial, settings_of
from softlabels.students.sweeps.page import sweep_page
from softlabels.students.sweeps.reading import is_sweep, read_sweep
from softlabels.students.sweeps.results import Ended, Measure, SweepResult, spread
from softlabels.system.humanize import json_text
from softlabels.system.progress import SILENT
from tests.pages.html import check_nothing_is_asked_for, read
from tests.pages.test_frame import HOSTILE

WORDS = {"epochs": 4, "rows": 200, "batch_size": 50, "device": "cpu", "seeds": 2}


@pytest.fixture(scope="module")
def place(dump_folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("swept") / "sweep"
    softlabels.sweep(
        **WORDS, dump=dump_folder, student="mlp:8", T=[1, 4], alpha=1, lr=[3e-3, 1e30],
        out=out,
    )  # fmt: skip
    return out


@pytest.fixture
def copy(place, tmp_path) -> Path:
    """A copy to be harmed: a moved folder is a sweep, too."""
    return Path(shutil.copytree(place, tmp_path / "moved"))


def blocks(page: Page, kind: type) -> list[Any]:
    return [block for section in page.sections for block in section.blocks if type(block) is kind]


def changed(path: Path, **changes: Any) -> None:
    path.write_text(json_text(json.loads(path.read_text()) | changes))


def test_the_page_has_the_numbers_of_the_results(place):
    page = sweep_page(str(place))
    record = json.loads((place / "results.json").read_text())
    assert page.lead == record["verdict"]
    rows = pq.read_table(place / "results.parquet").to_pylist()
    errors: dict[tuple, list[int]] = {}
    for row in rows:
        if row["failure"] is None:
            errors.setdefault((row["T"], row["alpha"]), []).append(row["held_out_errors"])
    table = blocks(page, Table)[0]
    found = {row[0]: row for row in table.rows}
    assert len(found) == len(errors) == 3
    hard = errors[None, 0.0]
    for (T, alpha), own in errors.items():
        name = "hard labels" if T is None else f"T={T:g}, alpha={alpha:g}"
        row = dict(zip(table.head, found[name], strict=True))
        assert row["mean"] == f"{np.mean(own):.1f}"
        assert row["spread"] == f"{np.std(own, ddof=1):.1f}"
        assert (row["seeds"], row["failed"]) == (2, 0)
        if T is not None:
            assert row["difference"] == f"{np.mean(np.subtract(own, hard)):+.1f}"
    means = [float(row[table.head.index("mean")]) for row in table.rows]
    assert means == sorted(means)
    students = blocks(page, Table)[-1]
    assert len(students.rows) == len(rows) == 12
    warnings = [one.text for one in page.remarks if one.kind == "warning"]
    assert len(warnings) == 1
    assert "6 students of 12 failed" in warnings[0]


def test_learning_curves_are_those_that_were_kept(place):
    found = {chart.title: chart for chart in blocks(sweep_page(str(place)), Chart)}
    numbers = found["Errors by epoch"].numbers
    rows = pq.read_table(place / "curves.parquet").to_pylist()
    column = next(i for i, name in enumerate(numbers.head) if "hard labels" in name)
    for row in numbers.rows:
        own = [
            one["held_out_errors"]
            for one in rows
            if one["T"] is None and one["lr"] == 3e-3 and one["epoch"] == row[0]
        ]
        assert row[column] == np.mean(own)
    assert [row[0] for row in numbers.rows] == [1, 2, 3, 4]
    assert numbers.head[1].startswith("best: ")


def test_charts_draw_means_and_spreads(place):
    figures = pytest.importorskip("matplotlib.figure")
    page = sweep_page(str(place))
    result = read_sweep(str(place)).result
    for width in (charts.WIDE, charts.NARROW):
        for chart in blocks(page, Chart):
            figure = figures.Figure(figsize=(width, 4))
            chart.draw(figure)
            if chart.title != "Errors against the temperature":
                continue
            (axes,) = figure.axes
            (bars,) = axes.containers
            lines = [one for one in result.lines if one.values and not one.setting.is_hard]
            assert list(bars[0].get_ydata()) == [line.mean for line in lines]
            (hard,) = [one for one in axes.lines if one.get_label() == "hard labels"]
            assert set(hard.get_ydata()) == {result.lines[0].mean}
            assert [one.get_text() for one in axes.get_xticklabels()] == ["1", "4"]
            low, high = axes.get_ylim()
            for line in (*lines, result.lines[0]):
                assert low < min(*line.values, line.mean - spread(line.values))
                assert high > max(*line.values, line.mean + spread(line.values))


def test_numbers_of_charts_are_rounded_as_in_the_tables(place):
    found = {chart.title: chart.numbers for chart in blocks(sweep_page(str(place)), Chart)}
    for title, names in (
        ("Errors against the temperature", ["mean", "spread"]),
        ("Difference to hard labels, by seed", ["standard error"]),
    ):
        numbers = found[title]
        for name in names:
            column = numbers.head.index(name)
            assert all(row[column].partition(".")[2].isdigit() for row in numbers.rows)
            assert max(len(row[column].partition(".")[2]) for row in numbers.rows) == 1


def test_two_seeds_have_no_bars_of_standard_errors(tmp_path):
    figures = pytest.importorskip("matplotlib.figure")
    for seeds in (2, 3):
        page = sweep_page(made(tmp_path / str(seeds), [1, 2], seeds))
        (chart,) = [one for one in blocks(page, Chart) if one.title.startswith("Difference")]
        figure = figures.Figure(figsize=(charts.WIDE, 4))
        chart.draw(figure)
        drawn = [one.has_xerr for one in figure.axes[0].containers]
        assert drawn == [seeds > 2] * 2


@pytest.mark.slow
def test_the_page_is_whole_and_follows_the_rules_of_pages(place):
    pytest.importorskip("matplotlib")
    text = render(sweep_page(str(place)))
    root = read(text)
    check_nothing_is_asked_for(root)
    assert len(text) < 1_000_000
    assert render(sweep_page(str(place))) == text
    assert len(root.all("svg")) == 2 * 4
    drawn = {one.text.strip() for one in root.all("text")}
    assert {"hard labels", "temperature T", "alpha = 1, lr 0.003"} <= drawn
    assert not [one for one in drawn if "$" in one or "nan" in one]


def test_what_ran_and_the_command_that_runs_it_again(place, monkeypatch):
    page = sweep_page(str(place))
    facts = blocks(page, Facts)[0].facts
    assert facts["T"] == "1, 4"
    assert (facts["lr"], facts["seeds"], facts["held out"]) == (
        "0.003, 1e+30",
        "2, from 0",
        "120 rows",
    )
    *_, again = blocks(page, Command)
    given: list[SweepOptions] = []

    class Briefly:
        @staticmethod
        def run(options: SweepOptions, progress: object) -> SweepResult:
            given.append(options)
            return read_sweep(str(place)).result

    monkeypatch.setattr(softlabels, "sweep", Briefly)
    words = shlex.split(again.text.replace("\\\n", " "))
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, done.output
    plain = json.loads((place / "results.json").read_text())["ran"]["options"]
    assert given[0].plain == plain


def test_the_time_is_that_of_the_last_run(copy):
    ran = json.loads((copy / "results.json").read_text())["ran"]
    times = {"last_run_began": "2026-01-02T10:00:00+00:00", "ended": "2026-01-02T11:00:00+00:00"}
    assert set(times) < set(ran)
    options = ran["options"] | {"resume": True}
    changed(copy / "results.json", ran=ran | times | {"options": options})
    ended = blocks(sweep_page(str(copy)), Facts)[0].facts["ended"]
    assert ended == "2026-01-02 11:00 UTC, after 1 h 0 min of the run that ended it"


def test_a_command_says_all_options_that_it_can():
    words = {"dump": ["a b", "c"], "mix": "prob", "T": [2.5], "cache": False, "streaming": True}
    options = SweepOptions(**words, alpha=[1], student=["mlp:8"])
    command = command_of("sweep", options)
    assert max(map(len, command.splitlines())) <= LINE
    assert shlex.split(command.replace("\\\n", "")) == shlex.split(
        "softlabels sweep 'a b' c --mix prob --T 2.5 --alpha 1 --student mlp:8 --no-cache "
        "--streaming"
    )
    assert command_of("sweep", SweepOptions(**words | {"dump": {"x": "a", "y": "b"}})) is None
    assert command_of("sweep", SweepOptions(source=[{"image": 1}])) is None


def test_report_tells_a_sweep_from_a_dump(place, tmp_path, monkeypatch):
    monkeypatch.setattr(Chart, "pictures", [])  # to draw them takes long
    out = tmp_path / "page.html"
    done = softlabels.report(dump=str(place), out=str(out))
    assert (done.about, done.bytes) == ("Sweep", out.stat().st_size)
    assert read(out.read_text()).all("p", class_="lead")[0].text == sweep_page(str(place)).lead


def test_an_unfinished_sweep_is_refused(copy):
    (copy / "results.json").unlink()
    assert is_sweep(str(copy))
    with pytest.raises(UsageError, match=r"not finished: 6 students are complete.*--resume"):
        sweep_page(str(copy))


def test_a_sweep_that_goes_on_shows_what_was_complete(copy):
    (copy / "students/mlp-8-T9-a1-lr0.003-wd0-s0.pt").write_bytes(b"")
    (copy / "stack-012345678901.state").write_bytes(b"")
    page = sweep_page(str(copy))
    assert page.remarks[0].kind == "warning"
    assert "2 files of other students lie in its folder" in page.remarks[0].text
    assert "mlp-8-T9-a1-lr0.003-wd0-s0.pt" in page.remarks[0].text


def test_what_is_no_sweep(dump_folder, tmp_path):
    assert not is_sweep(str(dump_folder))
    assert not is_sweep(str(tmp_path))
    assert not is_sweep(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "harm",
    [
        lambda place: (place / "results.json").write_text("{"),
        lambda place: changed(place / "results.json", measure="votes"),
        lambda place: (place / "results.parquet").write_bytes(b"PAR1"),
        lambda place: (place / "results.parquet").unlink(),
        lambda place: pq.write_table(
            pq.read_table(place / "results.parquet").drop(["seed"]), place / "results.parquet"
        ),
    ],
)
def test_damaged_results_are_refused(copy, harm):
    harm(copy)
    with pytest.raises(UsageError, match=r"results\.json and results\.parquet can't be read as"):
        sweep_page(str(copy))


def test_without_curves_or_record_the_page_says_so(copy):
    (copy / "curves.parquet").unlink()
    changed(copy / "results.json", ran=None)
    page = sweep_page(str(copy))
    missing = [one.text for one in blocks(page, Remark)]
    assert len(missing) == 2
    assert all("--resume" in text for text in missing)


def test_names_from_outside_are_text(copy):
    ran = json.loads((copy / "results.json").read_text())["ran"]
    data = ran["data"] | {"data": HOSTILE, "dump": HOSTILE}
    changed(copy / "results.json", ran=ran | {"teacher": HOSTILE, "data": data, "command": HOSTILE})
    (copy / "curves.parquet").unlink()
    page = sweep_page(str(copy))
    without_charts = [
        type(section)(
            section.title, [block for block in section.blocks if type(block) is not Chart]
        )
        for section in page.sections
    ]
    root = read(render(Page(page.kind, page.title, page.lead, without_charts)))
    assert not root.all("script")
    assert not root.all("img")
    assert HOSTILE in [one.text for one in root.all("dd")]


def made(place: Path, T: list[float], seeds: int, **more: Any) -> str:
    """A sweep with results that were not trained."""
    words = {"students": ["mlp:8"], "rates": [1e-3], "decays": [0.0], "alphas": [0.9]} | more
    settings = settings_of(temperatures=T, with_hard=True, **words)
    place.mkdir()
    best = place / "student.pt"
    best.write_bytes(b"weights")
    draw = np.random.default_rng(0)
    ended = [
        Ended(
            Trial(setting, seed),
            str(best),
            {"epoch": 3, "loss": 0.5, "held_out": {"errors": int(draw.integers(9, 99)), "nll": 1}},
        )
        for setting in settings
        for seed in range(seeds)
    ]
    (place / "student.pt.history.jsonl").write_text(
        "".join(
            json_text({"epoch": n, "loss": 9 / n, "held_out": {"errors": 90 // n}}) + "\n"
            for n in range(1, 31)
        )
    )
    write_results(SweepResult(str(place), Measure("errors", 100), ended), {}, SILENT)
    return str(place)


@pytest.mark.slow
def test_a_page_of_a_thousand_students_is_read_and_small(tmp_path):
    rates = {"rates": [1e-3, 3e-3], "students": [f"mlp:{n}" for n in (8, 16, 32, 64, 128)]}
    place = made(tmp_path / "o", [1, 2, 3, 4, 6, 8, 12, 16, 20], 6, alphas=[0.5, 0.9], **rates)
    page = sweep_page(place)
    text = render(page)
    read(text)
    assert len(text) < 5_000_000
    assert len(blocks(page, Table)[0].rows) <= 13
    assert len(blocks(page, Chart)) == 4 + 1 + 2
    folded = [table for table in blocks(page, Table) if table.folded]
    assert [len(table.rows) for table in folded] == [190, 1000]
    assert "1,000 best of 1,140 students" in folded[-1].caption


@pytest.mark.slow
@pytest.mark.parametrize(
    ("T", "seeds", "alpha"),
    [([4.0], 1, 1.0), ([4.0], 2, 0.5), ([1.0, 2.0], 1, 1.0), ([1.0], 2, 0.0)],
)
def test_small_sweeps_have_pages(tmp_path, T, seeds, alpha):
    root = read(render(sweep_page(made(tmp_path / "o", T, seeds, alphas=[alpha]))))
    assert not [one for one in root.all("text") if "nan" in one.text or "$" in one.text]


@pytest.mark.slow
def test_a_sweep_without_labels_has_a_page(tmp_path, vectors):
    import datasets
    import torch

    data = datasets.Dataset.from_parquet(vectors).remove_columns("label")
    data.to_parquet(tmp_path / "bare.parquet")
    teacher = torch.nn.Sequential(torch.nn.Linear(6, 3))
    softlabels.dump(teacher=teacher, data=tmp_path / "bare.parquet", out=tmp_path / "d")
    out = tmp_path / "o"
    softlabels.sweep(
        dump=tmp_path / "d", student="mlp:5", seeds=2, T=[1, 3], alpha=1, epochs=3, out=out
    )
    page = sweep_page(str(out))
    root = read(render(page))
    assert "There is nothing of hard labels to compare that with" in page.lead
    assert "KL against the temperature" in [one.text for one in root.all("figcaption")]
