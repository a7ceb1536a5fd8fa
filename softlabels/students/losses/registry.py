"""The words of `--loss`: `kd`, `dkd(1, 8)`, `standardise|kd`.

kd                      α·T²·KL(teacher ‖ student)
reverse_kl              T²·KL(student ‖ teacher)
js(beta)                T² times the Jensen–Shannon divergence, beta 0.5
mse                     matching logits: the limit of kd at a high T
dkd(target, others)     KL of the label's class and among the others, weighted 1 and 8
dist(inter, intra)      correlations over classes and over rows, weighted 1 and 1
standardise|…           logits with mean 0 and deviation 1 in each position, for the others
"""

import difflib
from collections.abc import Sequence
from dataclasses import fields

from softlabels.errors import UsageError
from softlabels.soft_targets import Link
from softlabels.spec import Call, parse_pipeline, short
from softlabels.students.losses.decoupled import Decoupled
from softlabels.students.losses.divergences import ForwardKL, JensenShannon, ReverseKL
from softlabels.students.losses.matching import LogitMatching, Standardised
from softlabels.students.losses.part import Needs, SoftPart
from softlabels.students.losses.relations import Relations

PARTS: dict[str, type[SoftPart]] = {
    part.name: part
    for part in (ForwardKL, ReverseKL, JensenShannon, LogitMatching, Decoupled, Relations)
}
WRAPPER = Standardised.name
KNOWN = (*PARTS, WRAPPER)
EXAMPLES = "kd, js(0.5), dkd(1, 8) or 'standardise|kd'"


def parse_loss(text: str, what: str = "--loss") -> SoftPart:
    """`"dkd(1, 8)"`. Raises UsageError for unknown words, other numbers than they take, and words
    that can't be joined; `what` names the option."""
    calls = parse_pipeline(text, what)
    for call in calls:
        if call.name not in KNOWN:
            near = difflib.get_close_matches(call.name, KNOWN, 1)
            hint = f"did you mean {near[0]}? Use" if near else "use"
            raise UsageError(f"{what}: no loss {short(call.name)!r}; {hint} {', '.join(KNOWN)}")
    wraps = bool(calls) and calls[0].name == WRAPPER
    if wraps and calls[0].args:
        raise UsageError(f"{what}: {short(str(calls[0]))}: standardise takes no number")
    rest = calls[1:] if wraps else calls
    if wraps and not rest:
        rest = [Call(ForwardKL.name, ())]
    if len(rest) != 1 or rest[0].name == WRAPPER:
        raise UsageError(
            f"{what} is {short(text)!r}; it must be one loss, before which standardise may stand: "
            f"{EXAMPLES}"
        )
    part = _make(rest[0], what)
    return Standardised(part) if wraps else part


def _make(call: Call, what: str) -> SoftPart:
    kind = PARTS[call.name]
    names = [one.name for one in fields(kind)]
    if len(call.args) > len(names) or not all(type(arg) in (int, float) for arg in call.args):
        usual = ", ".join(f"{one.default:g}" for one in fields(kind))
        takes = f"{', '.join(names)}: {call.name}({usual})" if names else "no number"
        raise UsageError(f"{what}: can't read {short(str(call))!r}; {call.name} takes {takes}")
    try:
        return kind(*call.args)
    except UsageError as error:
        raise UsageError(f"{what}: {error}") from None


def fitting(link: Link, has: Needs, labelled: bool = True) -> Sequence[str]:
    """The words of the losses that such a teacher can have; labelled: where there are labels."""
    return [
        word
        for word, part in PARTS.items()
        if part.fits(link, has) and (labelled or not part.needs_labels)
    ]
