"""What a pilot measured of a codec's error, as the plan has it, and shards held against it."""

import math
from typing import Annotated

from pydantic import ConfigDict, FailFast, Field

from softlabels.store.fields import Number, Record, Size
from softlabels.system.humanize import counted

WARNED, STOPPED = 1.25, 2.0  # times the pilot's mean KL at T = 1
HARMLESS = 1e-6  # nats: rounding of float32, whatever a pilot measured
BY_CHANCE = 4.0  # standard errors by which the mean of few rows may lie higher


class ErrorAt(Record):
    """KL(teacher, stored, both at T) in nats, over the pilot's positions."""

    model_config = ConfigDict(extra="forbid")

    T: Number = Field(gt=0, description="the temperature, above 0")
    mean: Number = Field(description="the mean")
    p99: Number = Field(description="what 99 % of the positions stay below")


class Pilot(Record):
    """Rows on which a codec's error was measured, and what it is."""

    model_config = ConfigDict(extra="forbid")

    rows: Size = Field(description="the number of rows on which it was measured")
    spread: Number = Field(description="the standard deviation of KL at T = 1, in nats")
    kl: Annotated[list[ErrorAt], FailFast()] = Field(
        min_length=1, max_length=100, description="KL at some temperatures: a list"
    )

    @property
    def at_one(self) -> ErrorAt:
        """At T = 1, or the temperature nearest to it."""
        return min(self.kl, key=lambda error: abs(math.log(error.T)))

    def is_exceeded(self, mean: float, positions: int, times: float) -> bool:
        """Whether the mean KL at T = 1 of so many positions is more than so many times the pilot's,
        and more than chance makes of them."""
        chance = BY_CHANCE * self.spread / math.sqrt(max(1, positions))
        return mean > max(times * self.at_one.mean + chance, HARMLESS)

    def __str__(self) -> str:
        means = ", ".join(f"{error.mean:.1e} at T={error.T:g}" for error in self.kl)
        rows, one = counted(self.rows, "pilot row"), self.at_one
        return f"{means}; 99 % of {rows} below {one.p99:.1e} at T={one.T:g}"
