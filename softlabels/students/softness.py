"""How soft the soft targets are at a temperature: near uniform, they say little."""

import math

import numpy as np

from softlabels.logits import Logits
from softlabels.targets.mixed import Trainable
from softlabels.targets.streamed_rows import StreamedRows

ROWS = 256
MOST = 0.95  # of the largest entropy
AIM = 0.9
LOWEST = 0.1


def some_logits(dataset: Trainable) -> Logits:
    """The logits of some rows, spread over all."""
    count = min(ROWS, len(dataset))
    rows = np.linspace(0, len(dataset) - 1, count).astype(np.int64)
    # a stream fetches whole row groups, of which the first is fetched anyway
    if isinstance(dataset.base.rows, StreamedRows):
        rows = np.arange(count)
    logits: Logits = dataset.columns(rows, inputs=False)["targets"]
    return logits


def remark_on_softness(logits: Logits, T: float) -> str:
    """A warning where the soft targets at T are within 5 % of uniform, else an empty text.

    Measured is the mean entropy over these rows as a share of the largest one: ln C, or for several
    labels C · ln 2, where each is as likely as not.
    """
    largest = math.log(logits.classes)
    if logits.link == "sigmoid":
        largest = logits.classes * math.log(2)

    def share(at: float) -> float:
        return float(logits.temper(at).entropy().mean()) / largest

    now = share(T)
    if not now > MOST:
        return ""
    low, high = LOWEST, T
    while high - low > 0.01 * low:  # the entropy rises with T
        middle = math.sqrt(low * high)
        low, high = (middle, high) if share(middle) < AIM else (low, middle)
    fitting = float(f"{low:.2g}")
    remedy = f"--T {fitting:g} gives {share(fitting):.0%}"
    if share(LOWEST) > AIM:
        remedy = f"no T from {LOWEST:g} on gives less than {AIM:.0%}: its teacher hardly says more"
    even = "equal probabilities" if logits.link == "softmax" else "labels at one half"
    return (
        f"warning: at T={T:g} the soft targets are nearly uniform and say little: their mean "
        f"entropy on {len(logits):,} of them is {now:.1%} of the largest, that of "
        f"{logits.classes:,} {even}; {remedy}"
    )
