"""Student's t distribution by the regularised incomplete beta function; numpy and the standard library only."""

from __future__ import annotations

import math

TINY = 1e-300
PRECISION = 1e-16
MOST_TERMS = 10_000


def two_sided_p(t: float, df: float) -> float:
    """P(|T| >= |t|) of T with `df` > 0 degrees of freedom: I_x(df/2, 1/2) at x = df / (df + t^2)."""
    if math.isinf(t):
        return 0.0
    share = t * t / (df + t * t)
    return 1 - incomplete_beta(share, 0.5, df / 2) if share < 0.5 else incomplete_beta(df / (df + t * t), df / 2, 0.5)


def critical_value(confidence: float, df: float) -> float:
    """The t with P(|T| <= t) = `confidence`, by bisection. Raises ValueError for a confidence outside (0, 1)."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, got {confidence}")
    low, high = 0.0, 1.0
    while two_sided_p(high, df) > 1 - confidence:
        low, high = high, 2 * high
    while high - low > 4e-16 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if two_sided_p(middle, df) > 1 - confidence else (low, middle)
    return (low + high) / 2


def incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), by its continued fraction on the side where that converges fast (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) / a / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) by Lentz's method (Thompson and Barnett 1986)."""
    value, c, d = 1.0, 1.0, 0.0
    for term in range(1, MOST_TERMS):
        m, odd = divmod(term, 2)
        if odd:
            factor = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            factor = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / (_off_zero(1 + factor * d))
        c = _off_zero(1 + factor / c)
        value *= c * d
        if abs(c * d - 1) < PRECISION:
            break
    return value


def _off_zero(value: float) -> float:
    return value if abs(value) > TINY else TINY
