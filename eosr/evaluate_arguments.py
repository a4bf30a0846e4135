"""Arguments of `eosr.evaluate`, checked and brought to one form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from eosr.errors import MethodError, MetricError
from eosr.methods import ALIASES, METHODS, Choice
from eosr.metrics.table import CONVENTIONS, EOSR_CONVENTION, Convention
from eosr.radiometry import for_its_times, listed

BICUBIC: Final = "bicubic"
#: What a method may be given in a mapping.
_ARGUMENTS: Final = ("method", "weights", "options", "device")


def named_scenes(ds: Any) -> dict[str, xr.Dataset]:
    """Scenes by name, one per image.

    Raises
    ------
    MetricError
        If something is no Dataset, or there is none.
    """
    given = ds if isinstance(ds, Mapping) and not isinstance(ds, xr.Dataset) else None
    if given is None:
        given = {"": ds} if not isinstance(ds, list | tuple) else {str(i): one for i, one in enumerate(ds)}
    scenes: dict[str, xr.Dataset] = {}
    for key, one in given.items():
        if not isinstance(one, xr.Dataset):
            raise MetricError(
                f"evaluate needs a Dataset of bands, not a {type(one).__name__}. Open one with eosr.open_stac."
            )
        own_name = isinstance(ds, Mapping) and not isinstance(ds, xr.Dataset)
        images = list(_images(one))
        for image in images:
            name = str(key) if own_name else ""
            # Times of a series that was given a name: all of them dated, not all but the first.
            dated = bool(name) and len(images) > 1
            scenes[_free_name(_dated(name, image) if dated else name, image, scenes)] = image
    if not scenes:
        raise MetricError("there is no scene to score. Pass a Dataset, or a mapping of name to Dataset.")
    return scenes


def _images(ds: xr.Dataset) -> Iterator[xr.Dataset]:
    if "time" in ds.dims:
        for i in range(ds.sizes["time"]):
            yield for_its_times(ds.isel(time=i))
    else:
        yield for_its_times(ds)


def _free_name(name: str, image: xr.Dataset, taken: Mapping[str, Any]) -> str:
    ids = [str(item) for item in listed(image.attrs.get("item_ids"))]
    name = name or (ids[0] if ids else "scene")
    if name in taken:
        name = _dated(name, image)
    number = 2
    free = name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


def _dated(name: str, image: xr.Dataset) -> str:
    return f"{name} {np.datetime_as_string(image['time'].values, unit='D')}" if "time" in image.coords else name


def choices(methods: Any, device: str) -> dict[str, Choice]:
    """Label -> what to run, bicubic first.

    Raises
    ------
    MethodError
        If there is no method, an argument is unknown, or a label stands for two things.
    """
    if methods is None:
        methods = ["eosr"]
    if isinstance(methods, str | Path):
        methods = [methods]
    if not isinstance(methods, Mapping):
        if not isinstance(methods, list | tuple) or not all(isinstance(one, str | Path) for one in methods):
            raise MethodError(f"methods={methods!r} names no methods. Use names, e.g. methods=['atprk', 'eosr'].")
        methods = _labelled(methods)
    if not methods:
        raise MethodError("methods is empty. Use names, e.g. methods=['atprk', 'eosr']; bicubic always stands beside.")
    runs = {BICUBIC: Choice(method=BICUBIC, device=device)}
    for label, how in methods.items():
        choice = _choice(str(label), how, device)
        if label == BICUBIC and choice.method != BICUBIC:
            raise MethodError(f"the label 'bicubic' cannot stand for {how!r}. Choose another label for it.")
        runs[str(label)] = choice
    return runs


def _labelled(methods: list[str | Path] | tuple[str | Path, ...]) -> dict[str, str | Path]:
    """Label -> method; weights files of one name in several folders are told apart by their paths."""
    given = list(dict.fromkeys(methods))
    short = [_label(one) for one in given]
    return {str(one) if short.count(label) > 1 and str(one) != label and label not in METHODS else label: one
            for label, one in zip(short, given, strict=True)}  # fmt: skip


def _label(method: str | Path) -> str:
    known = ALIASES.get(str(method), str(method))
    return known if known in METHODS else Path(method).stem


def _choice(label: str, how: Any, device: str) -> Choice:
    if isinstance(how, Mapping):
        unknown = [key for key in how if key not in _ARGUMENTS]
        if unknown:
            raise MethodError(
                f"{label}: unknown argument {', '.join(map(str, unknown))}. Known: {', '.join(_ARGUMENTS)}."
            )
        return Choice(**{"device": device, **how})
    known = isinstance(how, str) and (how in METHODS or how in ALIASES or not _is_weights(how))
    return Choice(method=str(how), device=device) if known else Choice(weights=how, device=device)


def _is_weights(name: str) -> bool:
    # The name of shipped weights or of a file; anything else is taken for a method and refused as one.
    return bool(Path(name).suffix) or name.startswith("s2sr-") or Path(name).is_file()


def several(given: Any, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    """One name or several, all known; ``"all"`` means every one.

    Raises
    ------
    MetricError
    """
    if isinstance(given, str) and given == "all":
        return known
    values = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else (given,)
    wrong = [one for one in values if one not in known]
    if wrong or not values:
        told = f"{wrong[0]!r}" if wrong else repr(given)
        choices_told = " or ".join(map(repr, known)) if len(known) == 2 else ", ".join(map(repr, known))
        raise MetricError(f"{what}={told} is unknown. Use {choices_told}, or 'all'.")
    return tuple(dict.fromkeys(values))


def checked_border(border: Any) -> int | None:
    """Number of pixels to leave out, or None for the default.

    Raises
    ------
    MetricError
    """
    if border is not None and (isinstance(border, bool) or not isinstance(border, int | np.integer)):
        raise MetricError(f"border={border!r} is no number of pixels. Use e.g. border=4.")
    if border is not None and border < 0:
        raise MetricError(f"border={border} pixels cannot be left out. Use 0 or more, or None for two coarse pixels.")
    return None if border is None else int(border)


def check_mask_names(mask: Any, scenes: Mapping[str, Any]) -> None:
    """Refuse a mask for a scene that is not there: it would be left out without a word.

    Raises
    ------
    MetricError
    """
    stray = [str(name) for name in mask if name not in scenes] if isinstance(mask, Mapping) else []
    if stray:
        raise MetricError(
            f"mask names {', '.join(stray)}, which is no scene. The scenes are {', '.join(scenes)}; name them so."
        )


def check_mask(mask: Any) -> None:
    """Refuse a mask that is no DataArray.

    Raises
    ------
    MetricError
    """
    if mask is not None and not isinstance(mask, xr.DataArray):
        raise MetricError(
            f"mask is a {type(mask).__name__}, not a DataArray. Wrap it: xarray.DataArray(mask, dims=('y10', 'x10'))."
        )


def chosen_convention(convention: Any) -> Convention:
    """Return the convention of a name, or the one given.

    Raises
    ------
    MetricError
    """
    if isinstance(convention, Convention):
        return convention
    known = {EOSR_CONVENTION.name: EOSR_CONVENTION, **CONVENTIONS}
    if convention not in known:
        raise MetricError(
            f"convention={convention!r} is unknown. Use {', '.join(map(repr, known))}, or a Convention of your own."
        )
    return known[convention]


def checked_units(units: Any) -> str:
    """Return the unit of RMSE and bias.

    Raises
    ------
    MetricError
    """
    if units not in ("DN", "reflectance"):
        raise MetricError(f"units={units!r} is unknown. Use 'DN' or 'reflectance'.")
    return str(units)


def check_draws(resamples: Any, seed: Any) -> None:
    """Refuse numbers of draws and seeds that the bootstrap cannot use.

    Raises
    ------
    MetricError
    """
    for name, value, usual in (("resamples", resamples, 1000), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise MetricError(f"{name}={value!r} is no whole number from 0 on. Use e.g. {name}={usual}.")


def mirrored(small: Any) -> bool:
    """Whether small scenes are continued by their mirror images.

    Raises
    ------
    MetricError
    """
    if small not in ("refuse", "mirror"):
        raise MetricError(f"small={small!r} is unknown. Use 'refuse' or 'mirror'.")
    return bool(small == "mirror")
