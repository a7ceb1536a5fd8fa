"""The options that make one teacher of several dumps, which `train`, `eval` and `info` share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from softlabels.errors import UsageError
from softlabels.options.objects import MixWeights
from softlabels.options.option import Options, option
from softlabels.system.humanize import counted, few


@dataclass(frozen=True, kw_only=True)
class MixOptions(Options):
    """How several dumps are mixed."""

    mix: Literal["prob", "logit"] | None = option(
        "How several dumps are one teacher: prob, the mean of their probabilities at each T, or "
        "logit, of their logits. A folder that holds dumps stands for all complete ones in it.",
        None,
    )
    mix_weights: MixWeights | None = option(
        "The weight of each dump in the mix, in their order, 0.7,0.3, or by name, vit=0.7,cnn=0.3; "
        "or fit, those by which the mixture's NLL on the labels of held-out rows is smallest. "
        "Default: equal ones.",
        None,
    )

    def check_mix(self, name: str, dumps: Any) -> None:
        """dumps: those that the option of this name has."""
        named = [str(one) for one in (dumps.values() if isinstance(dumps, Mapping) else dumps)]
        if self.mix is None and len(named) > 1:
            raise UsageError(
                f"{name} names {counted(len(named), 'dump')}, {few(named)}; say how they are one "
                f"teacher: --mix prob, by the mean of their probabilities, or --mix logit, of "
                f"their logits"
            )
        if self.mix is None and self.mix_weights is not None:
            raise UsageError(
                f"--mix-weights is {self.mix_weights!r}, and nothing is mixed; name several dumps "
                f"and --mix prob or --mix logit, or leave it out"
            )
