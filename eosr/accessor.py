"""`ds.s2sr`: one line per method; the work and its documentation live in the function of the same name."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import xarray as xr

from eosr import score, sharpen, train, write

if TYPE_CHECKING:
    from eosr.host.progress import Progress
    from eosr.metrics.conventions import Convention
    from eosr.score.evaluation import Methods
    from eosr.score.protocol import Property
    from eosr.train.adaptation import Adaptation

_Method = TypeVar("_Method", bound=Callable[..., Any])


class _Documented:
    """A method with the documentation of its function, for help() and notebooks, imported when it is looked at."""

    def __init__(self, function: Callable[..., Any], package: str, name: str) -> None:
        self._function, self._package, self._name = function, package, name

    def __get__(self, instance: object, owner: type) -> Any:
        self._function.__doc__ = getattr(import_module(self._package), self._name).__doc__
        return self._function.__get__(instance, owner)


def _documented_as(package: str, name: str) -> Callable[[_Method], _Method]:
    """Give a method the documentation of its function; the signature stays its own."""

    def document(method: _Method) -> _Method:
        return cast(_Method, _Documented(method, package, name))

    return document


@xr.register_dataset_accessor("s2sr")
class S2SRAccessor:
    """Sharpen, degrade, score and write a Sentinel-2 Dataset; no logic of its own."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._given = dataset  # nothing else: xarray caches accessors, and errors raised here are hidden

    @property
    def _dataset(self) -> xr.Dataset:
        from eosr.open.cubes.adopt import adopted

        return adopted(self._given)

    @_documented_as("eosr.sharpen", "superresolve")
    def superresolve(
        self,
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
        """See `eosr.superresolve`."""
        return sharpen.superresolve(
            self._dataset, weights=weights, method=method, options=options, bands=bands, consistency=consistency,
            degradation=degradation, device=device, dtype=dtype, chunks=chunks,
        )  # fmt: skip

    @_documented_as("eosr.train", "adapt")
    def adapt(
        self,
        weights: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        *,
        out: str | os.PathLike[str],
        degradation: str = "auto",
        steps: int = 300,
        learning_rate: float = 2e-4,
        windows: int = 256,
        seed: int = 0,
        device: str = "auto",
        progress: Progress = None,
    ) -> Adaptation:
        """See `eosr.adapt`."""
        return train.adapt(
            self._dataset, weights, out=out, degradation=degradation, steps=steps, learning_rate=learning_rate,
            windows=windows, seed=seed, device=device, progress=progress,
        )  # fmt: skip

    @_documented_as("eosr.cube", "degrade")
    def degrade(
        self, factor: int, *, degradation: str = "study", platform: str | None = None, sigma: float | None = None
    ) -> Any:
        """See `eosr.degrade`."""
        from eosr.cube import degrade

        return degrade(self._dataset, factor, degradation=degradation, platform=platform, sigma=sigma)

    @_documented_as("eosr.score", "evaluate")
    def evaluate(
        self,
        methods: Methods = None,
        *,
        property: Property | Sequence[Property] = "synthesis",
        degradation: str | Sequence[str] = "study",
        bands: Sequence[str] | None = None,
        border: int | None = None,
        mask: xr.DataArray | Mapping[str, xr.DataArray] | None = None,
        convention: str | Convention = "eosr",
        units: str = "DN",
        small: str = "refuse",
        resamples: int = 1000,
        seed: int = 0,
        device: str = "auto",
        progress: Progress = None,
    ) -> xr.Dataset:
        """See `eosr.evaluate`."""
        return score.evaluate(
            self._dataset, methods, property=property, degradation=degradation, bands=bands, border=border, mask=mask,
            convention=convention, units=units, small=small, resamples=resamples, seed=seed, device=device,
            progress=progress,
        )  # fmt: skip

    @_documented_as("eosr.cube", "to_reflectance")
    def to_reflectance(self) -> xr.Dataset:
        """See `eosr.to_reflectance`."""
        from eosr.cube import to_reflectance

        return to_reflectance(self._dataset)

    @_documented_as("eosr.cube", "at")
    def at(self, gsd: int) -> xr.Dataset:
        """See `eosr.cube.at`."""
        from eosr.cube import at

        return at(self._dataset, gsd)

    @_documented_as("eosr.cube", "crop_to_multiple")
    def crop_to_multiple(self, multiple: int = 6) -> xr.Dataset:
        """See `eosr.cube.crop_to_multiple`."""
        from eosr.cube import crop_to_multiple

        return crop_to_multiple(self._dataset, multiple)

    @_documented_as("eosr.write", "to_zarr")
    def to_zarr(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        resume: bool | Literal["verify"] = True,
        progress: Progress = None,
    ) -> Path:
        """See `eosr.to_zarr`."""
        return write.to_zarr(self._dataset, path, overwrite=overwrite, resume=resume, progress=progress)

    @_documented_as("eosr.write", "to_cog")
    def to_cog(
        self,
        folder: str | Path,
        *,
        overwrite: bool = False,
        prefix: str | None = None,
        overviews: Literal["average", "nearest"] = "average",
        progress: Progress = None,
    ) -> list[Path]:
        """See `eosr.to_cog`."""
        return write.to_cog(
            self._dataset, folder, overwrite=overwrite, prefix=prefix, overviews=overviews, progress=progress
        )
