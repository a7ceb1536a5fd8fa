"""The command line: parse, call one public verb, print. Results to stdout, all else to stderr."""

import os
import signal
from dataclasses import asdict
from typing import Annotated, Any

import typer

import softlabels
from softlabels.cli import exchange, pages, publishing
from softlabels.cli.flags import Terminal, Terminated, make_command
from softlabels.cli.listing import as_estimated, as_made, as_table, as_values, dumps_at
from softlabels.errors import UsageError
from softlabels.options import (
    CacheOptions,
    CompareOptions,
    DemoOptions,
    DumpOptions,
    EvalOptions,
    FitOptions,
    InfoOptions,
    LsOptions,
    PlanOptions,
    ShowOptions,
    SweepOptions,
    TrainOptions,
    VerifyOptions,
)
from softlabels.system.humanize import counted, fact_lines, measured, size_words

SHOWN = 20  # findings in a terminal

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Run a teacher once, keep its raw logits, train any number of students from them.\n\n"
    "Begin with `softlabels demo`, or with these three:\n\n"
    "- `softlabels fit --data digits --out t.pt`\n"
    "- `softlabels dump --teacher t.pt`\n"
    "- `softlabels train --T 8`\n",
)

command = make_command(app)


@command(DemoOptions)
def demo(terminal: Terminal, options: DemoOptions) -> None:
    """All three stages on embedded data: teacher, dump, students; a table and a plot.

    Example:

    - `softlabels demo`
    """
    from softlabels.cli.demo import run_demo

    text, value = run_demo(options, terminal.progress)
    terminal.result(text, value)


@command(FitOptions)
def fit(terminal: Terminal, options: FitOptions) -> None:
    """Train a teacher, or a baseline, from hard labels.

    Examples:

    - `softlabels fit --data digits --out t.pt`
    - `softlabels fit --data my.parquet --model mlp:800x800 --dropout 0.5 --augment 'jitter(2)'`
    """
    result = terminal.run(softlabels.fit, options)
    if result.rank == 0:
        terminal.result(_trained(result, terminal.took), {"out": result.out, **result.metrics})


@command(DumpOptions)
def dump(terminal: Terminal, options: DumpOptions) -> None:
    """Run the teacher once and store its raw logits.

    Examples:

    - `softlabels dump --teacher t.pt`
    - `softlabels dump --teacher w.pt --model mlp:1200x1200 --data my.parquet --out data/my`
    - `softlabels dump --teacher t.pt --resume`
    - `softlabels dump --teacher a.pt --teacher b.pt --out data/both`
    """
    result = terminal.run(softlabels.dump, options)
    dumps = result.dumps or {"": result}
    if result.rank and not any(one.rows_run or one.manifest is None for one in dumps.values()):
        return  # this rank had nothing to do; rank 0 reports
    told = {name: as_made(one) for name, one in dumps.items()}
    text = "\n".join(text for text, _ in told.values()) + f"; {terminal.took}"
    values = {name: value for name, (_, value) in told.items()}
    terminal.result(text, {"out": result.out, "dumps": values} if result.dumps else values[""])


@command(PlanOptions)
def plan(terminal: Terminal, options: PlanOptions) -> None:
    """Estimate a dump from a measured sample: rows, shards, bytes, time, what bounds it.

    Takes the options of `softlabels dump`; writes nothing.

    Examples:

    - `softlabels plan --teacher t.pt`
    - `softlabels plan --config configs/hinton2015/dump.yaml`
    """
    estimate = terminal.run(softlabels.plan, options)
    lines = fact_lines(estimate.facts)
    terminal.result("\n".join(lines + estimate.warnings), as_estimated(estimate))


@command(TrainOptions)
def train(terminal: Terminal, options: TrainOptions) -> None:
    """Train a student from a dump, or from several mixed ones; no teacher in memory.

    Examples:

    - `softlabels train --T 8`
    - `softlabels train data/in-vit data/in-cnn --mix prob --mix-weights 0.7,0.3 --T 4`
    - `softlabels train data/digits-t --T 4 --alpha 1 --student mlp:30x30 --out small.pt`
    - `softlabels train --T 8 --resume`
    """
    result = terminal.run(softlabels.train, options)
    if result.rank == 0:
        value = {"out": result.out, "T": result.checkpoint.training["T"], **result.metrics}
        terminal.result(_trained(result, terminal.took), value)


