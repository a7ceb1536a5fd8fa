"""The steps: trainings, dumps and measurements. Names end in the seed, NAME.test are test errors.

A student's seed is also its teacher's: students and hard labels of one seed start from the same
weights and see the same batches, and a spread over seeds is one over teachers too.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.hinton2015 import measured
from benchmarks.steps import Step

CONFIGS = Path("configs/hinton2015")
MEMBERS, SEEDS, VIEWS = 10, 3, 16
HELD = "held"
PARTS = {"no3": [digit for digit in range(10) if digit != 3], "only78": [7, 8]}
"""Transfer sets, and the digits in each."""
BIASED = {"no3": [3], "only78": [7, 8]}
"""The classes whose bias is then moved."""
CURVES = "curve-30", "curve-300"


class Experiments:
    """The paper's, on data/train.parquet and data/test.parquet, in a folder."""

    def __init__(
        self,
        data: Path,
        out: Path,
        members: int = MEMBERS,
        seeds: int = SEEDS,
        views: int = VIEWS,
    ) -> None:
        self.out, self.views = out, views
        self.members, self.seeds = range(members), range(seeds)
        self.train, self.test = (data / f"{split}.parquet" for split in ("train", "test"))

    def steps(self) -> Iterator[Step]:
        for seed in self.seeds:
            teacher = f"teacher-{seed}"
            yield from self.fit(teacher, "teacher", seed)
            yield self.dump(f"dumps/{teacher}", teacher)
            yield from self.fit(f"hard-{seed}", "hard", seed)
            yield from self.distil(f"distilled-{seed}", "distilled", f"dumps/{teacher}", seed)
            few = ("--data-seed", f"{seed}")
            yield from self.fit(f"few-hard-{seed}", "few-hard", seed, *few)
            yield from self.distil(f"few-soft-{seed}", "few-soft", f"dumps/{teacher}", seed, *few)
            views = ("--views", f"{self.views}", "--augment", "jitter(2)")
            yield self.dump(f"views/{teacher}", teacher, *views)
            yield from self.distil(f"views-{seed}", "views", f"views/{teacher}", seed)
        yield from self.omissions()
        yield from self.ensemble()
        yield from self.curves()

    def omissions(self) -> Iterator[Step]:
        """Transfer sets without some digits; every tenth row is held out to choose a bias."""
        yield self.measure("parts", measured.write_parts, self.train, self.out, PARTS)
        for part, classes in BIASED.items():
            for seed in self.seeds:
                student, source = f"{part}-{seed}", self.out / f"{part}.parquet"
                dump = f"{part}/teacher-{seed}"
                yield self.dump(dump, f"teacher-{seed}", data=source, needs=("parts",))
                yield from self.distil(student, "distilled", dump, seed)
                yield self.moved(student, classes)
        for seed in self.seeds:
            student = f"only78-long-{seed}"
            yield from self.distil(student, "only78-long", f"only78/teacher-{seed}", seed)
            yield self.moved(student, BIASED["only78"])

    def moved(self, student: str, classes: list[int]) -> Step:
        return self.measure(
            f"{student}.bias", measured.moved_biases, self.out / f"{student}.pt",
            self.out / f"{HELD}.parquet", self.test, classes, needs=(student,),
        )  # fmt: skip

    def ensemble(self) -> Iterator[Step]:
        """Many teachers into one student, beside a student of each of the first."""
        names = [f"member-{seed}" for seed in self.members]
        for seed, name in enumerate(names):
            yield from self.fit(name, "member", seed)
            yield self.dump(f"dumps/{name}", name)
        named = [word for name in names for word in ("--teacher", f"{self.out / name}.pt")]
        together = f"{self.out / 'on-test'}"
        yield Step(
            "on-test",
            ("dump", *named, "--data", f"{self.test}", "--out", together, "--resume"),
            tuple(names),
        )
        yield Step(
            "ensemble.test",
            ("info", *(f"{together}/{name}" for name in names), "--mix", "prob"),
            ("on-test",),
        )
        members = tuple(f"dumps/{name}" for name in names)
        for seed in self.seeds:
            yield from self.distil(f"of-one-{seed}", "distilled", members[seed], seed)
            yield from self.distil(f"of-all-{seed}", "distilled", members, seed, "--mix", "prob")

    def curves(self) -> Iterator[Step]:
        """Students of one shape at many temperatures, and what `--T auto` takes."""
        dump = "dumps/teacher-0"
        for curve in CURVES:
            config, out = f"{CONFIGS / curve}.yaml", self.out / curve
            words = ("--config", config, "--out", f"{out}", "--resume")
            yield Step(curve, ("sweep", f"{self.out / dump}", *words), (dump,))
            yield self.measure(
                f"{curve}.test", measured.errors_of_all, out, self.test, needs=(curve,)
            )
            auto = f"{curve}-auto"
            yield from self.distil(auto, curve.replace("curve", "auto"), dump, 0)

    def fit(self, name: str, config: str, seed: int, *more: str) -> Iterator[Step]:
        words = ("fit", "--config", f"{CONFIGS / config}.yaml", "--data", f"{self.train}")
        yield Step(name, (*words, *more, *self.ended(name, seed)))
        yield self.tested(name)

    def distil(
        self, name: str, config: str, dumps: str | tuple[str, ...], seed: int, *more: str
    ) -> Iterator[Step]:
        dumps = (dumps,) if isinstance(dumps, str) else dumps
        words = ("train", *(f"{self.out / dump}" for dump in dumps))
        words += ("--config", f"{CONFIGS / config}.yaml")
        yield Step(name, (*words, *more, *self.ended(name, seed)), dumps)
        yield self.tested(name)

    def ended(self, name: str, seed: int) -> tuple[str, ...]:
        return ("--seed", f"{seed}", "--out", f"{self.out / name}.pt", "--resume")

    def tested(self, name: str) -> Step:
        words = ("eval", f"{self.out / name}.pt", "--data", f"{self.test}")
        return Step(f"{name}.test", words, (name,))

    def dump(
        self, name: str, teacher: str, *more: str, data: Path | None = None,
        needs: tuple[str, ...] = (),
    ) -> Step:  # fmt: skip
        words = ("dump", "--teacher", f"{self.out / teacher}.pt", "--data", f"{data or self.train}")
        return Step(name, (*words, *more, "--out", f"{self.out / name}", "--resume"),
                    (teacher, *needs))  # fmt: skip

    def measure(self, name: str, work, *arguments, needs: tuple[str, ...] = ()) -> Step:  # type: ignore[no-untyped-def]
        told = (work.__name__, *map(str, arguments))
        return Step(name, told, needs, partial(work, *arguments))
