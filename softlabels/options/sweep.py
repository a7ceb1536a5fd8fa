"""The options of `softlabels sweep`: those of `train`, some of them with several values."""

from dataclasses import dataclass

from softlabels.errors import UsageError
from softlabels.options.option import (
    Count,
    Fraction,
    NotNegative,
    Positive,
    flag_of,
    option,
)
from softlabels.options.students import TrainOptions


@dataclass(frozen=True, kw_only=True)
class SweepOptions(TrainOptions):
    """Train students at every combination of settings, each with every seed."""

    T: tuple[Positive, ...] = option(  # type: ignore[assignment]
        "Temperatures; may be repeated.", (1.0, 2.0, 4.0, 8.0), flag="--T -T --temperature"
    )
    alpha: tuple[Fraction, ...] = option(  # type: ignore[assignment]
        "Weights of the soft targets; may be repeated. Hard labels alone, alpha 0, are always "
        "tried.",
        (0.9,),
    )
    student: tuple[str, ...] = option(  # type: ignore[assignment]
        "Students by name, as of train; may be repeated. Those of one shape, linear, mlp "
        "or on a CPU cnn, are trained together.",
        ("mlp:800x800",),
    )
    lr: tuple[Positive, ...] = option(  # type: ignore[assignment]
        "Peak learning rates; may be repeated.", (1e-3,)
    )
    weight_decay: tuple[NotNegative, ...] = option(  # type: ignore[assignment]
        "Weight decays; may be repeated.", (0.0,)
    )
    seeds: Count = option("Students of each setting: of seed --seed, of the next, and so on.", 3)
    log_with: tuple[str, ...] = option(
        "Follows one training, so a sweep refuses it.", (), only_python=True
    )
    resume: bool = option("Go on with the sweep in --out.", False)
    out: str = option("The folder to write.", "sweep")

    def check_together(self) -> None:
        super().check_together()
        for name in ("T", "alpha", "student", "lr", "weight_decay"):
            if not getattr(self, name):
                raise UsageError(f"{flag_of(name)} has no value; give one or more, or leave it out")
        if not self.holdout:
            raise UsageError(
                "--holdout is 0, and a sweep chooses the best by held-out rows; hold rows out"
            )
        if self.log_with:
            raise UsageError("log_with follows one training, and a sweep has many; leave it out")