@command(SweepOptions)
def sweep(terminal: Terminal, options: SweepOptions) -> None:
    """Train students at every combination of settings, and from hard labels alone; compare them.

    A table and a plot of held-out errors, all students, and the best one as best.pt. Students of
    one shape, linear, mlp or on a CPU cnn, are trained together.

    Examples:

    - `softlabels sweep --T 1 --T 2 --T 4 --T 8 --student mlp:30x30 --seeds 5`
    - `softlabels sweep data/digits-t --alpha 0.5 --alpha 0.9 --lr 1e-3 --lr 3e-3 --out data/sweep`
    - `softlabels sweep data/digits-t --out data/sweep --resume`
    """
    result = terminal.run(softlabels.sweep, options)
    terminal.result(f"{result.text}\n{terminal.took}", result.as_json)


@command(EvalOptions)
def eval_(terminal: Terminal, options: EvalOptions) -> None:
    """Measure a checkpoint: accuracy, NLL and calibration; against a dump, agreement and KL.

    Examples:

    - `softlabels eval s.pt`
    - `softlabels eval s.pt --against data/digits-t`
    - `softlabels eval s.pt --against data/in-vit --against data/in-cnn --mix prob`
    """
    evaluation = terminal.run(softlabels.evaluate, options)
    terminal.result("\n".join(evaluation.lines), evaluation)


@command(InfoOptions)
def info(terminal: Terminal, options: InfoOptions) -> None:
    """Describe a dump: teacher, source, rows, logits, statistics. Of a folder that holds dumps,
    list them. Measure several teachers over the same rows, and their mixture: accuracy,
    calibration, how they differ.

    Examples:

    - `softlabels info data/digits-t`
    - `softlabels info data/digits-t --json`
    - `softlabels info data`
    - `softlabels info data/in-vit data/in-cnn --mix prob --mix-weights 0.7,0.3`
    """
    place = options.dump[0]
    mixing: dict[str, Any] = {"mix": options.mix, "mix_weights": options.mix_weights}
    several = len(options.dump) > 1 or options.mix is not None
    if not several and (dumps := dumps_at(place)):
        if options.per_class or options.mix_weights:
            flag = (
                "--per-class is for one dump" if options.per_class else "--mix-weights needs --mix"
            )
            raise UsageError(
                f"{flag}, and {place} holds {counted(len(dumps), 'dump')}; name one, such as "
                f"{dumps[0].path}, or mix them with --mix prob"
            )
        terminal.result(as_table(dumps), as_values(dumps))
        return
    dump: Any = options.dump if len(options.dump) > 1 else place
    found = softlabels.info(dump, options.per_class, **mixing, progress=terminal.progress)
    terminal.result("\n".join(found.lines), found)


@command(CompareOptions)
def compare(terminal: Terminal, options: CompareOptions) -> None:
    """Compare two dumps over the same rows: is the quantised model still the same?

    KL at each T with percentiles, agreement, which rows change their class, worst rows.

    Examples:

    - `softlabels compare data/digits-t data/digits-int8`
    - `softlabels compare data/digits-t data/digits-s --T 1 --T 20 --rows 20 --out page.html`
    """
    found = terminal.run(softlabels.compare, options)
    terminal.result(str(found), found.as_json)


@command(ShowOptions)
def show(terminal: Terminal, options: ShowOptions) -> None:
    """Show some rows of a dump: the top classes by name, with probabilities at several T.

    A bar is as long as the class is probable beside the row's top class; * marks the hard label.

    Examples:

    - `softlabels show`
    - `softlabels show data/digits-t --wrong --rows 3 --T 1 --T 4 --T 20`
    - `softlabels show ORG/NAME --class 7`
    """
    rows = terminal.run(softlabels.show, options)
    terminal.result(str(rows), rows.as_json)


@command(LsOptions)
def ls(terminal: Terminal, options: LsOptions) -> None:
    """List the dumps below a folder: rows, classes, teacher, size, and how much of each is done.

    Examples:

    - `softlabels ls`
    - `softlabels ls /mnt/dumps --json`
    """
    dumps = softlabels.list_dumps(options.folder)
    text = as_table(dumps) if dumps else f"no dump below {options.folder}"
    terminal.result(text, {"dumps": as_values(dumps)})


@command(VerifyOptions)
def verify(terminal: Terminal, options: VerifyOptions) -> None:
    """Check a dump; exit 1 on damage, each damaged file named. Nothing is changed.

    Examples:

    - `softlabels verify data/digits-t`
    - `softlabels verify data/digits-t --source`
    - `softlabels verify data/digits-t --replay 100 --teacher t.pt`
    """
    verdict = terminal.run(softlabels.verify, options)
    terminal.result(_verdict(verdict, terminal.took), asdict(verdict) | {"good": verdict.good})
    if not verdict.good:
        raise SystemExit(1)


