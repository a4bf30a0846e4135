"""Coarse -> fine at any size: choose the methods, check the scene, sharpen lazily, say what was done."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr

from eosr._version import __version__
from eosr.cube.band_names import check_not_nearly
from eosr.cube.bands import BANDS, BANDS_10M, NODATA, SHARP_BANDS, check_bands
from eosr.cube.degradation import DEGRADATIONS, as_float_with_nan
from eosr.cube.grid import check_chunks, check_nested, group_of, with_grid_mappings
from eosr.cube.radiometry import check_stated, for_its_times
from eosr.errors import BandError, DegradationError, GridError, RadiometryError
from eosr.sharpen.methods import Choice, Method, choose_methods
from eosr.sharpen.tile import STEP, Found, TileTask, as_dtype, without_wrapped
from eosr.sharpen.tiling import check_size, count_windows, find_passes, plan_tasks, sharpen_group

#: Output types.
DTYPES: Final = ("uint16", "float32")


def superresolve(
    ds: xr.Dataset,
    *,
    weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    bands: Sequence[str] | None = None,
    consistency: bool | None = None,
    degradation: str = "auto",
    device: str = "auto",
    dtype: str = "uint16",
    chunks: int | None = None,
) -> xr.Dataset:
    """Every band at the pixel size of the finest ones [DN], lazily.

    Parameters
    ----------
    ds : Dataset
        Multi-resolution Dataset as `eosr.open_stac` returns it: dims ``([time,] y10, x10)``, ``([time,] y20, x20)``,
        ``([time,] y60, x60)``; integer digital numbers with 0 as nodata, or float with NaN. Numpy or dask.
    weights : str, path or sequence of them, optional
        Names of shipped weights or weights files. Default: ``("s2sr-20m", "s2sr-60m")``.
    method : str, optional
        ``"eosr"``: the shipped weights. Without weights: ``"bicubic"``, ``"detail_injection"``, ``"atprk"``,
        ``"supreme"``, ``"superres_like"``. Generators of others, with ``weights`` given: ``"dsen2"`` (the published
        Keras or TorchScript files), ``"s2x"``, ``"s6x"``. See the page on methods of the reference.
    options : mapping, optional
        Options of a method without weights, e.g. ``{"psf": "published"}`` for ``"atprk"``.
    bands : sequence of str, optional
        Bands to return. Default: all that are there, without B10 (cirrus), which no 10 m band can guide.
    consistency : bool, optional
        Project the answer onto the measurement: degraded, it then equals what the satellite measured (within the
        rounding of ``dtype``). Default: yes for generators, no for methods without weights.
    degradation : str
        The operator between the answer and the measurement, as in `eosr.degrade`. ``"auto"``: the one recorded by
        `eosr.degrade` in ``ds.attrs["degradation"]``, else ``"study"``.
    device : str
        ``"auto"`` (CUDA on workers that have it), ``"cpu"``, ``"cuda"``.
    dtype : str
        ``"uint16"`` (rounded, 0 is nodata, valid values at least 1; projected, the answer is the nearest one with that
        bound, see `eosr.cube.consistency.lift_tile`) or ``"float32"`` (NaN is nodata, nothing clipped).
    chunks : int, optional
        Chunk of the output along ``y10`` and ``x10``. Default: the chunks of the 10 m bands.

    Returns
    -------
    Dataset, dims ([time,] y10, x10)
        Bands in spectral order; the native 10 m bands as they came (converted to ``dtype``). Coordinates, grid mapping,
        offset and other attributes are kept; ``sharpened_by``, ``weights_sha256``, ``consistency`` and ``degradation``
        say what was done.

    Raises
    ------
    BandError
        Unknown or missing bands; nothing to sharpen.
    GridError
        Grids that do not nest, chunks not 6:3:1, a scene smaller than the reach of the method.
    WeightsError, DegradationError, RadiometryError
        Weights that are missing, cannot be used, or were made for another level or operator.
    MethodError
        A method or an option that is unknown, or a blur too wide for the method.

    Notes
    -----
    A sharpened pixel is nodata where its own coarse pixel is, or where no 10 m band was measured. A gap is filled from
    its rim before the network sees it, so it changes pixels within the reach of the method at most, and none further
    away. Where the own coarse pixel is saturated (65535) the answer is too; its neighbours are sharpened as beside a
    gap. Digital numbers from 32768 to 65534, which Sentinel-2 has not, count as nodata, with a warning.
    Bands that no weights given deliver are left out, unless ``bands`` asks for them.
    ``"detail_injection"``, ``"atprk"`` and ``"supreme"`` estimate parameters from the whole scene (each image of a
    series for itself). That reads the scene once or twice more, within the same lazy graph; the tiles then share them.
    """
    choice = Choice(weights=weights, method=method, options=options, device=device)
    plan = _planned(
        ds, choice, bands=bands, consistency=consistency, degradation=degradation, dtype=dtype, chunks=chunks
    )
    return _sharpened(plan)[0]


@dataclass(frozen=True, kw_only=True)
class Stages:
    """A scene before and after the projection [DN], and the seconds of work as lazy arrays."""

    before: xr.Dataset
    after: xr.Dataset
    seconds: list[da.Array]


#: What each method estimated from the whole scene.
Parameters: TypeAlias = Sequence[tuple[Found, ...]]


def superresolve_stages(
    ds: xr.Dataset, choice: Choice, *, bands: Sequence[str], degradation: str, mirror: bool = False,
    parameters: Parameters | None = None,
) -> Stages:  # fmt: skip
    """Both stages of one run in float32, for evaluation; tiles are sharpened once for both.

    ``mirror`` continues a scene smaller than the reach of the method by its mirror images; without it, it is refused.
    ``parameters`` are those of `find_parameters`, for a part of the scene that they were found in.
    """
    plan = _planned(
        ds, choice, bands=bands, consistency=True, degradation=degradation, dtype="float32", stages=True, mirror=mirror
    )
    if parameters is not None:
        tasks = [[replace(tasks[0], found=found)] for tasks, found in zip(plan.tasks, parameters, strict=True)]
        plan = replace(plan, tasks=tasks)
    before, after, seconds = _sharpened(plan)
    return Stages(before=before, after=before if after is None else after, seconds=seconds)


def count_graphs(ds: xr.Dataset, choice: Choice, *, bands: Sequence[str], degradation: str) -> int:
    """Number of graphs that `find_parameters` computes."""
    plan = _planned(
        ds, choice, bands=bands, consistency=True, degradation=degradation, dtype="float32", stages=True, mirror=True
    )
    return sum(count_windows(plan.ds, tasks[0], plan.template) for tasks in plan.tasks)


def find_parameters(ds: xr.Dataset, choice: Choice, *, bands: Sequence[str], degradation: str) -> Parameters:
    """What every method estimates from one image of any size, one tuple per method. Computes."""
    plan = _planned(
        ds, choice, bands=bands, consistency=True, degradation=degradation, dtype="float32", stages=True, mirror=True
    )
    return [find_passes(plan.ds, tasks[0], plan.template) for tasks in plan.tasks]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Arguments that are checked, and the tasks that follow from them."""

    ds: xr.Dataset
    methods: Sequence[Method]
    #: Per method one task, or one per time.
    tasks: Sequence[Sequence[TileTask]]
    operator: str
    bands: Sequence[str] | None
    consistency: bool
    dtype: str
    chunks: int | None
    stages: bool

    @property
    def template(self) -> xr.DataArray:
        return self.ds[_first_fine(self.ds)]


