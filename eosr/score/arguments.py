"""Arguments of `eosr.evaluate`, checked and brought to one form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from eosr.cube.radiometry import for_its_times, listed
from eosr.errors import MethodError, MetricError, RadiometryError
from eosr.metrics.conventions import CONVENTIONS, EOSR_CONVENTION, Convention
from eosr.sharpen.methods import ALIASES, CLASSICAL, GENERATORS, METHODS, Choice, Method

BICUBIC: Final = "bicubic"
#: What a method may be given in a mapping.
_ARGUMENTS: Final = ("method", "weights", "options", "device")
#: Ends the kind of a generator that was trained on L2A, where the reference study tells it apart.
_L2A: Final = "_l2a"


def named_scenes(ds: Any) -> dict[str, xr.Dataset]:
    """Scenes by name, one per image.

    Names are the keys of a mapping, else the ids of items. Images of one Dataset that would share a name are all dated;
    what still has the name of another scene is numbered.

    Raises
    ------
    MetricError
        If something is no Dataset, or there is none.
    RadiometryError
        If a Dataset holds reflectance.
    """
    own_names = isinstance(ds, Mapping) and not isinstance(ds, xr.Dataset)
    given = list(ds.items()) if own_names else [("", one) for one in (ds if isinstance(ds, list | tuple) else [ds])]
    scenes: dict[str, xr.Dataset] = {}
    for key, one in given:
        _check_scene(one)
        images = list(_images(one))
        names = [str(key) or _item_of(image) for image in images]
        if len(set(names)) < len(names):
            names = [_dated(name, image) for name, image in zip(names, images, strict=True)]
        for name, image in zip(names, images, strict=True):
            scenes[_free_name(name, scenes)] = image
    if not scenes:
        raise MetricError("there is no scene to score. Pass a Dataset, or a mapping of name to Dataset.")
    return scenes


def _check_scene(ds: Any) -> None:
    if not isinstance(ds, xr.Dataset):
        raise MetricError(
            f"evaluate needs a Dataset of bands, not a {type(ds).__name__}. Open one with eosr.open_stac."
        )
    if ds.attrs.get("quantity") == "reflectance":
        raise RadiometryError(
            "the Dataset holds reflectance; evaluate works on digital numbers. Give it the Dataset of open_stac, or "
            "eosr.cube.to_digital_numbers(ds), and for RMSE and bias in reflectance units='reflectance'."
        )


def _images(ds: xr.Dataset) -> Iterator[xr.Dataset]:
    if "time" in ds.dims:
        for i in range(ds.sizes["time"]):
            yield for_its_times(ds.isel(time=i))
    else:
        yield for_its_times(ds)


def _item_of(image: xr.Dataset) -> str:
    ids = [str(item) for item in listed(image.attrs.get("item_ids"))]
    return ids[0] if ids else "scene"


def _dated(name: str, image: xr.Dataset) -> str:
    return f"{name} {np.datetime_as_string(image['time'].values, unit='D')}" if "time" in image.coords else name


def _free_name(name: str, taken: Mapping[str, Any]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


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
        _check_label(str(label), how, choice)
        runs[str(label)] = choice
    return runs


def _check_label(label: str, how: Any, choice: Choice) -> None:
    """Refuse a label that is the name of another method, as far as it can be told without opening weights."""
    means = _named(label)
    stands = _named(choice.method) if isinstance(choice.method, str) else ""
    learned = choice.method is None and means in CLASSICAL  # weights are no classical method, whatever they hold
    if learned or (means and stands and means != stands) or (label == BICUBIC != choice.method):
        raise MethodError(f"the label {label!r} cannot stand for {how!r}. Choose another label for it.")


def _named(text: str) -> str:
    """The method that a word is the name of, however it is capitalised; empty for none."""
    name = ALIASES.get(text.lower(), text.lower())
    return name if name in METHODS else ""


def kind_of(label: str, choice: Choice, made: Sequence[Method]) -> str:
    """What a row really is, whatever its label.

    Parameters
    ----------
    label, choice
        The row, from `choices`.
    made
        What `eosr.sharpen.methods.choose_methods` found for it.

    Returns
    -------
    str
        Name of the classical method, or of the method that the kind and the factor of its generators make:
        ``"eosr"``, ``"dsen2"``, ``"s2x"``, ``"s6x"``; ``"dsen2_l2a"`` is DSen2 that was trained on L2A, which the
        reference study prints as another method. Empty for other generators, or several of different kinds.

    Raises
    ------
    MethodError
        If the label is the name of another method.
    """
    kinds = {method.name if method.baseline is not None else _generator_kind(choice, method) for method in made}
    bases = {kind.removesuffix(_L2A) for kind in kinds}
    base = bases.pop() if len(bases) == 1 else ""
    # DSen2's 20 m network is one for both levels, its 60 m networks are not: together they are DSen2.
    kind = kinds.pop() if len(kinds) == 1 else base
    if _named(label) not in ("", base):
        raise MethodError(
            f"the label {label!r} cannot stand for {choice.weights!r}, which is "
            f"{kind or 'no method of that name'}. Choose another label for it."
        )
    return kind


def _generator_kind(choice: Choice, method: Method) -> str:
    name = choice.method or ("eosr" if choice.weights is None else "")
    if not name:
        # Imported here: methods without weights need no torch.
        from eosr.nn.weights import shared_weights

        loaded = shared_weights(method.path)
        name = next((name for name, (kind, factor) in GENERATORS.items()
                     if loaded.generator.kind == kind and factor in (None, loaded.factor)), "")  # fmt: skip
    return name + _L2A if name == "dsen2" and method.levels == ("L2A",) else name


def _labelled(methods: list[str | Path] | tuple[str | Path, ...]) -> dict[str, str | Path]:
    """Label -> method or weights."""
    given = list(dict.fromkeys(methods))
    files = [one for one in given if not (isinstance(one, str) and ALIASES.get(one, one) in METHODS)]
    labels = dict(zip(files, file_labels([[one] for one in files]), strict=True))
    return {labels[one] if one in labels else ALIASES.get(str(one), str(one)): one for one in given}


def file_labels(rows: Sequence[Sequence[str | Path]]) -> list[str]:
    """Labels of rows of weights files: their names without suffix, with it, or their paths.

    The shortest of these that no other row has, and that is not the name of a method.
    """
    forms = [["+".join(form(one) for one in files) for form in (_stem, _name, str)] for files in rows]
    columns = list(zip(*forms, strict=True))
    return [
        next((text for k, text in enumerate(mine) if columns[k].count(text) == 1 and not _named(text)), mine[-1])
        for mine in forms
    ]


def _stem(path: str | Path) -> str:
    return Path(path).stem


def _name(path: str | Path) -> str:
    return Path(path).name


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
    """One name or several, all known; ``"all"`` means every one, and so does ``"both"`` where there are two.

    Raises
    ------
    MetricError
    """
    two = len(known) == 2
    if isinstance(given, str) and (given == "all" or (two and given == "both")):
        return known
    values = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list | tuple) else (given,)
    wrong = [one for one in values if not (isinstance(one, str) and one in known)]
    if wrong or not values:
        told = f"{wrong[0]!r}" if wrong else repr(given)
        choices_told = (" or " if two else ", ").join(map(repr, known))
        raise MetricError(f"{what}={told} is unknown. Use {choices_told}, or {'both' if two else 'all'!r}.")
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
        raise MetricError(
            f"border={border} pixels cannot be left out. Use 0 or more; without it, two coarse pixels are."
        )
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
    if not (isinstance(convention, str) and convention in known):
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
    if not (isinstance(units, str) and units in ("DN", "reflectance")):
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
    if not (isinstance(small, str) and small in ("refuse", "mirror")):
        raise MetricError(f"small={small!r} is unknown. Use 'refuse' or 'mirror'.")
    return bool(small == "mirror")