@command(CacheOptions)
def cache(terminal: Terminal, options: CacheOptions) -> None:
    """List what is kept on this disk, copies of remote dumps and tokens of texts, or clear it.

    $SOFTLABELS_CACHE is its place, $SOFTLABELS_CACHE_GB the most that it may hold.

    Examples:

    - `softlabels cache`
    - `softlabels cache --clear`
    """
    from softlabels.system.cache import LocalCache

    kept = LocalCache()
    freed = kept.clear() if options.clear else None
    entries = [asdict(entry) | {"description": entry.description} for entry in kept.entries()]
    value = {"place": str(kept.place), "bytes": kept.bytes, "budget": kept.budget}
    terminal.result(_cached(value, entries, freed), value | {"entries": entries, "freed": freed})


pages.add_commands(command)
publishing.add_commands(command)
exchange.add_commands(command)


def main() -> None:
    """The entry point of `softlabels` and `python -m softlabels`."""
    # Spinning threads make small operations a hundred times slower when other work shares the
    # cores. The variable counts only if it is set before torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _terminated)
    app(prog_name="softlabels")


def _terminated(number: int, frame: Any) -> None:
    """Slurm, Kubernetes and torchrun send SIGTERM: stop as after Ctrl-C, saying what is safe."""
    raise Terminated


def _trained(result: Any, took: str) -> str:
    """The checkpoint, the measures of its held-out rows and the time taken, a line each."""
    metrics = result.metrics
    held, facts = metrics["held_out"] or {}, []
    if "errors" in held:
        facts.append(f"{counted(held['errors'], 'error')} of {counted(held['labelled'], 'row')}")
    if held.get("map") is not None:
        facts.append(f"mAP {held['map']:.4f} over {counted(held['labelled'], 'row')}")
    if "agreement" in held:
        facts.append(f"agreement with the teacher {held['agreement']:.4f}")
        facts.append(f"KL {measured(held['kl'])} nats")
    lines = [f"held out: {'; '.join(facts)}"] if facts else []
    model = f"{result.out}: epoch {metrics['epoch']}, loss {measured(metrics['loss'])}"
    return "\n".join([model, *lines, took])


def _verdict(verdict: Any, took: str) -> str:
    findings = verdict.findings
    lines = [str(finding) for finding in findings[:SHOWN]]
    if findings[SHOWN:]:
        lines.append(f"… and {len(findings) - SHOWN} more (all of them with --json)")
    lines += [f"warning: {warning}" for warning in verdict.warnings]
    if verdict.replay is not None:
        replay = verdict.replay
        lines.append(
            f"replayed {counted(replay.rows, 'row')}: logits differ from the stored ones by up to "
            f"{replay.drift:.2g} (rounding explains {replay.rounding:.2g}; two runs differ by "
            f"{replay.control:.2g}); mean KL {replay.kl:.2g} nats, agreement {replay.agreement:.4f}"
        )
    speed = size_words(verdict.bytes / max(verdict.seconds, 1e-9))
    rows, shards = counted(verdict.rows, "row"), counted(verdict.shards, "shard")
    summary = f"{rows} of {shards} checked, {size_words(verdict.bytes)} at {speed}/s"
    if not verdict.bytes:
        summary = "no row could be checked"
    if verdict.source_checked:
        summary += "; every input compared with the source"
    if verdict.views_made is not None:
        summary += f"; {counted(verdict.views_made, 'view')} made again, pixel by pixel"
    if verdict.accuracy is not None and verdict.good:
        share = f"{verdict.accuracy:.4f}"
        right = f"accuracy, from the stored logits, is {share}"
        if verdict.positives is not None:
            right = f"top label, from the stored logits, is one of the row's in {share} of the rows"
        summary += f"; the teacher's {right}"
    word = "good" if verdict.good else counted(len(findings), "problem")
    lines.append(f"{verdict.path}: {word}; {summary}; {took}")
    if any(finding.redone for finding in findings):
        lines.append(f"To repair: {verdict.remedy}.")
    return "\n".join(lines)


def _cached(value: dict[str, Any], entries: list[dict[str, Any]], freed: int | None) -> str:
    lines = [f"{size_words(entry['bytes']):>8}  {entry['description']}" for entry in entries]
    lines += [] if freed is None else [f"{size_words(freed)} removed"]
    held, budget = size_words(value["bytes"]), size_words(value["budget"])
    return "\n".join([*lines, f"{value['place']}: {held} of at most {budget}"])


def _version(asked: bool) -> None:
    if asked:
        print(f"softlabels {softlabels.__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass
