"""Times as metadata write them."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any, Final

_ISO: Final = re.compile(
    r"(\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d-?\d)"
    r"(Z|[T ]\d\d(:?\d\d(:?\d\d([.,]\d+)?)?)?(Z|[+-]\d\d(:?\d\d)?)?)?"
)


def moment(text: Any) -> dt.datetime:
    """Time of ISO 8601, in UTC: a date alone, or with hours, minutes, seconds and fractions, as far as they are given.

    Raises
    ------
    ValueError
        If it is something else, or a year that no image of a satellite is of.

    Examples
    --------
    >>> moment("2023-06-01T12:20+02:00").isoformat(), moment("20230601").isoformat()
    ('2023-06-01T10:20:00+00:00', '2023-06-01T00:00:00+00:00')
    """
    written = str(text).strip().upper()
    if not _ISO.fullmatch(written):
        raise ValueError(f"{text!r} is not ISO 8601")
    # Of a date alone Python takes no zone.
    time = dt.datetime.fromisoformat(written if re.search("[T ]", written) else written.removesuffix("Z"))
    time = time if time.tzinfo else time.replace(tzinfo=dt.UTC)
    if not 1970 < time.year < 2200:
        raise ValueError(f"{text!r} is not of a time from which there are images")
    return time.astimezone(dt.UTC)
