"""Which offset an image carries, from what its metadata say; what is not certain is refused.

Products of processing baseline 04.00 and later carry DN = 10000 * reflectance + 1000 (offset -1000); earlier ones carry
none. The sensing date says nothing: the whole archive was reprocessed with baselines 05.xx. Metadata contradicts itself
often enough [1]_ that the policy is an argument and its outcome is recorded in the attributes of the Dataset.

References
----------
.. [1] Element84/earth-search issues 9, 66 and 71: items whose ``raster:bands`` offset or whose
   ``earthsearch:boa_offset_applied`` do not describe their pixels.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np

from eosr.cube.bands import BASELINE_0400_OFFSET
from eosr.errors import RadiometryError

#: A baseline of ESA, ``05.11``, also as in the names of products, ``N0511``. Sen2Cor writes 99.99 or 99.33 when run by
#: hand, which says nothing about the offset; and no baseline of 10 or later is known.
_BASELINE: Final = re.compile(r"0?([1-9]\.\d{1,2})|N?0([1-9])(\d\d)")


class Offset(NamedTuple):
    """Digital numbers to add to get 10000 * reflectance, and what says so."""

    value: int
    source: str


def offset_of(
    processing_baseline: str,
    *,
    declared: int | None = None,
    applied: bool | None = None,
    policy: str | int = "auto",
    where: str = "the image",
) -> Offset:
    """Offset to add to digital numbers to get 10000 * reflectance [DN].

    Parameters
    ----------
    processing_baseline : str
        E.g. ``"05.11"``; ``""`` if unknown.
    declared : int, optional
        Offset that the metadata of the assets state [DN].
    applied : bool, optional
        Whether the metadata say that the offset was already taken out of the pixels.
    policy : "auto", "none" or int
        ``"none"`` and numbers overrule every metadata. ``"auto"`` asks, in this order: is the offset said to be taken
        out (then 0)? is the baseline older than 04.00 (then 0, whatever the assets declare: they repeat -0.1 for old
        scenes too)? is it said not to be taken out (then -1000)? what do the assets declare? else -1000 from 04.00 on.
    where : str
        What the error names.

    Raises
    ------
    RadiometryError
        If what is said is not certain, or the policy is unknown.

    Examples
    --------
    >>> offset_of("05.11")
    Offset(value=-1000, source='processing baseline 05.11')
    >>> offset_of("05.11", declared=-1000, applied=True).value
    0
    >>> offset_of("02.12", declared=-1000).value
    0
    """
    if isinstance(policy, str) and policy.lstrip("+-").isdigit():
        policy = int(policy)
    if policy == "none":
        return Offset(0, "offset='none'")
    if not isinstance(policy, str):
        return Offset(whole_offset(policy), f"offset={whole_offset(policy)}")
    if policy != "auto":
        raise RadiometryError(f"offset={policy!r} is no policy. Use 'auto', 'none' or a number of DN such as -1000.")
    baseline = baseline_number(processing_baseline)
    if applied:
        return Offset(0, "the item says that the offset is already applied")
    if baseline is not None and baseline < 4:
        return Offset(0, f"processing baseline {processing_baseline}")
    if declared is not None and not (applied is False and baseline is not None):
        return Offset(declared, "the offset that the assets declare")
    if baseline is not None:
        return Offset(BASELINE_0400_OFFSET, f"processing baseline {processing_baseline}")
    said = "neither a processing baseline nor an offset"
    if processing_baseline:
        said = f"processing baseline {processing_baseline!r}, which is none of ESA, and no offset"
    raise RadiometryError(
        f"{where} states {said}, so its digital numbers have no known zero. Look at dark water: near 1000 say "
        "offset=-1000 (baseline 04.00 and later), near 0 say offset=0 (earlier ones, or where it was taken out)."
    )


def applied_flag(properties: Mapping[str, Any]) -> bool | None:
    """Whether the properties of a STAC item say that the offset was taken out of the pixels; None if they do not say.

    Raises
    ------
    RadiometryError
        If a flag is neither true nor false, or two contradict each other.
    """
    keys = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
    said = {key: _flag(key, properties[key]) for key in keys if properties.get(key) is not None}
    if len({*said.values()}) > 1:
        raise RadiometryError(f"{' and '.join(said)} contradict each other. Say one: offset=-1000 or offset=0.")
    return next(iter(said.values()), None)


def _flag(key: str, value: Any) -> bool:
    """A flag, also from a table or a GIS, where it is text or a number."""
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    word = str(value).strip().lower()
    if word not in known:
        raise RadiometryError(
            f"{key} is {value!r}, neither true nor false, so the offset is not known. Say it: offset=-1000 where it is "
            "still in the pixels, offset=0 where it was taken out."
        )
    return known[word]


def baseline_number(text: str) -> float | None:
    """Number of a processing baseline of ESA; None for any other text.

    Examples
    --------
    >>> baseline_number("05.11"), baseline_number("N0214"), baseline_number("99.99"), baseline_number("")
    (5.11, 2.14, None, None)
    """
    found = _BASELINE.fullmatch(text.strip())
    return float(found[1] or f"{found[2]}.{found[3]}") if found else None


def whole_offset(policy: Any, what: str = "offset") -> int:
    """Offset as an int [DN].

    Raises
    ------
    RadiometryError
        If it is no whole number.
    """
    number = isinstance(policy, numbers.Real) and not isinstance(policy, bool | np.bool_)
    if not number or not math.isfinite(policy) or policy != int(policy):
        hint = "'auto', 'none' or e.g. -1000" if what == "offset" else "-1000, or 0 before baseline 04.00"
        raise RadiometryError(f"{what}={policy!r} is no whole number of DN. Use {hint}.")
    return int(policy)
