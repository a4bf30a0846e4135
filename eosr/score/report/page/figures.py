"""Numbers as text: enough digits to compare, never more, and a dash for what is not a number."""

from __future__ import annotations

import math

DASH = "–"


def figure(value: float) -> str:
    """Return about four digits of a number; a dash for NaN and infinity.

    Examples
    --------
    >>> [figure(value) for value in (1234.5, 114.46, 31.234, 1.4456, 0.98765, 0.00012345, 0.0, float("nan"))]
    ['1234', '114.5', '31.23', '1.446', '0.9877', '1.2e-04', '0', '–']
    """
    if not math.isfinite(value):
        return DASH
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e7:
        return f"{value:.1e}"
    decimals = 4 if size < 1 else max(0, 3 - math.floor(math.log10(size)))
    return f"{value:.{decimals}f}"


def rounded(value: float) -> float | None:
    """Return six digits of a number as JSON knows it: None for NaN and infinity."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
