"""The part of the odc-stac engine that needs odc-stac at import: a driver that names the file it cannot read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from odc.loader import RioDriver
from odc.loader._rio import RioReader
from rasterio.windows import Window

from eosr.open.engines import read_twice
from eosr.open.rasters import check_file, open_raster, place_in


class CheckedOdcReader(RioReader):
    """odc's reader that compares every file with its item and names it when it cannot be read."""

    def read(self, cfg: Any, dst_geobox: Any, **kwargs: Any) -> Any:
        """Pixels of one block, or a `SourceError` that names the file."""
        href = self._src.uri
        box = dst_geobox.boundingbox

        def at(address: str) -> Any:
            with open_raster(address) as dataset:
                check_file(
                    href, dataset, dst_geobox.crs.epsg, dst_geobox.transform.a, (box.left, box.top),
                    (box.left, box.bottom, box.right, box.top), np.dtype(cfg.dtype),
                )  # fmt: skip
                rows, columns = dst_geobox.shape
                row, column = place_in(dataset, box.left, box.top)
                window = Window(column, row, columns, rows)
                pixels = dataset.read(1, window=window, out_dtype=cfg.dtype, masked=True).filled(cfg.fill_value)
                return (slice(0, rows), slice(0, columns)), pixels

        return read_twice(href, at)


class CheckedDriver(RioDriver):
    """odc's rasterio driver with our reader and our GDAL options, which travel to the workers with the graph."""

    def __init__(self, env: Mapping[str, str]) -> None:
        super().__init__()
        self._env = dict(env)

    def capture_env(self) -> dict[str, Any]:
        """GDAL options of this load."""
        return {**super().capture_env(), **self._env}

    @contextmanager
    def restore_env(self, env: dict[str, Any], load_state: Any) -> Iterator[Any]:
        """Run a read under the captured options."""
        with super().restore_env(env, load_state) as context:
            yield context

    def open(self, src: Any, ctx: Any) -> CheckedOdcReader:
        """Reader of one file."""
        return CheckedOdcReader(src, ctx)