def _planned(
    ds: xr.Dataset,
    choice: Choice,
    *,
    bands: Any,
    consistency: Any,
    degradation: str,
    dtype: Any,
    chunks: Any = None,
    stages: bool = False,
    mirror: bool = False,
) -> _Plan:
    dtype = _check_arguments(ds, dtype=dtype, chunks=chunks, consistency=consistency)
    if bands is not None:
        bands = check_bands(bands)
        if not bands:
            raise BandError("bands is empty, so there is nothing to return. Leave it out for all bands.")
    ds = with_grid_mappings(for_its_times(ds))
    available = [name for name in SHARP_BANDS if name in ds.data_vars]
    methods = choose_methods(choice, bands, available)
    needed = sorted({*BANDS_10M, *(b for m in methods for b in (*m.targets, *m.middle_bands))} & {*available})
    _check_grids(ds, needed)
    check_nested(ds[needed])
    check_chunks(ds[needed])
    operator = operator_of(ds, degradation)
    if consistency is None:
        consistency = choice.learned
    for each in methods:
        each.check(level=ds.attrs["level"], degradation=operator)
    tasks = [
        plan_tasks(ds, each, operator, consistency=consistency, dtype=dtype, stages=stages) for each in methods
    ]  # fmt: skip
    if not mirror:
        check_size(ds, [task for several in tasks for task in several])
    return _Plan(
        ds=ds, methods=methods, tasks=tasks, operator=operator, bands=bands, consistency=consistency, dtype=dtype,
        chunks=chunks, stages=stages,
    )  # fmt: skip


