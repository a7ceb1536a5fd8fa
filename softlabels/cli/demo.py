"""The demo: teacher, dump, and students that see few labels, on the embedded digits.

Hinton, Vinyals, Dean 2015, section 6, "Soft targets as regularizers": with 3 % of the labels a
model overfits on hard targets and hardly on soft ones. Here it is tried in miniature, and the table
says what came out. How teacher and students are trained was chosen among a dozen tries; another
teacher (with jitter, or an MLP) gave smaller differences.
"""

import json
import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import softlabels
from softlabels.errors import MissingExtra, StoreError
from softlabels.options import DemoOptions
from softlabels.places.newest import DEMO_MARK
from softlabels.system.extras import need
from softlabels.system.humanize import counted
from softlabels.system.progress import Progress

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)


@dataclass(frozen=True)
class Line:
    """One row of the table: a kind of target, and each seed's test errors."""

    name: str
    T: float | None
    errors: list[int]

    @property
    def mean(self) -> float:
        return statistics.mean(self.errors)

    @property
    def spread(self) -> float:
        return statistics.stdev(self.errors) if len(self.errors) > 1 else 0.0


def run_demo(options: DemoOptions, progress: Progress) -> tuple[str, dict[str, Any]]:
    """Run all three stages; (the table as text, the same as plain values)."""
    began = time.monotonic()
    folder = _fresh_folder(Path(options.out))
    teacher, dump = str(folder / "teacher.pt"), str(folder / "digits-teacher")

    progress.say("1. a teacher learns all 1,200 training digits from hard labels")
    softlabels.fit(data="digits", model="cnn:32x64", dropout=0.3, epochs=40, batch_size=64,
                   lr=3e-3, device=options.device, out=teacher)  # fmt: skip
    teacher_errors = softlabels.evaluate(checkpoint=teacher, device=options.device)["errors"]
    progress.say("2. its logits are stored, once")
    softlabels.dump(teacher=teacher, out=dump, device=options.device)
    progress.say(
        f"3. students see {options.rows} digits, {counted(options.seeds, 'seed')} each; no teacher"
    )
    lines = [Line("hard labels", None, []), *(Line(f"T = {T:g}", T, []) for T in TEMPERATURES)]
    with progress.bar("students", len(lines) * options.seeds, "students") as advance:
        for seed in range(options.seeds):
            for line in lines:
                line.errors.append(_student_errors(folder, dump, line.T, seed, options))
                advance(1, line.name)
    value = {
        "teacher_errors": teacher_errors,
        "dump": dump,
        "test_rows": 597,
        "rows": options.rows,
        "students": [vars(line) | {"mean": line.mean, "spread": line.spread} for line in lines],
        "seconds": round(time.monotonic() - began, 1),
        "plot": _plot(lines, teacher_errors, options, folder, progress),
    }
    (folder / DEMO_MARK).write_text(json.dumps(value, indent=2) + "\n")
    return _table(lines, value, options), value


def _student_errors(
    folder: Path, dump: str, T: float | None, seed: int, options: DemoOptions
) -> int:
    out = str(folder / "student.pt")
    softlabels.train(
        dump=dump,
        T=T or 1.0,
        alpha=0.0 if T is None else 0.9,
        student="mlp:64x64",
        rows=options.rows,
        batch_size=25,
        epochs=60,
        lr=3e-3,
        holdout=0.0,
        seed=seed,
        data_seed=seed,
        device=options.device,
        out=out,
    )
    return int(softlabels.evaluate(checkpoint=out, device=options.device)["errors"])


def _table(lines: list[Line], value: dict[str, Any], options: DemoOptions) -> str:
    title = f"{'student learns from':<22}{'test errors':>12}{'spread':>9}"
    rows = [f"{line.name:<22}{line.mean:>12.1f}{line.spread:>9.1f}" for line in lines]
    hard, best = lines[0], min(lines[1:], key=lambda line: line.mean)
    difference = hard.mean - best.mean
    noise = max(hard.spread, best.spread)
    if difference > noise:
        verdict = f"Soft targets helped: {difference:.1f} errors fewer at {best.name}."
    elif difference < -noise:
        verdict = f"Soft targets did not help here: {-difference:.1f} errors more at their best."
    else:
        verdict = "No difference beyond the spread over seeds."
    return "\n".join(
        [
            f"test errors of {value['test_rows']} digits:",
            f"teacher, {1200:,} labels: {value['teacher_errors']}",
            f"students, {options.rows} labels each, mean and spread over "
            f"{counted(options.seeds, 'seed')}:",
            "",
            title,
            *rows,
            "",
            f"{verdict} {value['seconds']:.0f} s.",
            *([f"plot: {value['plot']}"] if value["plot"] else []),
            "",
            *_next(value["dump"]),
        ]
    )


def _next(dump: str) -> list[str]:
    """What to do with it now."""
    steps = {
        f"softlabels info {dump}": "what the dump is",
        f"softlabels train {dump} --T 8": "a student of your own, from all its rows",
        "softlabels fit --data digits --out t.pt": "or from the beginning: a teacher, then a dump",
    }
    if shutil.which("softlabels") is None and (Path(sys.prefix) / "bin" / "activate").exists():
        place = os.path.relpath(sys.prefix)
        steps = {f". {place}/bin/activate": "so that softlabels is on the path"} | steps
    width = max(map(len, steps))
    return ["next:", *(f"  {step:<{width}}  # {why}" for step, why in steps.items())]


def _plot(
    lines: list[Line], teacher_errors: int, options: DemoOptions, folder: Path, progress: Progress
) -> str | None:
    try:
        figure_class = need("matplotlib.figure", "plot", "the plot").Figure
    except MissingExtra as error:
        progress.say(f"{error} (everything else is done)")
        return None
    figure = figure_class(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    soft, hard = lines[1:], lines[0]
    temperatures = [line.T for line in soft]
    axes.errorbar(
        temperatures, [x.mean for x in soft], [x.spread for x in soft],
        marker="o", capsize=3, label="soft targets",
    )  # fmt: skip
    axes.axhspan(hard.mean - hard.spread, hard.mean + hard.spread, color="tab:orange", alpha=0.2)
    axes.axhline(hard.mean, color="tab:orange", label="hard labels")
    axes.axhline(teacher_errors, color="grey", linestyle=":", label="teacher (all labels)")
    axes.set_xscale("log")
    axes.set_xticks(temperatures, [f"{T:g}" for T in temperatures])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("temperature T")
    axes.set_ylabel("test errors of 597 digits")
    axes.set_title(
        f"Students that see {options.rows} digits; mean and spread, "
        f"{counted(options.seeds, 'seed')}"
    )
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, frameon=False)
    path = folder / "errors-by-temperature.png"
    figure.savefig(path, dpi=150)
    return str(path)


def _fresh_folder(folder: Path) -> Path:
    """The demo's own folder, emptied of an earlier demo. Raises StoreError if it is another's."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / DEMO_MARK).exists():
            raise StoreError(f"{folder} holds something else than a demo; choose another --out")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DEMO_MARK).write_text("{}\n")
    return folder
