"""A Dataset -> one folder with everything: Zarr, COGs, STAC items; refused, resumed or replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import xarray as xr

from eosr.cube.radiometry import check_stated
from eosr.errors import OutputError
from eosr.host.files import discard, held, put_text
from eosr.host.progress import Progress
from eosr.write.blocks import fingerprint_of, prepared
from eosr.write.cog import to_cog
from eosr.write.item import is_describable, to_stac_items, to_zarr_items
from eosr.write.layout import (
    check_absent,
    check_folder,
    check_linkable,
    check_not_degraded,
    labels_of,
    layers_of,
    local_path,
)
from eosr.write.store import to_zarr

Format = Literal["both", "cog", "zarr"]

STORE: Final = "sharpened.zarr"
#: Lies in the folder while a delivery is unfinished, and says which one.
_MARKER: Final = ".eosr-delivery.json"
#: Held by the run that is at work in the folder.
_LOCK: Final = ".eosr-delivery.lock"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """Where everything is."""

    folder: Path
    zarr: Path | None
    cogs: tuple[Path, ...]
    items: tuple[Path, ...]


def deliver(
    ds: xr.Dataset,
    folder: str | Path,
    *,
    format: Format = "both",
    overwrite: bool = False,
    derived_from: Iterable[str] = (),
    progress: Progress = None,
) -> Delivery:
    """Write a Dataset into a folder as Zarr, COGs and STAC items, and say where they are; a killed run goes on.

    Parameters
    ----------
    ds : Dataset
        As for `to_zarr`; computed block by block.
    folder : path
        Receives ``sharpened.zarr``, ``<item>_<band>_10m.tif`` and ``<item>_eosr.json``.
    format : {"both", "cog", "zarr"}
        A STAC item comes with each; with Zarr alone not for a Dataset that has no time, no EPSG code, or was degraded.
    overwrite : bool
        Replace what a finished or another unfinished run has left there.
    derived_from : iterable of str
        URLs of the source items, for the STAC items.
    progress : callable or bool, optional
        See `to_zarr`.

    Returns
    -------
    Delivery

    Raises
    ------
    OutputError
        If another run is at work in the folder, a file is already there, an unfinished run of something else is there,
        or writing fails.
    """
    if format not in get_args(Format):
        raise OutputError(f"format={format!r} is not known. Use one of {', '.join(map(repr, get_args(Format)))}.")
    check_stated(ds, "deliver")
    if format != "zarr":
        check_not_degraded(ds.attrs)
    target = local_path(folder)
    described = format != "zarr" or is_describable(ds)
    if described:
        check_linkable(target)
    check_folder(target, 0)
    with held([target / _LOCK], target):
        return _deliver(ds, target, format, described, overwrite=overwrite, links=list(derived_from), progress=progress)


def _deliver(
    ds: xr.Dataset, target: Path, format: Format, described: bool, *, overwrite: bool, links: list[str],
    progress: Progress,
) -> Delivery:  # fmt: skip
    store = target / STORE
    request = {**fingerprint_of(prepared(ds, layers_of(ds))), "format": format}
    stage = _begin(target, request, _outputs(ds, target, format, described=described), overwrite=overwrite)
    source: xr.Dataset | Path = ds
    if format != "cog":
        if not (stage["zarr"] and store.is_dir()):
            to_zarr(ds, store, overwrite=True, resume=bool(stage["resumed"]), progress=progress)
            _mark(target, {**stage, "zarr": True})
        source = store
    cogs: list[Path] = []
    items: list[Path] = []
    if format != "zarr":
        cogs = to_cog(source, target, overwrite=True, progress=progress)
        made = to_stac_items(ds, cogs, derived_from=links, zarr=store if format == "both" else None, overwrite=True)
        items = [Path(str(item.get_self_href())) for item in made]
    elif described:
        items = [Path(str(item.get_self_href())) for item in to_zarr_items(ds, store, derived_from=links)]
    (target / _MARKER).unlink()
    return Delivery(folder=target, zarr=store if format != "cog" else None, cogs=tuple(cogs), items=tuple(items))


def _outputs(ds: xr.Dataset, target: Path, format: Format, *, described: bool) -> list[Path]:
    """Every path that is about to be written."""
    names = [] if format == "cog" else [STORE]
    for label in labels_of(ds) if described else []:
        names.append(f"{label}_eosr.json")
        if format != "zarr":
            for layer in layers_of(ds).values():
                names += [f"{label}_{band}_{layer.gsd:g}m.tif" for band in layer.names]
    return [target / name for name in names]


def _begin(target: Path, request: dict[str, Any], outputs: list[Path], *, overwrite: bool) -> dict[str, Any]:
    """What an earlier run of the same request has done; refuses to touch anything else."""
    marker = target / _MARKER
    stage = json.loads(marker.read_text()) if marker.is_file() else None
    if stage is not None and stage["request"] == request:
        return {**stage, "resumed": True}
    # A run that failed before its first block has left nothing worth keeping.
    worthless = stage is not None and not _has_work(target, stage)
    if not overwrite:
        if stage is not None and not worthless:
            raise OutputError(
                f"{target} holds an unfinished run of something else: {_differences(request, stage['request'])}. Type "
                "that command again to finish it, add --overwrite (overwrite=True) to replace it, or name another "
                f"folder, e.g. {target}-2."
            )
        try:
            check_absent(outputs)
        except OutputError as error:
            raise OutputError(str(error).replace("overwrite=True", "--overwrite (overwrite=True)")) from None
    for leftover in target.glob(".eosr-*.part"):
        # Of a COG run a folder; of a marker that did not fit onto the disk any more a file.
        if leftover.is_dir():
            discard(leftover)
        else:
            leftover.unlink()
    # A store that was being written by hand, without a marker, is not ours to go on with.
    stage = {"request": request, "zarr": False, "resumed": not overwrite and not worthless}
    _mark(target, stage)
    return stage


def _has_work(target: Path, stage: dict[str, Any]) -> bool:
    """Whether an unfinished delivery has at least one block or file that would have to be computed again."""
    folders = [target / f"{STORE}.part.done", *target.glob(".eosr-*.part/*.part.done")]
    blocks = any(path.name[0].isdigit() for folder in folders for path in folder.glob("*"))
    return bool(stage["zarr"]) or blocks or any(target.glob(".eosr-*.part/source.zarr"))


def _differences(request: dict[str, Any], other: dict[str, Any]) -> str:
    """What tells two requests apart, in words."""
    words = {
        "version of eosr": "another version of eosr",
        "bands, shapes, types or chunks": "other bands, window, type or chunks",
        "coordinates": "another place or time",
        "attributes": "another scene, weights or settings",
        "dask names": "another source or other settings",
        "format": "another --format",
    }
    return ", ".join(words.get(key, key) for key, value in request.items() if other.get(key) != value)


def _mark(target: Path, stage: dict[str, Any]) -> None:
    put_text(target / _MARKER, json.dumps(stage))