def _sharpened(plan: _Plan) -> tuple[xr.Dataset, xr.Dataset | None, list[da.Array]]:
    """Answer before and after the projection if the plan has stages, else the one asked for and None."""
    ds, template = plan.ds, plan.template
    first: dict[str, xr.DataArray] = {}
    second: dict[str, xr.DataArray] = {}
    seconds = []
    for each, tasks in zip(plan.methods, plan.tasks, strict=True):
        planes, has_time = sharpen_group(ds, tasks, template, plan.chunks)
        names = [band for band in each.delivers if plan.bands is None or band in plan.bands]
        places = {name: each.delivers.index(name) for name in names}
        first |= _named(planes, places, ds, template, has_time=has_time)
        if plan.stages:
            behind = {name: place + len(each.delivers) for name, place in places.items()}
            second |= _named(planes, behind, ds, template, has_time=has_time)
            seconds.append(planes[:, -1])
    done: dict[str, Any] = {"methods": plan.methods, "operator": plan.operator}
    asked = {"bands": plan.bands, "dtype": plan.dtype, "chunks": plan.chunks}
    before = _delivered(ds, first, asked)
    before = before.assign_attrs(_provenance(**done, consistency=plan.consistency and not plan.stages))
    if not plan.stages:
        return before, None, []
    return before, _delivered(ds, second, asked).assign_attrs(_provenance(**done, consistency=True)), seconds


def _named(
    planes: da.Array, places: dict[str, int], ds: xr.Dataset, template: xr.DataArray, *, has_time: bool
) -> dict[str, xr.DataArray]:
    named = {}
    for name, place in places.items():
        data = planes[:, place] if has_time else planes[0, place]
        named[name] = xr.DataArray(data, template.coords, template.dims, name=name, attrs=ds[name].attrs)
    return named


def _delivered(ds: xr.Dataset, results: dict[str, xr.DataArray], asked: dict[str, Any]) -> xr.Dataset:
    """The sharpened bands and the native ones beside them, in spectral order, on one grid."""
    for name in BANDS_10M:
        if name in ds.data_vars and (asked["bands"] is None or name in asked["bands"]):
            results = {**results, name: _like(_native(ds[name], asked["dtype"], asked["chunks"]), results)}
    mapping = ds[_first_fine(ds)].encoding.get("grid_mapping", "spatial_ref10")
    others = [name for name in ds.coords if str(name).startswith("spatial_ref") and name != mapping]
    sharp = xr.Dataset({name: results[name] for name in SHARP_BANDS if name in results}, attrs=ds.attrs)
    sharp = sharp.drop_vars(others, errors="ignore")
    for band in sharp.data_vars.values():
        band.encoding = {"grid_mapping": mapping}
    return sharp


