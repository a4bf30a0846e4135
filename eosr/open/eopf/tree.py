"""An EOPF product that xarray has opened: the numbers of its store, out of a DataTree, decoded or not.

xarray applies ``scale_factor`` and ``add_offset`` unless it is told not to, and keeps in ``encoding`` what it did. That
is undone here. It loses nothing: rounding returns every number of 16 bits (a test tries all), and each block is checked
to hold such numbers. The pixels are those of the tree, read by xarray; nothing goes back to the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import dask.array as da
import numpy as np
import numpy.typing as npt
import xarray as xr
from dask.base import tokenize

from eosr.errors import RadiometryError, without_secrets
from eosr.open.eopf.store import Arrays, Place, Raster, block_sides

_CF: Final = ("scale_factor", "add_offset", "_FillValue")
#: How far undone numbers may lie from whole ones. Decoding in float32 moves them by up to 0.007.
_WHOLE: Final = 0.05
_RAW: Final = "Open it with xr.open_datatree(path, engine='zarr', chunks={}, mask_and_scale=False)."


@dataclass(frozen=True, kw_only=True)
class TreeRaster:
    """One variable of a tree, with the attributes and the pixel type of its store."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any]
    variable: xr.Variable
    place: Place

    def values(self) -> npt.NDArray[Any]:
        """All of it, now, as xarray decoded it."""
        return np.asarray(self.variable.values)

    def lazy(self, version: object) -> da.Array:
        """Pixels, dims (y, x), lazy; undone where xarray decoded them."""
        del version  # xarray names the graph
        variable, code = self.variable, self.variable.encoding
        if variable.chunks is None:
            sides = block_sides(code.get("chunks") or self.shape)
            variable = variable.chunk(dict(zip(variable.dims, sides, strict=True)))
        pixels = variable.data
        dtype = self.dtype.newbyteorder("=")
        if pixels.dtype.kind != "f":
            return pixels.astype(dtype)
        fills = {float(code[key]) for key in ("_FillValue", "missing_value") if code.get(key) is not None}
        facts = {
            "scale": float(code.get("scale_factor", 1)), "offset": float(code.get("add_offset", 0)),
            "fill": fills.pop() if len(fills) == 1 else None, "what": f"{self.path} of {self.place.where}",
        }  # fmt: skip
        return da.map_blocks(
            _undone, pixels, to=dtype, dtype=dtype, meta=np.empty((0, 0), dtype), **facts,
            name=f"eopf-{self.path.rpartition('/')[2]}-{tokenize(pixels.name, dtype.name, facts)}",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TreeArrays:
    """The variables of a tree by their paths."""

    place: Place
    tree: xr.DataTree

    def attributes(self) -> dict[str, Any]:
        """Attributes of the root."""
        return {str(key): value for key, value in self.tree.attrs.items()}

    def get(self, path: str) -> TreeRaster | None:
        """One variable; None if there is none of this name.

        Raises
        ------
        RadiometryError
            If it is floating, and does not say what it was made of.
        """
        try:
            found = self.tree[path]
        except KeyError:
            return None
        if not isinstance(found, xr.DataArray):
            return None
        variable = found.variable
        if set(variable.dims) == {"y", "x"}:
            variable = variable.transpose("y", "x")
        code, dtype = variable.encoding, variable.dtype
        if dtype.kind == "f" and variable.ndim == 2:
            if code.get("dtype") is None:
                raise RadiometryError(
                    f"{path} of {self.place.where} holds {dtype} pixels and has lost how they were encoded, as after "
                    f"arithmetic. {_RAW}"
                )
            dtype = np.dtype(code["dtype"])
        attrs = {str(key): value for key, value in variable.attrs.items()}
        attrs = {**attrs, **{key: code[key] for key in _CF if key in code}}
        return TreeRaster(
            path=path, shape=variable.shape, dtype=dtype, attrs=attrs, variable=variable, place=self.place
        )


AnyArrays = Arrays | TreeArrays
AnyRaster = Raster | TreeRaster


def tree_arrays(tree: xr.DataTree) -> TreeArrays:
    """The variables of a tree, at the place where xarray found it."""
    where = without_secrets(str(tree.encoding.get("source") or f"the DataTree {tree.name or ''}".strip()))
    cut = "Hand the tree over as xarray opened it; bbox= cuts a window."
    return TreeArrays(place=Place(where=where.rstrip("/"), again=cut), tree=tree)


def _undone(
    block: npt.NDArray[Any], *, to: np.dtype[Any], scale: float, offset: float, fill: float | None, what: str
) -> npt.NDArray[Any]:
    """Numbers of the store that xarray decoded to this; an error where there are none."""
    if to.kind == "f":
        return block.astype(to, copy=False)
    numbers = (block.astype(np.float64) - offset) / scale
    if fill is not None:
        numbers[np.isnan(block)] = fill
    whole = np.rint(numbers)
    least, most = np.iinfo(to).min, np.iinfo(to).max
    good = (np.abs(numbers - whole) <= _WHOLE) & (whole >= least) & (whole <= most)
    if not good.all():
        raise RadiometryError(
            f"{what} holds {block[~good][0]:.9g}, which is no digital number times {scale:g} plus {offset:g}: pixels "
            f"were changed after they were read. {_RAW}"
        )
    return whole.astype(to)
