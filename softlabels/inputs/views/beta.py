"""Beta(alpha, alpha) from a counter-based generator, in steps of 2^-16. N draws.

The same number comes out on every machine. Logarithms, sines and exponentials of libraries differ
in their last bits; so a draw that lies within these of the middle between two steps is made again
with 60 digits. docs/format.md states the formula, which any program can evaluate.
"""

from decimal import ROUND_HALF_UP, Decimal, localcontext

import numpy as np

STEPS = 1 << 16
LEAST, MOST = 0.001, 1000  # alpha
CLOSE = 2.0**-20  # of a step: a thousand times what float64 errs here
DIGITS = 60
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899")


def beta_steps(alpha: float, first_N: np.ndarray, second_N: np.ndarray) -> np.ndarray:
    """Beta(alpha, alpha) of two independent uniform uint64 each, in whole steps of 2^-16: int64
    [N], 0 to 65,536.

    With Student's t of 2·alpha degrees of freedom, drawn after Bailey 1994, "Polar generation of
    random variates with the t-distribution", ½ + ½·t/√(2·alpha + t²) is Beta(alpha, alpha):
    Devroye 1996, "Random variate generation in one line of code".
    """
    u_N, v_N = _uniform(first_N), _uniform(second_N)
    log_N = np.log(u_N) / alpha
    p_N, rest_N = np.exp(log_N), -np.expm1(log_N)  # rest is 1 − p, right where p is close to 1
    # cos(pi·v), right near 0 too, since ½ − v is exact; it is never 0
    cosine_N = np.sin(np.pi * (0.5 - v_N))
    root_N = cosine_N * np.sqrt(rest_N / (p_N + rest_N * cosine_N**2))
    steps_N = STEPS / 2 * (1 + root_N)
    rounded_N = np.floor(steps_N + 0.5).astype(np.int64)
    for place in np.flatnonzero(np.abs(steps_N - np.floor(steps_N) - 0.5) < CLOSE):
        rounded_N[place] = exact_steps(alpha, int(first_N[place]), int(second_N[place]))
    return rounded_N


def exact_steps(alpha: float, first: int, second: int) -> int:
    """One draw with 60 digits."""
    with localcontext() as context:
        context.prec = DIGITS
        u, v = (Decimal(2 * (drawn >> 12) + 1) / 2**53 for drawn in (first, second))
        p = (u.ln() / Decimal(repr(alpha))).exp()  # of alpha as it is written
        cosine = _sine(PI * (Decimal("0.5") - v))
        root = cosine * ((1 - p) / (p + (1 - p) * cosine**2)).sqrt()
        return int((STEPS // 2 * (1 + root)).to_integral_value(ROUND_HALF_UP))


def _uniform(drawn_N: np.ndarray) -> np.ndarray:
    """Odd multiples of 2^-53 in (0, 1), of the upper 52 bits: float64 holds each, and ½ less it."""
    return (2 * (drawn_N >> np.uint64(12)).astype(np.int64) + 1) * 2.0**-53


def _sine(x: Decimal) -> Decimal:
    """Of −π/2 to π/2, by its power series."""
    term = total = x
    power = 1
    while total + term != total:
        term = -term * x * x / ((power + 1) * (power + 2))
        total, power = total + term, power + 2
    return total