def _check_arguments(ds: xr.Dataset, *, dtype: Any, chunks: Any, consistency: Any) -> str:
    check_stated(ds, "superresolve")
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", str(dtype))
    if name not in DTYPES:
        raise RadiometryError(f"dtype {name!r} is not offered. Use one of {', '.join(map(repr, DTYPES))}.")
    whole = isinstance(chunks, int | np.integer) and not isinstance(chunks, bool)
    if chunks is not None and (not whole or chunks < STEP or chunks % STEP):
        near = max(1, int(chunks) // STEP) * STEP if whole else 1536
        raise GridError(f"chunks={chunks!r} is no multiple of {STEP} above 0. Use e.g. chunks={near}.")
    if consistency is not None and not isinstance(consistency, bool | np.bool_):
        raise DegradationError(f"consistency={consistency!r} is neither True, False nor None. Use consistency=False.")
    if ds.attrs.get("quantity") == "reflectance":
        raise RadiometryError(
            "the Dataset holds reflectance; superresolve works on digital numbers. Give it the Dataset of open_stac, "
            "or eosr.cube.to_digital_numbers(ds), and convert the answer."
        )
    _first_fine(ds)
    check_not_nearly(map(str, ds.data_vars))
    return name


def _check_grids(ds: xr.Dataset, names: Sequence[str]) -> None:
    """Every band on its native grid, over time at most."""
    for name in names:
        group, band = group_of(ds[name]), ds[name]
        if group != BANDS[name].gsd:
            by = ds.attrs.get("sharpened_by", "something else")
            raise GridError(
                f"{name} is on the {group} m grid already, sharpened by {by}. Give the Dataset of open_stac instead."
            )
        if not {*band.dims[:-2]} <= {"time"}:
            extra = ", ".join(str(dim) for dim in band.dims[:-2] if dim != "time")
            raise GridError(
                f"{name} has a dimension {extra} besides time, y{group}, x{group}. Take one, e.g. ds.isel({extra}=0)."
            )
        if band.dtype.kind not in "uif" or band.dtype.itemsize == 1:
            picture = ", an 8-bit picture" if band.dtype in ("uint8", "int8") else ""
            other = "; numbers of another type convert: ds = ds.astype('float32')" if band.dtype.kind == "O" else ""
            raise RadiometryError(f"{name} holds {band.dtype}{picture}, not digital numbers. Open the original{other}.")


def _first_fine(ds: xr.Dataset) -> str:
    for name in BANDS_10M:
        if name in ds.data_vars:
            return name
    held = ", ".join(str(name) for name in ds.data_vars) or "no variables"
    raise BandError(
        f"the Dataset holds {held}, but none of the 10 m bands {', '.join(BANDS_10M)} that guide the sharpening. "
        "Open them too, e.g. eosr.open_stac(source) without bands=..."
    )


def operator_of(ds: xr.Dataset, degradation: str) -> str:
    """Name of the operator: given, recorded or the default; ``sigma=...`` for a blur of that many fine pixels."""
    # A sharpened product records what it was sharpened for; only a degraded one tells what made it.
    recorded = str(ds.attrs.get("degradation", "study"))
    operator = recorded if isinstance(degradation, str) and degradation == "auto" else degradation
    if operator in DEGRADATIONS:
        return operator
    try:
        float(str(operator).removeprefix("sigma=") if str(operator).startswith("sigma=") else "none")
    except ValueError:
        raise DegradationError(
            f"degradation={operator!r} is not one eosr knows. Use 'auto', {', '.join(map(repr, DEGRADATIONS))}."
        ) from None
    return operator


def _native(band: xr.DataArray, dtype: str, chunks: int | None) -> xr.DataArray:
    convert = _native_float if dtype == "float32" else _native_digital
    lazy = isinstance(band.data, da.Array)
    band = band.copy(data=band.data.map_blocks(convert, dtype=np.dtype(dtype)) if lazy else convert(band.data))
    return band.chunk({"y10": chunks, "x10": chunks}) if chunks else band


def _like(band: xr.DataArray, sharp: dict[str, xr.DataArray]) -> xr.DataArray:
    """Give a native band the chunks of the sharpened ones, so that blocks of all bands can be written side by side."""
    first = next(iter(sharp.values()), None)
    return band if first is None or first.chunks is None else band.chunk(dict(first.chunksizes))


def _native_digital(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    block = without_wrapped(block, np.nan if block.dtype.kind == "f" else NODATA)
    if block.dtype == np.uint16:
        return block
    valid = np.isfinite(block) if block.dtype.kind == "f" else block != NODATA
    return as_dtype(block, valid, "uint16")


def _native_float(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    block = without_wrapped(block, np.nan if block.dtype.kind == "f" else NODATA)
    return as_float_with_nan(block).astype(np.float32, copy=False)


def _provenance(methods: Sequence[Method], operator: str, *, consistency: bool) -> dict[str, Any]:
    return {
        "sharpened_by": f"eosr {__version__}",
        "sharpening_methods": [method.described() for method in methods],
        "weights_sha256": [method.checksum for method in methods],
        "consistency": "exact" if consistency else "none",
        "degradation": operator,
    }
